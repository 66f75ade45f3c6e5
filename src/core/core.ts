/** The packet core as a host sees it: a twin's functions over one memory, and typed views of that memory. */
import * as abi from './abi.ts';

/** What both twins provide. docs/abi.md says what each function does; addresses are u32, times f64 milliseconds. */
export interface CoreFunctions {
  configure(local: number, keyed: number, key: number, ttl: number): void;
  addMapping(overlay: number, overlayLength: number, underlay: number, underlayLength: number): number;
  vmOf(address: number): number;
  encapsulate(count: number, now: number): number;
  decapsulate(count: number, now: number): number;
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
}

/** What the core keeps about one remote VM. */
export interface Tunnel {
  /** The remote VM's underlay address. */
  vm: number;
  /** Times of the first and the last packet, in ms of the clock that the calls were given. */
  firstUse: number;
  lastUse: number;
  outbound: { packets: number; bytes: number };
  inbound: { packets: number; bytes: number };
}

export type CoreName = 'wasm' | 'typescript';
export type Direction = 'outbound' | 'inbound';

/** What a VM tells its core. Addresses are u32 numbers. */
export interface CoreConfig {
  local: number;
  key?: number | undefined;
  /** Outer time to live; 64 unless given. */
  ttl?: number;
  mappings: readonly { overlay: number; overlayLength: number; underlay: number; underlayLength: number }[];
}

