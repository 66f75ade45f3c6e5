/** Where in the maps the record of a VM and the slot of a container are, as in the programs: precomputed, for tens of thousands at once. */
import { type Address, lowBits, netmask, type Prefix } from '../../mesh/address.ts';
import { type Mapping, mappingsWith } from '../../mesh/mapping.ts';
import { placesOf } from '../check/arithmetic.ts';

/** The addresses of one prefix, each at the place that its low bits say. */
interface Range {
  mask: number;
  base: number;
  /** Bits of an address by which places differ. */
  low: number;
  first: number;
}

export class Places {
  /** Places there are for VMs. */
  readonly vms: number;
  /** Places there are for containers. */
  readonly slots: number;
  readonly #vms: readonly Range[];
  readonly #slots: readonly Range[];

  constructor(mappings: readonly Mapping[], local: Address) {
    const places = placesOf(mappings);
    this.#vms = mappings.map(({ underlay, vmBits }, i) => rangeOf(underlay, vmBits, places[i] as number));
    const slotPlaces = slotPlacesOf(mappings, local);
    this.#slots = mappingsWith(mappings, local).map((mapping, i) =>
      rangeOf(mapping.sliceOf(local), mapping.containerBits, slotPlaces[i] as number),
    );
    this.vms = endOf(this.#vms);
    this.slots = endOf(this.#slots);
  }

  /** Undefined if no mapping has the VM. */
  ofVm(vm: number): number | undefined {
    return placeIn(this.#vms, vm);
  }

  /** Undefined if no container of this VM can have the address: the slice itself, the VM and all ones are no container's. */
  ofContainer(address: number): number | undefined {
    for (const range of this.#slots) {
      if (!isIn(range, address)) continue;
      const index = (address & range.low) >>> 0;
      return index > 1 && index !== range.low ? range.first + index : undefined;
    }
    return undefined;
  }
}

/** Where in the map the containers of each own slice begin, in the order of the mappings that have this VM. */
export function slotPlacesOf(mappings: readonly Mapping[], local: Address): number[] {
  let end = 0;
  return mappingsWith(mappings, local).map(({ containerBits }) => {
    const first = end;
    end += 2 ** containerBits;
    return first;
  });
}

function rangeOf({ bits, length }: Prefix, variable: number, first: number): Range {
  return { mask: netmask(length), base: Number(bits), low: Number(lowBits(variable)), first };
}

function isIn({ mask, base }: Range, address: number): boolean {
  return (address & mask) >>> 0 === base;
}

function placeIn(ranges: readonly Range[], address: number): number | undefined {
  for (const range of ranges) if (isIn(range, address)) return range.first + ((address & range.low) >>> 0);
  return undefined;
}

function endOf(ranges: readonly Range[]): number {
  return Math.max(0, ...ranges.map(({ first, low }) => first + low + 1));
}
