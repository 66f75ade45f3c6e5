/** The packet core as a host sees it: a twin's functions over one memory, and typed views of that memory. */
import * as abi from './abi.ts';
import { mappingText, networkOrder } from './address.ts';
import {
  type CoreConfig,
  type CoreDevices,
  DEFAULT_TTL,
  ETHERNET_MTU,
  MAPPING_RULES,
  optionsOf,
  overhead,
} from './config.ts';
import { counterIn, countersIn, type Direction, type DirectionCounters } from './counters.ts';
import { Messages } from './messages.ts';
import { Tunnels } from './tunnels.ts';

/** What both twins provide. docs/abi.md says what each function does; addresses are u32, times f64 milliseconds. */
export interface CoreFunctions {
  configure(
    local: number,
    options: number,
    key: number,
    ttl: number,
    dscp: number,
    encapsulation: number,
    mtu: number,
  ): void;
  attach(base: number, offloads: number, ports: number): void;
  addMapping(overlay: number, overlayLength: number, underlay: number, underlayLength: number): number;
  vmOf(address: number): number;
  share(inbound: number, count: number, divisor: number): number;
  encapsulate(first: number, count: number, now: number): number;
  decapsulate(first: number, count: number, now: number): number;
  learn(first: number, count: number, now: number): number;
  narrow(vm: number, mtu: number, now: number): void;
  refuse(message: number, code: number, now: number): void;
  reach(vm: number, now: number): void;
  expire(before: number): number;
}

export type CoreName = 'wasm' | 'typescript';

const DESCRIPTOR_WORDS = abi.DESCRIPTOR_SIZE / 4;

export class PacketCore {
  readonly name: CoreName;
  readonly memory: ArrayBuffer;
  readonly bytes: Uint8Array;
  /** What the last call made. */
  readonly messages: Messages;
  readonly tunnels: Tunnels;
  readonly #functions: CoreFunctions;
  readonly #words: Uint32Array;
  readonly #floats: Float64Array;
  readonly #verdicts: Int32Array;

  constructor(name: CoreName, memory: ArrayBuffer, functions: CoreFunctions) {
    this.name = name;
    this.memory = memory;
    this.bytes = new Uint8Array(memory);
    this.messages = new Messages(memory);
    this.tunnels = new Tunnels(memory);
    this.#functions = functions;
    this.#words = new Uint32Array(memory);
    this.#floats = new Float64Array(memory);
    this.#verdicts = new Int32Array(memory);
    this.attach({});
  }

  /** Sets addresses, key, format and mappings anew. Counters and tunnels stay. Throws a RangeError if `local` is no u32 or a mapping cannot be; then all is as before. */
  configure(config: CoreConfig): void {
    const { local } = config;
    // What many would try first, the text of an address, would be 0.
    if (local !== local >>> 0) throw new RangeError(`local ${local}: expected a u32, as ipv4() makes`);
    const before = this.bytes.slice(abi.CONFIG, abi.OUTBOUND_COUNTERS);
    const encapsulation = config.encapsulation === 'gre-udp' ? abi.ENCAPSULATION_GRE_UDP : abi.ENCAPSULATION_GRE;
    this.#functions.configure(
      local,
      optionsOf(config),
      config.key ?? 0,
      typeof config.ttl === 'number' ? config.ttl : DEFAULT_TTL,
      typeof config.dscp === 'number' ? config.dscp : 0,
      encapsulation,
      config.mtu ?? ETHERNET_MTU - overhead(config.encapsulation ?? 'gre', config),
    );
    for (const mapping of config.mappings) {
      const { overlay, overlayLength, underlay, underlayLength } = mapping;
      if (this.#functions.addMapping(overlay, overlayLength, underlay, underlayLength) >= 0) continue;
      this.bytes.set(before, abi.CONFIG);
      throw new RangeError(`mapping of ${mappingText(mapping)}: ${MAPPING_RULES}`);
    }
  }

  /** Says what the devices can do; what is not given is not so. */
  attach(devices: CoreDevices): void {
    this.#functions.attach(devices.base ?? 0, devices.offloads ?? 0, devices.ports ?? 1);
  }

  /** The underlay address of the VM that an overlay address carries; 0 if no mapping covers it. */
  vmOf(address: number): number {
    return this.#functions.vmOf(address) >>> 0;
  }

  /**
   * Says how much of packets 0 to `count` - 1 goes on in the calls that handle them: one part in `divisor` of the work, shared fairly among their sources; the rest is
   * dropped. Returns how many sources they have.
   */
  share(direction: 'outbound' | 'inbound', count: number, divisor: number): number {
    return this.#functions.share(direction === 'inbound' ? 1 : 0, count, divisor);
  }

  /** Encapsulates packets `first` to `count` - 1 into messages; returns the first that had no room, or `count`. */
  encapsulate(first: number, count: number, now: number): number {
    return this.#functions.encapsulate(first, count, now);
  }

  /** Decapsulates packets `first` to `count` - 1 into messages; returns the first that had no room, or `count`. */
  decapsulate(first: number, count: number, now: number): number {
    return this.#functions.decapsulate(first, count, now);
  }

