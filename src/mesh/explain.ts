/** `explain`: what an address means, from its bits alone. */

import { InlayError } from '../errors.ts';
import { type Address, contains, formatAddress, formatPrefix } from './address.ts';
import { covering, type Kind, type Mapping } from './mapping.ts';

export interface OverlayExplanation {
  address: string;
  kind: Kind;
  vm: string;
  slice: string;
  index: number;
  /** Only for a container. */
  container?: number;
}

export interface UnderlayExplanation {
  address: string;
  kind: 'underlay';
  slice: string;
  /** The VM's own overlay address, or that of the container asked for. */
  overlay: string;
  container?: number;
}

/**
 * Explains an address of either network; `container` asks for the address of that container on an underlay
 * address's VM.
 */
export function explain(
  mappings: readonly Mapping[],
  address: Address,
  container?: number,
): OverlayExplanation | UnderlayExplanation {
  const mapping = covering(mappings, address);
  if (mapping) {
    if (container !== undefined) {
      throw new InlayError('ERR_USAGE', '--container goes with an underlay address', {
        hint: `${formatAddress(address)} is an overlay address: it carries its container number already`,
      });
    }
    return explainOverlay(mapping, address);
  }
  const under = mappings.find((m) => contains(m.underlay, address));
  if (under) return explainUnderlay(under, address, container);
  const known = mappings.flatMap((m) => [formatPrefix(m.overlay), formatPrefix(m.underlay)]);
  throw new InlayError('ERR_FAILED', `${formatAddress(address)} is in none of ${[...new Set(known)].join(', ')}`);
}

function explainOverlay(mapping: Mapping, address: Address): OverlayExplanation {
  const found = mapping.explain(address);
  const why = mapping.whyNotVm(found.vm);
  if (why) {
    const vm = formatAddress(found.vm);
    throw new InlayError('ERR_CONFIG', `nobody can have ${formatAddress(address)}: its VM would be ${vm}, but ${why}`);
  }
  return {
    address: formatAddress(address),
    kind: found.kind,
    vm: formatAddress(found.vm),
    slice: formatPrefix(found.slice),
    index: Number(found.index),
    ...(found.kind === 'container' ? { container: Number(found.index - 1n) } : {}),
  };
}

function explainUnderlay(mapping: Mapping, vm: Address, container: number | undefined): UnderlayExplanation {
  mapping.checkVm(vm);
  if (container !== undefined && (container < 1 || BigInt(container) > mapping.containersPerVm)) {
    throw new InlayError('ERR_USAGE', `--container ${container}: expected 1..${mapping.containersPerVm}`);
  }
  return {
    address: formatAddress(vm),
    kind: 'underlay',
    slice: formatPrefix(mapping.sliceOf(vm)),
    overlay: formatAddress(mapping.addressOf(vm, BigInt(container ?? 0) + 1n)),
    ...(container === undefined ? {} : { container }),
  };
}
