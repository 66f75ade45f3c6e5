/** The packet core as a host sees it: a twin's functions over one memory, and typed views of that memory. */
import * as abi from './abi.ts';
import { TUNNEL_FIELDS, type TunnelState, tunnelState } from './tunnels.ts';

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

/** One direction's counters. `received = forwarded + sum(drops)`, always. */
export interface DirectionCounters {
  received: number;
  forwarded: number;
  /** Bytes of the forwarded inner packets. */
  bytes: number;
  /** Packets by drop reason: index r holds those with verdict -r. */
  drops: number[];
  /** ICMP messages to containers that were made, and those that were not because there were too many (outbound). */
  replies: number;
  suppressed: number;
  /** Forwarded packets with a combination of ECN fields that should not occur (inbound; RFC 6040 §4.2). */
  anomalies: number;
}

export type CoreName = 'wasm' | 'typescript';
/** What has counters of its own; `icmp` are ICMP messages from the underlay. */
export type Direction = 'outbound' | 'inbound' | 'icmp';
/** What packets look like on the underlay: IP protocol 47 (RFC 2784), or UDP port 4754 (RFC 8086). */
export type Encapsulation = 'gre' | 'gre-udp';

/** Outer time to live, unless a core is told another. */
export const DEFAULT_TTL = 64;

/** What adds to the outer headers. */
export interface GreOptions {
  /** GRE key of all packets, out and in. */
  key?: number | undefined;
  /** Whether outbound packets carry a GRE checksum. */
  greChecksum?: boolean;
  /** Whether packets carry sequence numbers, and those that do not or come out of order are dropped. */
  greSequence?: boolean;
}

/** What a VM tells its core. Addresses are u32 numbers. */
export interface CoreConfig extends GreOptions {
  local: number;
  /** Outer time to live; DEFAULT_TTL unless given. */
  ttl?: number | 'inherit';
  /** Outer ECN field: the inner one ('normal') unless given, or Not-ECT ('compatibility'; RFC 6040 §4.1). */
  ecn?: 'normal' | 'compatibility';
  /** Outer DSCP; 0 unless given. With 'uniform' it is the inner one, and back (RFC 2983 §3.1). */
  dscp?: number | 'uniform';
  /** Whether outer packets have don't-fragment set, so that routers report those that are too large; true unless given. */
  pathMtuDiscovery?: boolean;
  /** Whether TCP's maximum segment size is lowered to what fits the tunnel; false unless given. */
  clampMss?: boolean;
  /** Bytes of the longest inner packet that fits the underlay; 1,476 unless given. */
  mtu?: number;
  /** 'gre' unless given. */
  encapsulation?: Encapsulation;
  mappings: readonly { overlay: number; overlayLength: number; underlay: number; underlayLength: number }[];
}

/** What the host's devices can do. */
export interface CoreDevices {
  /** Address of the core's memory in this process, for a host that hands messages to the kernel; 0 unless given. */
  base?: number;
  /** OFFLOAD_ bits; none unless given. */
  offloads?: number;
  /** Source ports of GRE-in-UDP; 1 unless given. */
  ports?: number;
}

const DESCRIPTOR_WORDS = abi.DESCRIPTOR_SIZE / 4;
const MESSAGE_WORDS = abi.MESSAGE_SIZE / 4;

export class PacketCore {
  readonly name: CoreName;
  readonly memory: ArrayBuffer;
  readonly bytes: Uint8Array;
  readonly #functions: CoreFunctions;
  readonly #words: Uint32Array;
  readonly #floats: Float64Array;
  readonly #verdicts: Int32Array;

  constructor(name: CoreName, memory: ArrayBuffer, functions: CoreFunctions) {
    this.name = name;
    this.memory = memory;
    this.bytes = new Uint8Array(memory);
    this.#functions = functions;
    this.#words = new Uint32Array(memory);
    this.#floats = new Float64Array(memory);
    this.#verdicts = new Int32Array(memory);
    this.attach({});
  }

