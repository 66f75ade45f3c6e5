/** The mappings' arithmetic on u32 numbers, for what is asked thousands of times a second; src/mesh/mapping.ts has the same for people. */
import { type Address, contains, netmask } from './address.ts';
import type { Mapping } from './mapping.ts';

/** One VM's part of an overlay; a VM has one for each mapping whose underlay prefix holds its address. */
export interface Slice {
  /** Its first address, index 0. */
  address: number;
  /** Bits of its prefix. */
  length: number;
  /** The bits by which the VM's underlay address differs from others. */
  number: number;
  /** The VM's own overlay address, index 1. */
  gateway: number;
  /** Our overlay address in the same mapping, if we have one. */
  source: number | undefined;
}

interface Numbers {
  overlay: number;
  overlayMask: number;
  underlay: number;
  underlayMask: number;
  containerBits: number;
  indexMask: number;
  sliceLength: number;
  source: number | undefined;
}

const ALL_ONES = 0xffffffff;

export class Slices {
  readonly #mappings: Numbers[];
  readonly #local: number;

  /** `local` is this VM. */
  constructor(mappings: readonly Mapping[], local: Address) {
    this.#local = Number(local.bits);
    this.#mappings = mappings.map((mapping) => ({
      overlay: Number(mapping.overlay.bits),
      overlayMask: netmask(mapping.overlay.length),
      underlay: Number(mapping.underlay.bits),
      underlayMask: netmask(mapping.underlay.length),
      containerBits: mapping.containerBits,
      indexMask: 2 ** mapping.containerBits - 1,
      sliceLength: mapping.sliceLength,
      source: contains(mapping.underlay, local) ? Number(mapping.addressOf(local, 1n).bits) : undefined,
    }));
  }

  /** The remote VM that an overlay address lives on; undefined if nobody can have that address. */
  vmOf(address: number): number | undefined {
    const vm = this.vmNear(address);
    return vm === undefined || this.#isReserved(address) ? undefined : vm;
  }

  /** The remote VM in whose slice an overlay address is, even if nobody can have it; undefined if there can be no such VM. */
  vmNear(address: number): number | undefined {
    for (const { overlay, overlayMask, underlay, underlayMask, containerBits, indexMask } of this.#mappings) {
      if ((address & overlayMask) >>> 0 !== overlay) continue;
      if ((address | indexMask) >>> 0 === ALL_ONES) return undefined;
      const vm = (underlay | ((address >>> containerBits) & ~underlayMask)) >>> 0;
      return vm === this.#local ? undefined : vm;
    }
    return undefined;
  }

  /** Index 0 and all ones. */
  #isReserved(address: number): boolean {
    const mapping = this.#mappings.find(({ overlay, overlayMask }) => (address & overlayMask) >>> 0 === overlay);
    const index = mapping && (address & mapping.indexMask) >>> 0;
    return index === 0 || index === mapping?.indexMask;
  }

  /** The slices of a VM: none if it is outside the underlay. */
  of(vm: number): Slice[] {
    return this.#mappings.flatMap(({ overlay, underlay, underlayMask, containerBits, sliceLength, source }) => {
      if ((vm & underlayMask) >>> 0 !== underlay) return [];
      const number = vm & ~underlayMask;
      const address = (overlay | (number << containerBits)) >>> 0;
      return [{ address, length: sliceLength, number, gateway: address + 1, source }];
    });
  }
}
