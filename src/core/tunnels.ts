/** Tunnels as a host sees them: copied out of the core, and put together where several cores share the work. */
import * as abi from './abi.ts';

/** What is known about the way to one remote VM. */
export interface TunnelState {
  /** The remote VM's underlay address. */
  vm: number;
  /** Bytes that an outer packet may have, where that is less than the underlay allows. */
  pathMtu?: number;
  /** Code of the ICMP message (destination unreachable, RFC 792) that said of late that the VM cannot be reached. */
  unreachable?: number;
}

/** What the core keeps about one remote VM. */
export interface Tunnel extends TunnelState {
  /** Time of the last packet, in ms of the clock that the calls were given. */
  lastUse: number;
  outbound: { packets: number; bytes: number };
  inbound: { packets: number; bytes: number };
}

/** The VM, the word of its path MTU and reachability, and the record's f64 fields. */
const TUNNEL_FIELDS = 2 + (abi.TUNNEL_PATH_MTU - abi.TUNNEL_LAST_USE) / 8;

/** What the word at TUNNEL_PATH_MTU says. */
function tunnelState(word: number): Omit<TunnelState, 'vm'> {
  const [pathMtu, unreachable] = [word & 0xffff, word >>> 16];
  return { ...(pathMtu > 0 ? { pathMtu } : {}), ...(unreachable > 0 ? { unreachable: unreachable - 1 } : {}) };
}

/** The tunnels of one core, and what the last call changed about them. */
export class Tunnels {
  readonly #words: Uint32Array;
  readonly #floats: Float64Array;

  constructor(memory: ArrayBuffer) {
    this.#words = new Uint32Array(memory);
    this.#floats = new Float64Array(memory);
  }

  /** How many tunnels are open. */
  get count(): number {
    return this.#words[(abi.CHANGES + abi.CHANGES_TUNNELS) / 4] as number;
  }

  /** Whether the last call opened or closed tunnels, or learnt something about one. */
  get haveChanged(): boolean {
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
  copy(now: number): Float64Array<ArrayBuffer> {
    const rows = new Float64Array(this.count * TUNNEL_FIELDS);
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

/** The tunnels in what `Tunnels.copy` returned. */
export function tunnelsFrom(rows: Float64Array): Tunnel[] {
  return Array.from({ length: rows.length / TUNNEL_FIELDS }, (_, i) => {
    const row = rows.subarray(i * TUNNEL_FIELDS, (i + 1) * TUNNEL_FIELDS);
    const field = (offset: number) => row[2 + (offset - abi.TUNNEL_LAST_USE) / 8] as number;
    return {
      vm: row[0] as number,
      ...tunnelState(row[1] as number),
      lastUse: field(abi.TUNNEL_LAST_USE),
      outbound: { packets: field(abi.TUNNEL_OUTBOUND_PACKETS), bytes: field(abi.TUNNEL_OUTBOUND_BYTES) },
      inbound: { packets: field(abi.TUNNEL_INBOUND_PACKETS), bytes: field(abi.TUNNEL_INBOUND_BYTES) },
    };
  });
}

/** The tunnels of several cores, one for each VM. */
export function mergeTunnels(all: readonly (readonly Tunnel[])[]): Tunnel[] {
  const byVm = new Map<number, Tunnel>();
  for (const tunnel of all.flat()) {
    const other = byVm.get(tunnel.vm);
    byVm.set(tunnel.vm, other ? sumOf(tunnel, other) : tunnel);
  }
  return [...byVm.values()];
}

function sumOf(a: Tunnel, b: Tunnel): Tunnel {
  const add = (x: Tunnel['outbound'], y: Tunnel['outbound']) => ({
    packets: x.packets + y.packets,
    bytes: x.bytes + y.bytes,
  });
  const pathMtu = Math.min(a.pathMtu ?? Infinity, b.pathMtu ?? Infinity);
  // What one of them got from the VM, the other does not know.
  const unreachable = a.unreachable === undefined ? undefined : b.unreachable;
  return {
    vm: a.vm,
    ...(pathMtu < Infinity ? { pathMtu } : {}),
    ...(unreachable === undefined ? {} : { unreachable }),
    lastUse: Math.max(a.lastUse, b.lastUse),
    outbound: add(a.outbound, b.outbound),
    inbound: add(a.inbound, b.inbound),
  };
}