  /** Sets addresses, key, format and mappings anew. Counters and tunnels stay. */
  configure(config: CoreConfig): void {
    const encapsulation = config.encapsulation === 'gre-udp' ? abi.ENCAPSULATION_GRE_UDP : abi.ENCAPSULATION_GRE;
    this.#functions.configure(
      config.local,
      optionsOf(config),
      config.key ?? 0,
      typeof config.ttl === 'number' ? config.ttl : DEFAULT_TTL,
      typeof config.dscp === 'number' ? config.dscp : 0,
      encapsulation,
      config.mtu ?? 1476,
    );
    for (const m of config.mappings) {
      if (this.#functions.addMapping(m.overlay, m.overlayLength, m.underlay, m.underlayLength) < 0) {
        throw new RangeError(`mapping /${m.overlayLength} to /${m.underlayLength} does not fit the core`);
      }
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
   * Describes `length` bytes at `slot(index)` as GRE-in-UDP datagrams of `segment` bytes each that came from `peer` (as in `peer`) in IPv4 packets with this
   * type of service.
   */
  describeDatagrams(index: number, length: number, segment: number, peer: number, tos = 0): void {
    this.describe(index, length);
    const d = abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS;
    this.#words[d + 3] = peer;
    this.#words[d + 4] = Math.max(segment, 1);
    this.#words[d + 5] = tos;
  }

  /** Puts a copy of `packet` into slot `index` and describes it. */
  put(index: number, packet: Uint8Array): void {
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

  /** The remote VM of packet `index` as the u32 that lies in memory: network order, as in struct in_addr. */
  peer(index: number): number {
    return this.#words[abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS + 3] as number;
  }

  // Messages: what the last call made of them, for the host to write.

  /** All messages of the last call but replies, port by port; allocates, so it is not for the fast path. */
  messages(): number[] {
    return Array.from({ length: abi.MAX_PORTS }, (_, port) => this.#messagesOf(port)).flat();
  }

  /** The last call's ICMP messages to containers: to be written to the overlay device, after `messages`. */
  replies(): number[] {
    return this.#messagesOf(abi.REPLY_PORT);
  }

  /** The replies have been written. */
  forgetReplies(): void {
    this.#words[abi.MESSAGE_COUNTS / 4 + abi.REPLY_PORT] = 0;
  }

  #messagesOf(port: number): number[] {
    return Array.from({ length: this.messageCount(port) }, (_, i) => port * abi.MESSAGES_PER_PORT + i);
  }

  /** How many messages the last call made for `port`; they begin with message `port * MESSAGES_PER_PORT`. */
  messageCount(port = 0): number {
    return this.#words[abi.MESSAGE_COUNTS / 4 + port] as number;
  }

  /** How many pieces a message has. */
  messagePieces(message: number): number {
    return this.#message(message, abi.MESSAGE_IOV_COUNT);
  }

  /** Bytes of a message. */
  messageLength(message: number): number {
    return this.#message(message, abi.MESSAGE_LENGTH);
  }

  /** A copy of a message's bytes. */
  messageBytes(message: number): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(this.messageLength(message));
    const pieces = this.messagePieces(message);
    const base = this.#words[(abi.CONFIG + abi.CONFIG_BASE) / 4] as number;
    for (let i = 0, at = 0; i < pieces; i++) {
      const iov = (abi.IOVS + (message * abi.IOVS_PER_MESSAGE + i) * abi.IOV_SIZE) / 4;
      // Memory is less than 4 GiB: the low words tell how far a pointer is from the base.
      const from = ((this.#words[iov] as number) - base) >>> 0;
      const length = this.#words[iov + abi.IOV_LENGTH / 4] as number;
      bytes.set(this.bytes.subarray(from, from + length), at);
      at += length;
    }
    return bytes;
  }

  /** Bytes of each datagram in a message of GRE-in-UDP, but the last. */
  messageSegment(message: number): number {
    if (this.#message(message, abi.MESSAGE_CONTROL_LENGTH) === 0) return this.messageLength(message);
    const segment = (this.#control(message, abi.CONTROL_SEGMENT) as number) & 0xffff;
    return segment === 0 ? this.messageLength(message) : segment;
  }

  /** Type of service and time to live of a message of GRE-in-UDP, for its outer IPv4 header; undefined where that is as usual. */
  messageTos(message: number): number | undefined {
    const length = this.#message(message, abi.MESSAGE_CONTROL_LENGTH);
    return length > abi.CONTROL_ITEM_SIZE ? this.#control(message, abi.CONTROL_TOS) : undefined;
  }

  messageTtl(message: number): number | undefined {
    const length = this.#message(message, abi.MESSAGE_CONTROL_LENGTH);
    return length > 2 * abi.CONTROL_ITEM_SIZE ? this.#control(message, abi.CONTROL_TTL) : undefined;
  }

  #control(message: number, field: number): number {
    return this.#words[(abi.CONTROLS + message * abi.CONTROL_SIZE + field) / 4] as number;
  }

  /** The VM that a message is for, as in `peer`. */
  messagePeer(message: number): number {
    return this.#words[(abi.NAMES + message * abi.NAME_SIZE + abi.NAME_ADDRESS) / 4] as number;
  }

  /** Packets that a message carries, and their bytes. */
  messageCargo(message: number): { packets: number; bytes: number } {
    const cargo = (abi.CARGOS + message * abi.CARGO_SIZE) / 4;
    return { packets: this.#words[cargo] as number, bytes: this.#words[cargo + 1] as number };
  }

  /** Whether a message is a super-packet that is to be written to the overlay device. */
  isWhole(message: number): boolean {
    return (this.#flags(message) & abi.FLAG_WHOLE) !== 0;
  }

  /** Whether an outbound message goes to a VM that nothing was ever heard of. */
  isUnheard(message: number): boolean {
    return (this.#flags(message) & abi.FLAG_UNHEARD) !== 0;
  }

  #flags(message: number): number {
    return this.#words[(abi.CARGOS + message * abi.CARGO_SIZE + abi.CARGO_FLAGS) / 4] as number;
  }

  #message(message: number, field: number): number {
    return this.#words[abi.MESSAGE_TABLE / 4 + message * MESSAGE_WORDS + field / 4] as number;
  }

  /** Where the container's packet lies that an outbound message is made of, or begins with; 0 for an inbound message. */
  messagePacket(message: number): number {
    return this.#words[(abi.CARGOS + message * abi.CARGO_SIZE + abi.CARGO_PACKET) / 4] as number;
  }

  /**
   * Makes message 0, the only one, of a container's packet that an earlier call encapsulated for `peer` (as in `peer`), in the first slot: for hosts that hear only later
   * that it was not sent, so that `refuse` can be told.
   */
  putMessage(peer: number, packet: Uint8Array): void {
    this.bytes.set(packet, this.slot(0));
    this.#words.fill(0, abi.MESSAGE_COUNTS / 4, abi.MESSAGE_COUNTS / 4 + abi.MAX_PORTS + 1);
    this.#words[abi.MESSAGE_COUNTS / 4] = 1;
    this.#words[(abi.NAMES + abi.NAME_ADDRESS) / 4] = peer;
    this.#words.set([1, packet.length, 0, this.slot(0)], abi.CARGOS / 4);
  }

  /**
   * Counts the packets of a message of the last call that the device did not take as dropped instead of forwarded, so that the sums stay exact. `code` says, as in an
   * ICMP message (destination unreachable, RFC 792), why its VM cannot be reached, if that is why: the tunnel is then known to be unreachable, and `replies` may have
   * one more.
   */
  refuse(message: number, code = -1, now = 0): void {
    this.#functions.refuse(message, code, now);
  }

  /** A packet to `vm` (as in `peer`) has gone out, which was refused with a code before. */
  reach(vm: number, now: number): void {
    this.#functions.reach(networkOrder(vm), now);
  }

  /** Packets of one direction that were not forwarded, dropped by the core or refused by a device. */
  dropCount(direction: Direction): number {
    const f = countersAddress(direction) / 8;
    const received = this.#floats[f + abi.COUNTERS_RECEIVED / 8] as number;
    return received - (this.#floats[f + abi.COUNTERS_FORWARDED / 8] as number);
  }

  /** Packets of one direction with this verdict, a drop reason. */
  dropsFor(direction: Direction, verdict: number): number {
    return this.#floats[(countersAddress(direction) + abi.COUNTERS_DROPS) / 8 - verdict] as number;
  }

  counters(direction: Direction): DirectionCounters {
    const f = countersAddress(direction) / 8;
    const drops = f + abi.COUNTERS_DROPS / 8;
    return {
      received: this.#floats[f + abi.COUNTERS_RECEIVED / 8] as number,
      forwarded: this.#floats[f + abi.COUNTERS_FORWARDED / 8] as number,
      bytes: this.#floats[f + abi.COUNTERS_BYTES / 8] as number,
      drops: Array.from(this.#floats.subarray(drops, drops + abi.VERDICTS)),
      replies: this.#floats[f + abi.COUNTERS_REPLIES / 8] as number,
      suppressed: this.#floats[f + abi.COUNTERS_SUPPRESSED / 8] as number,
      anomalies: this.#floats[f + abi.COUNTERS_ANOMALIES / 8] as number,
    };
  }

  /** How many tunnels are open. */
  get tunnelCount(): number {
    return this.#words[(abi.CHANGES + abi.CHANGES_TUNNELS) / 4] as number;
  }

  /** Whether the last call opened or closed tunnels, or learnt something about one. */
  get tunnelsChanged(): boolean {
    const c = abi.CHANGES / 4;
    const opened = this.#words[c + abi.CHANGES_OPENED / 4] as number;
    const closed = this.#words[c + abi.CHANGES_CLOSED / 4] as number;
    return opened + closed + (this.#words[c + abi.CHANGES_LEARNT / 4] as number) > 0;
  }

  /** The remote VMs of the tunnels that the last call opened. */
  opened(): number[] {
    return this.#list(abi.CHANGES_OPENED, abi.CHANGES_OPENED_LIST);
  }

  /** The remote VMs of the tunnels that the last call closed. */
  closed(): number[] {
    return this.#list(abi.CHANGES_CLOSED, abi.CHANGES_CLOSED_LIST);
  }

  /** What the last call learnt about tunnels. */
  learnt(): TunnelState[] {
    const n = this.#words[(abi.CHANGES + abi.CHANGES_LEARNT) / 4] as number;
    return Array.from({ length: n }, (_, i) => {
      const at = (abi.CHANGES + abi.CHANGES_LEARNT_LIST) / 4 + 2 * i;
      return { vm: this.#words[at] as number, ...tunnelState(this.#words[at + 1] as number) };
    });
  }

  /** What the last call opened, closed and learnt is known: only what `refuse` and `reach` learn after it is left to tell. */
  forgetChanges(): void {
    this.#words.fill(0, (abi.CHANGES + abi.CHANGES_OPENED) / 4, (abi.CHANGES + abi.CHANGES_LEARNT) / 4 + 1);
  }

  #list(count: number, list: number): number[] {
    const n = this.#words[(abi.CHANGES + count) / 4] as number;
    const start = (abi.CHANGES + list) / 4;
    return n === 0 ? [] : Array.from(this.#words.subarray(start, start + n));
  }

  /** A copy of all open tunnels at `now`, TUNNEL_FIELDS numbers each, that can be handed to another thread. `tunnelsFrom` reads it. */
  copyTunnels(now: number): Float64Array<ArrayBuffer> {
    const rows = new Float64Array(this.tunnelCount * TUNNEL_FIELDS);
    // Plain loops: with many tunnels, packets wait meanwhile.
    for (let i = 0, row = 0; row < rows.length; i++) {
      const vm = this.#words[abi.TUNNEL_KEYS / 4 + i] as number;
      if (vm === 0) continue;
      const record = abi.TUNNELS + i * abi.TUNNEL_SIZE;
      rows[row] = vm;
      rows[row + 1] = this.#stateAt(record, now);
      const first = (record + abi.TUNNEL_LAST_USE) / 8;
      for (let field = 2; field < TUNNEL_FIELDS; field++) rows[row + field] = this.#floats[first + field - 2] as number;
      row += TUNNEL_FIELDS;
    }
    return rows;
  }

  /** What is known about the tunnel's path at `now`, in the form in which the core keeps it: the word at TUNNEL_PATH_MTU. */
  #stateAt(record: number, now: number): number {
    const word = this.#words[(record + abi.TUNNEL_PATH_MTU) / 4] as number;
    const isOver = (until: number) => Math.floor(now / 1000) >= (this.#words[(record + until) / 4] as number);
    const pathMtu = isOver(abi.TUNNEL_PATH_MTU_UNTIL) ? 0 : word & 0xffff;
    return isOver(abi.TUNNEL_UNREACHABLE_UNTIL) ? pathMtu : pathMtu + (word - (word & 0xffff));
  }
}

/** OPTION_ bits. */
function optionsOf(config: CoreConfig): number {
  return (
    (config.key === undefined ? 0 : abi.OPTION_KEY) |
    (config.greChecksum ? abi.OPTION_CHECKSUM : 0) |
    (config.greSequence ? abi.OPTION_SEQUENCE : 0) |
    (config.ttl === 'inherit' ? abi.OPTION_TTL_INHERIT : 0) |
    (config.ecn === 'compatibility' ? abi.OPTION_ECN_COMPATIBILITY : 0) |
    (config.dscp === 'uniform' ? abi.OPTION_DSCP_UNIFORM : 0) |
    (config.pathMtuDiscovery === false ? abi.OPTION_MAY_FRAGMENT : 0) |
    (config.clampMss ? abi.OPTION_CLAMP_MSS : 0)
  );
}

/** Bytes that encapsulation adds to a packet: outer IPv4 header (20), UDP (8) for gre-udp, GRE (4), and 4 for each of its options. */
export function overhead(encapsulation: Encapsulation, { key, greChecksum, greSequence }: GreOptions): number {
  const options = (key === undefined ? 0 : 1) + (greChecksum ? 1 : 0) + (greSequence ? 1 : 0);
  return 24 + (encapsulation === 'gre-udp' ? 8 : 0) + 4 * options;
}

/** A u32 with its bytes in the other order: between a number and what lies in memory in network order. */
export function networkOrder(word: number): number {
  return ((word >>> 24) | ((word >>> 8) & 0xff00) | ((word << 8) & 0xff0000) | (word << 24)) >>> 0;
}

const COUNTERS = { outbound: abi.OUTBOUND_COUNTERS, inbound: abi.INBOUND_COUNTERS, icmp: abi.ICMP_COUNTERS };

function countersAddress(direction: Direction): number {
  return COUNTERS[direction];
}
