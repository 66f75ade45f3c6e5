/** Tunnels as a host sees them: copied out of the core, and put together where several cores share the work. */
import * as abi from './abi.ts';

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

/** The VM, and the fields of a tunnel record that are in use. */
export const TUNNEL_FIELDS = 1 + (abi.TUNNEL_INBOUND_BYTES + 8) / 8;

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
  return {
    vm: a.vm,
    firstUse: Math.min(a.firstUse, b.firstUse),
    lastUse: Math.max(a.lastUse, b.lastUse),
    outbound: add(a.outbound, b.outbound),
    inbound: add(a.inbound, b.inbound),
  };
}
