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
export const TUNNEL_FIELDS = 2 + (abi.TUNNEL_PATH_MTU - abi.TUNNEL_LAST_USE) / 8;

/** What the word at TUNNEL_PATH_MTU says. */
export function tunnelState(word: number): Omit<TunnelState, 'vm'> {
  const [pathMtu, unreachable] = [word & 0xffff, word >>> 16];
  return { ...(pathMtu > 0 ? { pathMtu } : {}), ...(unreachable > 0 ? { unreachable: unreachable - 1 } : {}) };
}

/** The tunnels in what `copyTunnels` returned. */
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
