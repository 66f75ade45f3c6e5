/**
 * What was meant when the settings change: the same container of the same VM, and the same example. So an address moves
 * its bits as a prefix grows, and an example fits the mesh that there is now.
 */
import { parseAddress } from '../src/mesh/address.ts';
import type { Mapping } from '../src/mesh/mapping.ts';
import type { Host } from './host.ts';
import type { Answer } from './mesh.ts';
import { hexOf } from './packet/hex.ts';
import type { State } from './state.ts';

export class Carry {
  #container: { vm: NonNullable<ReturnType<typeof parseAddress>>; index: bigint } | undefined;
  #example: string | undefined;

  /** Takes what the state says at its word: it was typed, or came with a link. */
  note(state: State, mesh: Answer<Mapping>, host: Host): void {
    this.#container = undefined;
    const address = parseAddress(state.address.trim());
    if (address && 'value' in mesh) this.#container = placeOf(mesh.value, address);
    this.#example = host.examples.find(
      ({ way, make }) => way === state.direction && hexOf(make()) === state.packet,
    )?.name;
  }

  /** The address of what was meant, in the mesh that there is now; undefined if that has none, or nothing was meant. */
  address(mapping: Mapping): { width: number; bits: bigint } | undefined {
    if (!this.#container) return undefined;
    const { vm, index } = this.#container;
    if (!mapping.canBeVm(vm) || index >= 2n ** BigInt(mapping.containerBits)) return undefined;
    return mapping.addressOf(vm, index);
  }

  /** The example that was meant, made for the mesh and the VM that there are now; the first one of another direction. */
  packet({ examples }: Host, direction: State['direction']): string | undefined {
    if (this.#example === undefined) return undefined;
    const all = examples.filter(({ way }) => way === direction);
    const example = all.find(({ name }) => name === this.#example) ?? all[0];
    return example && hexOf(example.make());
  }
}

function placeOf(
  mapping: Mapping,
  address: { width: number; bits: bigint },
): { vm: typeof address; index: bigint } | undefined {
  const { vm, index } = mapping.explain(address);
  // It explains any address as if it were one of its own.
  return mapping.addressOf(vm, index).bits === address.bits ? { vm, index } : undefined;
}
