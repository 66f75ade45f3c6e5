/**
 * The mappings' arithmetic on u32 numbers. It answers the kernel's questions, of which there may be thousands
 * at once.
 */
import { type Address, contains, ipv4 } from './address.ts';
import { covering, type Explanation, type Mapping } from './mapping.ts';

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

export class Slices {
  readonly #mappings: readonly Mapping[];
  readonly #local: Address;

  /** `local` is this VM. */
  constructor(mappings: readonly Mapping[], local: Address) {
    this.#mappings = mappings;
    this.#local = local;
  }

  /** The remote VM that an overlay address lives on; undefined if nobody can have that address. */
  vmOf(address: number): number | undefined {
    const found = this.#explain(address);
    return found === undefined || found.kind === 'slice' || found.kind === 'reserved'
      ? undefined
      : Number(found.vm.bits);
  }

  /**
   * The remote VM in whose slice an overlay address is, even if no container can have that address. Undefined
   * if there can be no such VM.
   */
  vmNear(address: number): number | undefined {
    const found = this.#explain(address);
    return found && Number(found.vm.bits);
  }

  /** The slices of a VM: none if it is outside the underlay, or has an address that no VM can have. */
  of(vm: number): Slice[] {
    const at = ipv4(vm);
    const usable = this.#mappings.filter((mapping) => mapping.canBeVm(at));
    return usable.map((mapping) => {
      const { bits, length } = mapping.sliceOf(at);
      const isOurs = contains(mapping.underlay, this.#local);
      return {
        address: Number(bits),
        length,
        number: mapping.numberOf(at),
        gateway: Number(mapping.addressOf(at, 1n).bits),
        source: isOurs ? Number(mapping.addressOf(this.#local, 1n).bits) : undefined,
      };
    });
  }

  #explain(address: number): Explanation | undefined {
    const at = ipv4(address);
    const mapping = covering(this.#mappings, at);
    const found = mapping?.explain(at);
    return !found || found.vm.bits === this.#local.bits || !mapping?.canBeVm(found.vm) ? undefined : found;
  }
}
