/** `plan`: what a pair of prefixes has room for, and what to beware of. */
import { formatAddress, formatPrefix, lowBits, overlaps, type Prefix, parsePrefix } from './address.ts';
import type { Mapping } from './mapping.ts';

export interface Plan {
  overlay: string;
  underlay: string;
  vmBits: number;
  containerBits: number;
  vms: number;
  addressesPerVm: number;
  containersPerVm: number;
  sliceLength: number;
  warnings: string[];
}

/** 8,192 addresses for each VM, the density Inlay is made for. */
const DENSE_CONTAINER_BITS = 13;
const CLASS_E = parsePrefix('240.0.0.0/4') as Prefix;

export function plan(mapping: Mapping): Plan {
  return {
    overlay: formatPrefix(mapping.overlay),
    underlay: formatPrefix(mapping.underlay),
    vmBits: mapping.vmBits,
    containerBits: mapping.containerBits,
    vms: 2 ** mapping.vmBits,
    addressesPerVm: 2 ** mapping.containerBits,
    containersPerVm: Number(mapping.containersPerVm),
    sliceLength: mapping.sliceLength,
    warnings: warnings(mapping),
  };
}

function warnings(mapping: Mapping): string[] {
  const found: string[] = [];
  if (overlaps(mapping.overlay, CLASS_E)) {
    found.push(
      `${formatPrefix(mapping.overlay)} is class E: Linux forwards it, but Windows, some routers and some clouds do not; keep it inside the mesh`,
    );
  }
  const lastVm = { width: mapping.underlay.width, bits: mapping.underlay.bits | lowBits(mapping.vmBits) };
  if (mapping.holdsBroadcast(lastVm)) {
    const slice = formatPrefix(mapping.sliceOf(lastVm));
    found.push(`VM ${formatAddress(lastVm)} is unusable: its slice ${slice} contains 255.255.255.255`);
  }
  const missing = DENSE_CONTAINER_BITS - mapping.containerBits;
  if (missing > 0) {
    const longer = mapping.underlay.length + missing;
    const how = longer <= mapping.underlay.width ? `an underlay prefix of /${longer}` : 'a shorter overlay prefix';
    found.push(
      `${2 ** mapping.containerBits} addresses per VM; 8192 take ${DENSE_CONTAINER_BITS} container bits: ${how}`,
    );
  }
  return found;
}
