/** The mapping's arithmetic in eBPF: which mapping has an address, which VM it lives on, and what is nobody's (src/mesh/mapping.ts). */
import * as bpf from '../../linux/bpf/assembler.ts';
import type { Label } from '../../linux/labels.ts';
import { formatPrefix, lowBits, netmask } from '../../mesh/address.ts';
import type { Mapping } from '../../mesh/mapping.ts';

// Registers until the next call.
/** Where an inner source is loaded to. */
export const SOURCE = 1;
export const SCRATCH = 3;
const INDEX = 2;

/** Where in the map the VMs of each mapping begin; mappings with the same underlay share theirs. */
export function placesOf(mappings: readonly Mapping[]): number[] {
  const places: number[] = [];
  let end = 0;
  for (const [i, { underlay, vmBits }] of mappings.entries()) {
    const same = mappings.findIndex((other) => formatPrefix(other.underlay) === formatPrefix(underlay));
    places.push(same < i ? (places[same] as number) : end);
    if (same === i) end += 2 ** vmBits;
  }
  return places;
}

/** Does in the one mapping that has the address what `inside` says, which ends with a jump; goes on behind if none has it. SCRATCH is used. */
export function inMapping(
  mappings: readonly Mapping[],
  address: number,
  inside: (mapping: Mapping, index: number) => bpf.Line[],
): bpf.Line[] {
  return mappings.flatMap((mapping, index): bpf.Line[] => {
    const next = Symbol('next mapping');
    return [
      bpf.copy(SCRATCH, address),
      bpf.and32(SCRATCH, netmask(mapping.overlay.length)),
      bpf.jumpUnlessEqual32(SCRATCH, Number(mapping.overlay.bits), next),
      ...inside(mapping, index),
      { label: next },
    ];
  });
}

/** The VM of an address: the bits that vary between VMs, from the overlay address into the underlay address. */
export function vmOf({ containerBits, vmBits, underlay }: Mapping, from: number, to: number): bpf.Instruction[] {
  return [
    bpf.copy(to, from),
    bpf.shiftRight(to, containerBits),
    bpf.and32(to, Number(lowBits(vmBits))),
    bpf.or32(to, Number(underlay.bits)),
  ];
}

/** Goes to a label if the index of an overlay address is 0 or all ones. Register 2 is used. */
export function unlessReserved({ containerBits }: Mapping, address: number, reserved: Label): bpf.Line[] {
  const allOnes = Number(lowBits(containerBits));
  return [
    bpf.copy(INDEX, address),
    bpf.and32(INDEX, allOnes),
    bpf.jumpIfEqual32(INDEX, 0, reserved),
    bpf.jumpIfEqual32(INDEX, allOnes, reserved),
  ];
}

/** Goes to a label if no VM can have this address of the underlay prefix: the first, the last, or neither. */
export function unlessNoVm(mapping: Mapping, vm: number, noVm: Label): bpf.Line[] {
  const { underlay, vmBits } = mapping;
  const ends = [...new Set([0n, lowBits(vmBits)])].map((bits) => ({ ...underlay, bits: underlay.bits | bits }));
  return ends.filter((end) => !mapping.canBeVm(end)).map(({ bits }) => bpf.jumpIfEqual32(vm, Number(bits), noVm));
}
