/** `tunnels` for people: VMs in trouble first. */
import type { TunnelStatus } from '../observe/status.ts';
import { table } from './table.ts';
import { count, duration } from './units.ts';

const HEAD = ['VM', 'SLICE', 'MTU', 'PACKETS OUT', 'BYTES OUT', 'PACKETS IN', 'BYTES IN'];
const FAST = 'FAST %';
const TAIL = ['IDLE s', 'STATE'];
/** The order in which they are listed. */
const STATES: readonly TunnelStatus['state'][] = ['unreachable', 'silent', 'new', 'unknown', 'heard'];

export function tunnelsText(tunnels: readonly TunnelStatus[]): string {
  if (tunnels.length === 0) return 'no tunnels: one opens with the first packet to a VM, or from it';
  const rank = ({ state }: TunnelStatus) => STATES.indexOf(state);
  const sorted = [...tunnels].sort((a, b) => rank(a) - rank(b) || numberOf(a.vm) - numberOf(b.vm));
  const isFast = tunnels.some(({ fastPath }) => fastPath);
  const rows = sorted.map((t) => [
    ...[t.vm, t.slice, t.mtu, t.outbound.packets, t.outbound.bytes, t.inbound.packets, t.inbound.bytes],
    ...(isFast ? [fastShare(t)] : []),
    ...[Math.round(10 * t.idleSeconds) / 10, stateText(t)],
  ]);
  const merged = mergedNote(tunnels);
  const notes = [
    ...(isFast ? [`${FAST}: packets that the fast path took, out and in.`] : []),
    ...(merged ? [merged] : []),
  ];
  const lines = table([[...HEAD, ...(isFast ? [FAST] : []), ...TAIL], ...rows]);
  return [lines, ...(notes.length > 0 ? ['', ...notes] : [])].join('\n');
}

/** How much of a tunnel's packets the fast path took, in percent; never all if it was not all. */
function fastShare({ fastPath, outbound, inbound }: TunnelStatus): number {
  const taken = (fastPath?.outbound.packets ?? 0) + (fastPath?.inbound.packets ?? 0);
  return Math.floor((100 * taken) / Math.max(outbound.packets + inbound.packets, 1));
}

function stateText(tunnel: TunnelStatus): string {
  const { state, unreachable, unknown, hint, heardSeconds, unansweredPackets = 0, unansweredSeconds = 0 } = tunnel;
  const heard = heardSeconds === undefined ? '' : `heard ${duration(heardSeconds)} ago`;
  switch (state) {
    case 'heard':
      return heard;
    case 'silent': {
      const sent = `silent: ${count(unansweredPackets)} sent, none received for ${duration(unansweredSeconds)}`;
      return [sent, heard, hint].filter(Boolean).join('; ');
    }
    case 'unreachable':
      return `unreachable: ${unreachable}`;
    case 'unknown':
      return `unknown: packets are not counted, because ${unknown}`;
    default:
      return unansweredPackets > 0 ? `new: ${count(unansweredPackets)} sent, none received yet` : 'new';
  }
}

/**
 * Why packets out and in differ, if they do: more bytes a packet than the MTU are several packets that were
 * merged.
 */
export function mergedNote(tunnels: readonly Pick<TunnelStatus, 'mtu' | 'inbound' | 'outbound'>[]): string | undefined {
  const isMerged = tunnels.some(({ mtu, inbound }) => mtu > 0 && inbound.bytes > mtu * inbound.packets);
  return isMerged
    ? 'Packets in are fewer than on the wire: the kernel merges them (GRO) before they are counted. Compare bytes.'
    : undefined;
}

function numberOf(address: string): number {
  return address.split('.').reduce((number, part) => 256 * number + Number(part), 0);
}
