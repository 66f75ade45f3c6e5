/** `plan`: what a pair of prefixes has room for, and what to beware of. */
import { formatPrefix, overlaps, type Prefix, parsePrefix } from './address.ts';
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
const SHARED = parsePrefix('100.64.0.0/10') as Prefix;

/** `containerBits` is how many there should be. */
export function plan(mapping: Mapping, containerBits: number = DENSE_CONTAINER_BITS): Plan {
  return {
    overlay: formatPrefix(mapping.overlay),
    underlay: formatPrefix(mapping.underlay),
    vmBits: mapping.vmBits,
    containerBits: mapping.containerBits,
    vms: mapping.vms,
    addressesPerVm: 2 ** mapping.containerBits,
    containersPerVm: Number(mapping.containersPerVm),
    sliceLength: mapping.sliceLength,
    warnings: warnings(mapping, containerBits),
  };
}

/** Whether a prefix has addresses of class E, which not everything forwards. */
export function isClassE(prefix: Prefix): boolean {
  return overlaps(prefix, CLASS_E);
}

function warnings(mapping: Mapping, containerBits: number): string[] {
  const found: string[] = [];
  if (isClassE(mapping.overlay)) {
    found.push(
      `${formatPrefix(mapping.overlay)} is class E: Linux forwards it, but Windows, some routers and some clouds do not; keep it inside the mesh`,
    );
  }
  if (overlaps(mapping.overlay, SHARED)) {
    found.push(
      `${formatPrefix(mapping.overlay)} is in the shared address space (RFC 6598): some clouds, providers and VPNs use parts of it`,
    );
  }
  // Longer ones show it by their number of VMs: their ends are the network and its broadcast address.
  const [lost] = mapping.vmBits < 2 ? mapping.unusedSlices : [];
  if (lost) found.push(`${formatPrefix(lost)} can be no VM's slice: it contains 255.255.255.255`);
  const missing = containerBits - mapping.containerBits;
  if (missing > 0) {
    const longer = mapping.underlay.length + missing;
    const how = longer <= mapping.underlay.width ? `an underlay prefix of /${longer}` : 'a shorter overlay prefix';
    found.push(
      `${2 ** mapping.containerBits} addresses per VM; ${2 ** containerBits} take ${containerBits} container bits: ${how}`,
    );
  }
  return found;
}