const DESCRIPTOR_WORDS = abi.DESCRIPTOR_SIZE / 4;

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
  }

  /** Sets addresses, key and mappings anew. Counters and tunnels stay. */
  configure(config: CoreConfig): void {
    const keyed = config.key === undefined ? 0 : 1;
    this.#functions.configure(config.local, keyed, config.key ?? 0, config.ttl ?? 64);
    for (const m of config.mappings) {
      if (this.#functions.addMapping(m.overlay, m.overlayLength, m.underlay, m.underlayLength) < 0) {
        throw new RangeError(`mapping /${m.overlayLength} to /${m.underlayLength} does not fit the core`);
      }
    }
  }

  /** The underlay address of the VM that an overlay address carries; 0 if no mapping covers it. */
  vmOf(address: number): number {
    return this.#functions.vmOf(address) >>> 0;
  }

  /** Encapsulates the first `count` packets; returns how many have verdict FORWARD. */
  encapsulate(count: number, now: number): number {
    return this.#functions.encapsulate(count, now);
  }

  /** Decapsulates the first `count` packets; returns how many have verdict FORWARD. */
  decapsulate(count: number, now: number): number {
    return this.#functions.decapsulate(count, now);
  }

  /** Closes up to BATCH_SIZE tunnels last used before `before`; returns how many. */
  expire(before: number): number {
    return this.#functions.expire(before);
  }

  /** Where packet `index` is to be put: HEADROOM bytes into its slot. */
  slot(index: number): number {
    return abi.SLOTS + index * abi.SLOT_SIZE + abi.HEADROOM;
  }

  /** Describes packet `index`, `length` bytes that were put at `slot(index)`. */
  describe(index: number, length: number): void {
    const d = abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS;
    this.#words[d] = this.slot(index);
    this.#words[d + 1] = length;
  }

  /** Puts a copy of `packet` into slot `index` and describes it. */
  put(index: number, packet: Uint8Array): void {
    this.bytes.set(packet, this.slot(index));
    this.describe(index, packet.length);
  }

  address(index: number): number {
    return this.#words[abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS] as number;
  }

  length(index: number): number {
    return this.#words[abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS + 1] as number;
  }

  verdict(index: number): number {
    return this.#verdicts[abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS + 2] as number;
  }

  /** The remote VM of packet `index` as the u32 that lies in memory: network order, as in struct in_addr. */
  peer(index: number): number {
    return this.#words[abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS + 3] as number;
  }

  /** The bytes of packet `index`, a view that lasts until its slot is filled again. */
  packet(index: number): Uint8Array {
    const address = this.address(index);
    return this.bytes.subarray(address, address + this.length(index));
  }

  /** Marks packet `index`, which the device did not take. `countRefused` then counts it. */
  refuse(index: number): void {
    this.#verdicts[abi.DESCRIPTORS / 4 + index * DESCRIPTOR_WORDS + 2] = abi.DROP_NOT_WRITTEN;
  }

  /** Counts those of the first `count` packets that were refused as dropped instead of forwarded, so that the sums stay exact. */
  countRefused(direction: Direction, count: number): void {
    for (let i = 0; i < count; i++) {
      if (this.verdict(i) === abi.DROP_NOT_WRITTEN) this.countLost(direction, this.length(i));
    }
  }

  /** Counts one forwarded packet as dropped: one that was taken and then failed. `length` is what its descriptor said, in bytes. */
  countLost(direction: Direction, length: number): void {
    this.#count(direction, abi.COUNTERS_FORWARDED, -1);
    this.#count(direction, abi.COUNTERS_BYTES, (direction === 'outbound' ? this.#overhead : 0) - length);
    this.#count(direction, abi.COUNTERS_DROPS - 8 * abi.DROP_NOT_WRITTEN, 1);
  }

  get #overhead(): number {
    return overhead(this.#words[(abi.CONFIG + abi.CONFIG_KEYED) / 4] !== 0);
  }

  #count(direction: Direction, counter: number, amount: number): void {
    const f = (countersAddress(direction) + counter) / 8;
    this.#floats[f] = (this.#floats[f] as number) + amount;
  }

  counters(direction: Direction): DirectionCounters {
    const f = countersAddress(direction) / 8;
    const drops = f + abi.COUNTERS_DROPS / 8;
    return {
      received: this.#floats[f + abi.COUNTERS_RECEIVED / 8] as number,
      forwarded: this.#floats[f + abi.COUNTERS_FORWARDED / 8] as number,
      bytes: this.#floats[f + abi.COUNTERS_BYTES / 8] as number,
      drops: Array.from(this.#floats.subarray(drops, drops + abi.VERDICTS)),
    };
  }

  /** How many tunnels are open. */
  get tunnelCount(): number {
    return this.#words[(abi.CHANGES + abi.CHANGES_TUNNELS) / 4] as number;
  }

  /** The remote VMs of the tunnels that the last call opened. */
  opened(): number[] {
    return this.#list(abi.CHANGES_OPENED, abi.CHANGES_OPENED_LIST);
  }

  /** The remote VMs of the tunnels that the last call closed. */
  closed(): number[] {
    return this.#list(abi.CHANGES_CLOSED, abi.CHANGES_CLOSED_LIST);
  }

  #list(count: number, list: number): number[] {
    const n = this.#words[(abi.CHANGES + count) / 4] as number;
    const start = (abi.CHANGES + list) / 4;
    return n === 0 ? [] : Array.from(this.#words.subarray(start, start + n));
  }

  /** A copy of all open tunnels, TUNNEL_FIELDS numbers each, that can be handed to another thread. `tunnelsFrom` reads it. */
  copyTunnels(): Float64Array<ArrayBuffer> {
    const rows = new Float64Array(this.tunnelCount * TUNNEL_FIELDS);
    for (let i = 0, row = 0; row < rows.length; i++) {
      const vm = this.#words[abi.TUNNEL_KEYS / 4 + i] as number;
      if (vm === 0) continue;
      const record = (abi.TUNNELS + i * abi.TUNNEL_SIZE) / 8;
      rows[row] = vm;
      rows.set(this.#floats.subarray(record, record + TUNNEL_FIELDS - 1), row + 1);
      row += TUNNEL_FIELDS;
    }
    return rows;
  }
}

/** Bytes that encapsulation adds to a packet: outer IPv4 header (20), GRE (4), and the key if there is one (4). */
export function overhead(keyed: boolean): number {
  return keyed ? 28 : 24;
}

/** The VM, and the fields of a tunnel record that are in use. */
const TUNNEL_FIELDS = 1 + (abi.TUNNEL_INBOUND_BYTES + 8) / 8;

/** The tunnels in what `copyTunnels` returned. */
export function tunnelsFrom(rows: Float64Array): Tunnel[] {
  return Array.from({ length: rows.length / TUNNEL_FIELDS }, (_, i) => {
    const field = (offset: number) => rows[i * TUNNEL_FIELDS + 1 + offset / 8] as number;
    return {
      vm: rows[i * TUNNEL_FIELDS] as number,
      firstUse: field(abi.TUNNEL_FIRST_USE),
      lastUse: field(abi.TUNNEL_LAST_USE),
      outbound: { packets: field(abi.TUNNEL_OUTBOUND_PACKETS), bytes: field(abi.TUNNEL_OUTBOUND_BYTES) },
      inbound: { packets: field(abi.TUNNEL_INBOUND_PACKETS), bytes: field(abi.TUNNEL_INBOUND_BYTES) },
    };
  });
}

function countersAddress(direction: Direction): number {
  return direction === 'outbound' ? abi.OUTBOUND_COUNTERS : abi.INBOUND_COUNTERS;
}