  /** Reads ICMP messages from the underlay, `first` to `count` - 1, for what they say of tunnels; returns `count`. */
  learn(first: number, count: number, now: number): number {
    return this.#functions.learn(first, count, now);
  }

  /** Takes it that outer packets to `vm` have at most `mtu` bytes, as the host has found out by itself. */
  narrow(vm: number, mtu: number, now: number): void {
    this.#functions.narrow(vm, mtu, now);
  }

  /** Closes up to BATCH_SIZE tunnels last used before `before`; returns how many. */
  expire(before: number): number {
    return this.#functions.expire(before);
  }

  // Packets: what the host reads, described for the core.

  /** Where packet `index` is to be put: HEADROOM bytes into its slot. */
  slot(index: number): number {
    return abi.SLOTS + index * abi.SLOT_SIZE + abi.HEADROOM;
  }

  /**
   * Describes packet `index`, `length` bytes at `address`: the container's, or the underlay's with its outer IPv4 header. `merged`, inbound, is what the host
   * knows about merging (GRO): NOT_MERGED, the bytes of payload of each packet that the inner one was merged from, or 0 if it does not know.
   */
  describe(index: number, length: number, address: number = this.slot(index), merged = 0): void {
    const d = abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS;
    this.#words[d] = address;
    this.#words[d + 1] = length;
    this.#words[d + abi.DESCRIPTOR_SEGMENT / 4] = 0;
    this.#words[d + abi.DESCRIPTOR_MERGED / 4] = merged;
  }

  /**
   * Describes `length` bytes at `slot(index)` as GRE-in-UDP datagrams of `segment` bytes each that came from the VM `peer` in IPv4 packets with this type of
   * service.
   */
  describeDatagrams(index: number, length: number, segment: number, peer: number, tos = 0): void {
    this.describe(index, length);
    const d = abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS;
    this.#words[d + 3] = networkOrder(peer);
    this.#words[d + 4] = Math.max(segment, 1);
    this.#words[d + 5] = tos;
  }

  /** Puts a copy of `packet` into slot `index` and describes it. Throws a RangeError if there is no such slot, or the packet is longer than it. */
  put(index: number, packet: Uint8Array): void {
    const [last, most] = [abi.BATCH_SIZE - 1, abi.SLOT_SIZE - abi.HEADROOM];
    if (!(index >= 0 && index <= last)) throw new RangeError(`slot ${index}: expected 0..${last}`);
    if (packet.length > most) throw new RangeError(`packet of ${packet.length} bytes: a slot takes ${most}`);
    this.bytes.set(packet, this.slot(index));
    this.describe(index, packet.length);
  }

  verdict(index: number): number {
    return this.#verdicts[abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS + 2] as number;
  }

  /** What the host described as packet `index`: nothing, if it described a place outside memory. */
  packet(index: number): Uint8Array {
    const d = abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS;
    const start = this.#words[d] as number;
    return this.bytes.subarray(start, start + (this.#words[d + 1] as number));
  }

  /** Whether packet `index` was described as GRE-in-UDP datagrams. */
  isDatagrams(index: number): boolean {
    return this.#words[abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS + abi.DESCRIPTOR_SEGMENT / 4] !== 0;
  }

  /** Whether packets on the overlay side begin with a virtio header. */
  get hasVirtio(): boolean {
    return ((this.#words[(abi.CONFIG + abi.CONFIG_OFFLOADS) / 4] as number) & abi.OFFLOAD_VIRTIO) !== 0;
  }

  /** Bytes of the longest inner packet, as configured. */
  get mtu(): number {
    return this.#words[(abi.CONFIG + abi.CONFIG_MTU) / 4] as number;
  }

  /** The underlay address of the remote VM of packet `index`. */
  peer(index: number): number {
    return networkOrder(this.#words[abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS + 3] as number);
  }

  /**
   * Counts the packets of a message of the last call that the device did not take as dropped instead of forwarded, so that the sums stay exact. `code` says, as in an
   * ICMP message (destination unreachable, RFC 792), why its VM cannot be reached, if that is why: the tunnel is then known to be unreachable, and `replies` may have
   * one more.
   */
  refuse(message: number, code = -1, now = 0): void {
    this.#functions.refuse(message, code, now);
  }

  /** A packet to `vm` has gone out, to which one was refused with a code before. */
  reach(vm: number, now: number): void {
    this.#functions.reach(vm, now);
  }

  /** Packets of one direction that were not forwarded, dropped by the core or refused by a device. */
  dropCount(direction: Direction): number {
    const received = counterIn(this.#floats, direction, abi.COUNTERS_RECEIVED);
    return received - counterIn(this.#floats, direction, abi.COUNTERS_FORWARDED);
  }

  /** Packets of one direction with this verdict, a drop reason. */
  dropsFor(direction: Direction, verdict: number): number {
    return counterIn(this.#floats, direction, abi.COUNTERS_DROPS - 8 * verdict);
  }

  /** A copy of the counters of one direction. */
  counters(direction: Direction): DirectionCounters {
    return countersIn(this.#floats, direction);
  }
}
