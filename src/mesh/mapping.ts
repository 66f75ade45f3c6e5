/**
 * The mapping of an overlay prefix to an underlay prefix, in bigints. The packet cores have the same
 * arithmetic in 32-bit numbers.
 */

import { InlayError } from '../errors.ts';
import {
  type Address,
  contains,
  formatAddress,
  formatPrefix,
  lowBits,
  network,
  overlaps,
  type Prefix,
  parsePrefix,
} from './address.ts';

/** What an overlay address is: its slice, the VM, a container, or kept free (index all ones). */
export type Kind = 'slice' | 'vm' | 'container' | 'reserved';

export interface Explanation {
  address: Address;
  kind: Kind;
  vm: Address;
  slice: Prefix;
  index: bigint;
}

/**
 * Index 0 is the slice itself, 1 is the VM, and all ones is kept free. With fewer bits there is no index for
 * a container.
 */
const MIN_CONTAINER_BITS = 2;

// Special-purpose prefixes (RFC 6890): hosts never forward to or from them.
const NOT_OVERLAY = ['0.0.0.0/8', '127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4'];
const NOT_UNDERLAY = ['0.0.0.0/8', '127.0.0.0/8', '224.0.0.0/4'];
const LIMITED_BROADCAST: Address = { width: 32, bits: 0xffffffffn };
/** With fewer bits a network has no address of its own and no broadcast address (RFC 3021). */
const MIN_BROADCAST_BITS = 2;

/**
 * One (overlay prefix, underlay prefix) pair. P, U, W, k and c are the names of the arithmetic in README.md.
 */
export class Mapping {
  readonly overlay: Prefix;
  readonly underlay: Prefix;
  /** k: the bits that vary between VMs. */
  readonly vmBits: number;
  /** c: the bits that number the addresses of one VM. */
  readonly containerBits: number;
  /** P + k. */
  readonly sliceLength: number;
  /** Addresses of the underlay prefix that no VM can have. */
  readonly #notVms: readonly Address[];

  /** Throws ERR_CONFIG if the two cannot make a mesh. */
  constructor(overlay: Prefix, underlay: Prefix) {
    this.overlay = overlay;
    this.underlay = underlay;
    this.vmBits = underlay.width - underlay.length;
    this.containerBits = overlay.width - overlay.length - this.vmBits;
    this.sliceLength = overlay.length + this.vmBits;
    this.#check();
    const first = network(underlay, underlay.length);
    const ends = [...new Set([0n, lowBits(this.vmBits)])].map((bits) => ({ ...first, bits: first.bits | bits }));
    this.#notVms = ends.filter((vm) => this.whyNotVm(vm) !== undefined);
  }

