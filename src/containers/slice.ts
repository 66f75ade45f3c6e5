/** The addresses of one VM's containers: numbers, IPv4 numbers and text. */
import { ipv4Number } from '../linux/netlink/ipv4.ts';
import { type Address, contains, formatAddress, formatPrefix, type Prefix, parseAddress } from '../mesh/address.ts';
import { covering, type Mapping, mappingsWith } from '../mesh/mapping.ts';
import type { Mesh } from './mesh.ts';
import { ContainerError } from './reasons.ts';

/** Index of the VM's own address, and what is added to a container's number for its index. */
const VM = 1n;

export class Slice {
  readonly #mapping: Mapping;
  readonly #mappings: readonly Mapping[];
  readonly #local: Address;
  /** Bits of the address with index 0. */
  readonly #base: bigint;
  /** Numbers of containers are 1 to this. */
  readonly capacity: number;
  /** The VM's own overlay address. */
  readonly gateway: Address;

  /** Of several mappings, containers get the addresses of the first that has this VM. */
  constructor({ mappings, local }: Mesh) {
    const [mapping] = mappingsWith(mappings, local);
    if (!mapping) throw new ContainerError('no-mesh', `VM ${formatAddress(local)} is in no mapping`);
    this.#mapping = mapping;
    this.#mappings = mappings;
    this.#local = local;
    this.#base = mapping.addressOf(local, 0n).bits;
    this.capacity = Number(mapping.containersPerVm);
    this.gateway = mapping.addressOf(local, VM);
  }

  /** Such as 10.16.32.0/24. */
  get prefix(): string {
    return formatPrefix(this.#mapping.sliceOf(this.#local));
  }

  get overlay(): Prefix {
    return this.#mapping.overlay;
  }

  addressOf(container: number): Address {
    return { width: this.gateway.width, bits: this.#base | (BigInt(container) + VM) };
  }

  /**
   * The number of the container with this address in text, be it one of another VM or another mapping: this VM
   * may have had another underlay address, or its mappings another order. Undefined if no container of the mesh
   * has it.
   */
  numberOf(text: string): number | undefined {
    const address = parseAddress(text);
    const mapping = address && covering(this.#mappings, address);
    if (!mapping) return undefined;
    const { kind, index } = mapping.explain(address);
    return kind === 'container' ? Number(index - VM) : undefined;
  }

  /** Whether an address in text is in the slice of this VM. */
  has(text: string): boolean {
    const address = parseAddress(text);
    return address !== undefined && this.containerAt(address) !== undefined;
  }

  /** The number of the container with this address; undefined if none of this VM has it. */
  containerAt(address: Address): number | undefined {
    if (!contains(this.#mapping.sliceOf(this.#local), address)) return undefined;
    const { kind, index } = this.#mapping.explain(address);
    return kind === 'container' ? Number(index - VM) : undefined;
  }

  /** The same for the four bytes of an address. */
  containerIn(bytes: Uint8Array | undefined): number | undefined {
    const number = ipv4Number(bytes);
    if (number === undefined) return undefined;
    // Of thousands at a time, so in small numbers.
    const container = number - Number(this.#base | VM);
    return container >= 1 && container <= this.capacity ? container : undefined;
  }

  /** The number of the container with this address in text. Throws ContainerError. */
  requireContainerAt(text: string): number {
    const address = parseAddress(text);
    if (!address) throw new ContainerError('invalid', `address ${text}: expected an IPv4 address`);
    const container = this.containerAt(address);
    if (container !== undefined) return container;
    throw new ContainerError('out-of-range', `address ${text} is not one of this VM's containers: ${this.text}`);
  }

  /** Throws ContainerError. */
  requireNumber(container: number): void {
    if (Number.isInteger(container) && container >= 1 && container <= this.capacity) return;
    throw new ContainerError('out-of-range', `container ${container}: expected 1 to ${this.capacity} on this VM`);
  }

  /** The first and the last address of containers. */
  get text(): string {
    return `${formatAddress(this.addressOf(1))} to ${formatAddress(this.addressOf(this.capacity))}`;
  }
}