  #check(): void {
    const [overlay, underlay] = [formatPrefix(this.overlay), formatPrefix(this.underlay)];
    if (overlaps(this.overlay, this.underlay)) {
      throw new InlayError(
        'ERR_CONFIG',
        `overlay ${overlay} and underlay ${underlay} overlap: expected two separate prefixes`,
      );
    }
    for (const [name, prefix, refused] of [
      ['overlay', this.overlay, NOT_OVERLAY],
      ['underlay', this.underlay, NOT_UNDERLAY],
    ] as const) {
      const touched = refused.find((text) => overlaps(prefix, parsePrefix(text) as Prefix));
      if (touched)
        throw new InlayError(
          'ERR_CONFIG',
          `${name} ${formatPrefix(prefix)} touches ${touched}, which hosts do not forward`,
        );
    }
    if (this.containerBits < MIN_CONTAINER_BITS) {
      throw new InlayError(
        'ERR_CONFIG',
        `overlay ${overlay} has no room for underlay ${underlay}: ${this.containerBits} container bits, expected at least ${MIN_CONTAINER_BITS}`,
        {
          hint: `shorten the overlay prefix or lengthen the underlay prefix by ${MIN_CONTAINER_BITS - this.containerBits} or more bits`,
        },
      );
    }
  }

  /** Containers of one VM: all indexes but the slice, the VM and all ones. */
  get containersPerVm(): bigint {
    return (1n << BigInt(this.containerBits)) - 3n;
  }

  /** The bits by which a VM's underlay address differs from others. */
  numberOf(vm: Address): number {
    return Number(vm.bits & lowBits(this.vmBits));
  }

  /** The slice of the VM with underlay address `vm`. */
  sliceOf(vm: Address): Prefix {
    const bits = (vm.bits & lowBits(this.vmBits)) << BigInt(this.containerBits);
    return { width: this.overlay.width, bits: this.overlay.bits | bits, length: this.sliceLength };
  }

  /**
   * The overlay address with `index` in the slice of `vm`; index 1 is the VM itself, container n has n + 1.
   */
  addressOf(vm: Address, index: bigint): Address {
    const slice = this.sliceOf(vm);
    return { width: slice.width, bits: slice.bits | index };
  }

  /** Takes an overlay address of this mapping apart. */
  explain(address: Address): Explanation {
    const c = BigInt(this.containerBits);
    const vm = { width: this.underlay.width, bits: this.underlay.bits | ((address.bits >> c) & lowBits(this.vmBits)) };
    const index = address.bits & lowBits(this.containerBits);
    const kind =
      index === 0n ? 'slice' : index === 1n ? 'vm' : index === lowBits(this.containerBits) ? 'reserved' : 'container';
    return { address, kind, vm, slice: network(address, this.sliceLength), index };
  }

  /** How many VMs there can be. */
  get vms(): number {
    return 2 ** this.vmBits - this.#notVms.length;
  }

  /** The slices of the addresses that no VM can have. */
  get unusedSlices(): Prefix[] {
    return this.#notVms.map((vm) => this.sliceOf(vm));
  }

  /** Whether a VM can have this underlay address. */
  canBeVm(vm: Address): boolean {
    return contains(this.underlay, vm) && this.#notVms.every(({ bits }) => bits !== vm.bits);
  }

  /** Throws ERR_CONFIG if no VM can have this underlay address. */
  checkVm(vm: Address): void {
    if (!contains(this.underlay, vm)) {
      throw new InlayError(
        'ERR_CONFIG',
        `VM ${formatAddress(vm)} is outside the underlay prefix ${formatPrefix(this.underlay)}`,
      );
    }
    const why = this.whyNotVm(vm);
    if (why) throw new InlayError('ERR_CONFIG', `${formatAddress(vm)} cannot be a VM: ${why}`);
  }

  /**
   * Why no VM can have this address of the underlay prefix; undefined if one can. A packet to the network's own
   * address or to its broadcast address goes to every host (RFC 1122 §3.2.1.3).
   */
  whyNotVm(vm: Address): string | undefined {
    const number = vm.bits & lowBits(this.vmBits);
    if (this.vmBits >= MIN_BROADCAST_BITS) {
      if (number === 0n) return `that is the network address of ${formatPrefix(this.underlay)}`;
      if (number === lowBits(this.vmBits)) return `that is the broadcast address of ${formatPrefix(this.underlay)}`;
    }
    if (!contains(this.sliceOf(vm), LIMITED_BROADCAST)) return undefined;
    return `its slice ${formatPrefix(this.sliceOf(vm))} contains 255.255.255.255`;
  }
}

/** A mapping in text, as a file has it. */
export function prefixesOf({ overlay, underlay }: Mapping): { overlay: string; underlay: string } {
  return { overlay: formatPrefix(overlay), underlay: formatPrefix(underlay) };
}

/** The mapping whose overlay prefix holds `address`. */
export function covering(mappings: readonly Mapping[], address: Address): Mapping | undefined {
  return mappings.find((mapping) => contains(mapping.overlay, address));
}

/** The mappings whose underlay prefix holds `vm`. */
export function mappingsWith(mappings: readonly Mapping[], vm: Address): Mapping[] {
  return mappings.filter((mapping) => contains(mapping.underlay, vm));
}

/** The slices that a VM has in these mappings. */
export function slicesOf(mappings: readonly Mapping[], vm: Address): Prefix[] {
  return mappingsWith(mappings, vm).map((mapping) => mapping.sliceOf(vm));
}

/** Throws ERR_CONFIG where the overlay prefix of one mapping overlaps a prefix of another. */
export function checkMappings(mappings: readonly Mapping[]): void {
  for (const [i, a] of mappings.entries()) {
    for (const b of mappings.slice(i + 1)) {
      const clash = [
        [a.overlay, b.overlay],
        [a.overlay, b.underlay],
        [a.underlay, b.overlay],
      ].find(([p, q]) => overlaps(p as Prefix, q as Prefix));
      if (clash) {
        throw new InlayError(
          'ERR_CONFIG',
          `mappings overlap: ${clash.map((p) => formatPrefix(p as Prefix)).join(' and ')}`,
        );
      }
    }
  }
}
