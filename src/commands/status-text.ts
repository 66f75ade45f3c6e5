/** `status` for people: what matters first, each number beside its word. */
import { DROP_REASONS } from '../core/verdict.ts';
import type { Refused } from '../dataplane/dataplane.ts';
import { dropHint } from '../dataplane/drop-hints.ts';
import type { DeviceName } from '../dataplane/drop-log.ts';
import { refusalCause } from '../dataplane/refusal-causes.ts';
import { wireFormat } from '../dataplane/wire-format.ts';
import { DROPS } from '../machine/barrier/rules.ts';
import type { DirectionStatus, Status } from '../observe/status.ts';
import { table } from './table.ts';
import { mergedNote } from './tunnels-text.ts';
import { count, counted, duration, scaled } from './units.ts';

/** Drop reasons that are shown, of those with the most in the last minute; the JSON has all. */
const MAX_REASONS = 8;
/** Seconds that a start may take: as long the daemon is up, and has been in this state. */
const START = 60;
const NO_TRAFFIC = { packets: 0, bytes: 0 };

type Row = [label: string, text: string];

export function statusText(status: Status): string {
  const facts: Row[] = [...addressRows(status), ...packetRows(status), ...icmpRows(status)];
  const sections = [
    table([stateRow(status), ...troubleRows(status)]),
    trafficText(status),
    dropsText(status),
    table(facts),
  ];
  return sections.filter((section) => section !== '').join('\n\n');
}

function stateRow({ state, stateSeconds = 0, uptimeSeconds = 0, pid }: Status): Row {
  const up = uptimeSeconds > stateSeconds + START ? `, up for ${duration(uptimeSeconds)}` : '';
  return ['state', `${state} for ${duration(stateSeconds)}${up} (process ${pid})`];
}

function troubleRows({ troubles, remarks = [] }: Status): Row[] {
  const rows = (label: string, { what, hint }: { what: string; hint?: string }): Row[] => [
    [label, what],
    ...(hint ? [['', `hint: ${hint}`] as Row] : []),
  ];
  return [...troubles.flatMap((each) => rows('trouble', each)), ...remarks.flatMap((each) => rows('remark', each))];
}

function trafficText({ outbound, inbound, tunnels, tunnelStates, mtu }: Status): string {
  const row = (name: string, { packets, bytes, packetsPerSecond = 0, bitsPerSecond = 0 }: DirectionStatus) => [
    ...[name, packetsPerSecond, scaled(bitsPerSecond, 'bit/s'), packets, scaled(bytes, 'B')],
  ];
  const rows = [row('to other VMs', outbound), row('from other VMs', inbound)];
  const states = Object.entries(tunnelStates ?? {}).filter(([, many]) => many > 0);
  const inStates = states.map(([state, many]) => `${count(many)} ${state}`).join(', ');
  const list = tunnels > 0 ? `${inStates ? `: ${inStates}` : ''} (inlay tunnels lists them)` : '';
  const note = mergedNote([{ mtu, inbound, outbound: NO_TRAFFIC }]);
  return [
    table([['TRAFFIC', 'PACKETS/S NOW', 'BITS/S NOW', 'PACKETS', 'BYTES'], ...rows], [2, 4]),
    ...(note ? [note] : []),
    `${counted(tunnels, 'tunnel')}${list}`,
  ].join('\n');
}

interface Drop {
  from: 'out' | 'in' | 'ICMP';
  reason: string;
  total: number;
  recent: number;
}

function dropsText({ outbound, inbound, icmp, refused }: Status): string {
  const drops = [...dropsOf('out', outbound), ...dropsOf('in', inbound), ...dropsOf('ICMP', icmp)];
  if (drops.length === 0) return 'no drops by Inlay';
  drops.sort((a, b) => b.recent - a.recent || b.total - a.total);
  const shown = drops.slice(0, MAX_REASONS);
  const rows = shown.map(({ from, reason, recent, total }) => [`${from} ${reason}`, recent, total, meaningOf(reason)]);
  const [head, ...lines] = table([['DROPS', 'LAST MINUTE', 'TOTAL', 'MEANING'], ...rows]).split('\n');
  // The kernel's errors are not told apart by direction: they stand below the larger number.
  const first = shown.findIndex(({ reason }) => reason === 'not-written');
  const explained = lines.flatMap((line, i) => {
    const causes = refused && i === first ? causesOf(refused) : [];
    return [line, ...(causes.length > 0 ? causes : hintFor((shown[i] as Drop).reason))];
  });
  const rest = drops.length - MAX_REASONS;
  const more = rest > 0 ? [`${counted(rest, 'more reason')}: inlay status --json`] : [];
  return [head, ...explained, ...more].join('\n');
}

function hintFor(reason: string): string[] {
  const known = DROP_REASONS.find(({ name }) => name === reason);
  const hint = known && dropHint(known.verdict);
  return hint === undefined ? [] : [`    hint: ${hint}`];
}

function dropsOf(from: Drop['from'], direction: DirectionStatus | undefined): Drop[] {
  return Object.entries(direction?.drops ?? {}).map(([reason, total]) => {
    return { from, reason, total, recent: direction?.recentDrops?.[reason] ?? 0 };
  });
}

/** The direction stands beside it already. */
function meaningOf(reason: string): string {
  const meaning = DROP_REASONS.find(({ name }) => name === reason)?.meaning ?? '';
  return meaning.replace(/^(out|in)bound: /, '');
}

/** Why the kernel did not take packets, and what helps; the most frequent error first. */
function causesOf(refused: Refused): string[] {
  const errors = Object.entries(refused).flatMap(([device, counts]) =>
    Object.entries(counts).map(([errno, many]) => ({ device: device as DeviceName, errno, many })),
  );
  errors.sort((a, b) => b.many - a.many);
  return errors.flatMap(({ device, errno, many }) => {
    const { cause, hint } = refusalCause(device, errno);
    return [`    ${device} ${errno} ${count(many)}: ${cause}`, ...(hint ? [`    hint: ${hint}`] : [])];
  });
}

function addressRows({ vm, overlayAddress, mappings, device, mtu, underlayMtu }: Status): Row[] {
  const underlay = underlayMtu ? `; the underlay takes ${count(underlayMtu)}` : '';
  return [
    ...(vm ? [['underlay address', vm] as Row, ['overlay address', overlayAddress] as Row] : []),
    ...mappings.map((m): Row => ['slice', `${m.slice} (${m.overlay} over ${m.underlay})`]),
    ['device', device],
    ...(mtu > 0 ? [['MTU', `${count(mtu)} bytes: give containers this much or less${underlay}`] as Row] : []),
  ];
}

function packetRows(status: Status): Row[] {
  const { dataPlane, core, engine, queues, encapsulation } = status;
  const parts = [core && `core ${core}`, engine && `engine ${engine}`, queues && counted(queues, 'queue')].filter(
    Boolean,
  );
  return [
    ['data plane', `${dataPlane}${parts.length > 0 ? `: ${parts.join(', ')}` : ''}`],
    ['format', `${encapsulation} (${wireFormat(encapsulation)})`],
    ...obstacleRow(
      'super-packets',
      status.segmentation && `cut by the ${status.segmentation}`,
      status.segmentationObstacle,
    ),
    ...(status.segmentSizes === 'guarded'
      ? obstacleRow('merged packets', 'their sizes are not known', status.segmentSizesObstacle)
      : []),
    ...fastPathRows(status),
    ...obstacleRow('source check', status.sourceCheck, status.sourceCheckObstacle),
    ...barrierRows(status),
    ...containerRows(status),
  ];
}

function fastPathRows({ fastPath, outbound, inbound }: Status): Row[] {
  if (!fastPath) return [];
  const { state, obstacle, containers } = fastPath;
  const rows = obstacleRow(
    'fast path',
    state === 'on' ? `on for ${counted(containers, 'container')}` : 'off',
    obstacle,
  );
  const of = (taken: number, all: number) => `${count(taken)} of ${count(all)}`;
  const out = of(fastPath.outbound.packets, outbound.packets);
  const back = of(fastPath.inbound.packets, inbound.packets);
  const local = count(fastPath.local.packets);
  const total = [fastPath.outbound, fastPath.inbound, fastPath.local].reduce((sum, { packets }) => sum + packets, 0);
  return total === 0
    ? rows
    : [...rows, ['', `took ${out} packets to other VMs, ${back} from them, and ${local} between containers`]];
}

function containerRows({ containers }: Status): Row[] {
  if (!containers) return [];
  const { attached, attach } = containers;
  if (attached === 0 && attach === 'off') return [];
  const list = attached > 0 ? `${count(attached)} attached (inlay containers lists them)` : 'none attached';
  return [['containers', `${list}${attach === 'on' ? '; the daemon attaches for CNI' : ''}`]];
}

function barrierRows({ barrier }: Status): Row[] {
  if (!barrier) return [];
  const { state, obstacle, drops } = barrier;
  const rows = obstacleRow('barrier', state, state === 'off' ? obstacle : undefined);
  if (state === 'on' && obstacle !== undefined) rows.push(['', obstacle]);
  const dropped = Object.entries(drops).map(([name, packets]): Row => {
    return ['', `dropped ${count(packets)} ${name}: ${DROPS[name as keyof typeof DROPS]}`];
  });
  return [...rows, ...dropped];
}

/** Nothing where a data plane has nothing to say. */
function obstacleRow(label: string, text: string | undefined, obstacle: string | undefined): Row[] {
  return text === undefined ? [] : [[label, obstacle === undefined ? text : `${text}, because ${obstacle}`]];
}

function icmpRows({ replies, icmp, ecnAnomalies = 0, neighbours, repaired }: Status): Row[] {
  const rows: Row[] = [];
  if (replies) {
    const rest = replies.suppressed > 0 ? `, ${count(replies.suppressed)} left out (too many)` : '';
    rows.push(['ICMP to containers', `${count(replies.sent)} sent${rest}`]);
  }
  if (icmp) rows.push(['ICMP from underlay', `${count(icmp.packets)} believed`]);
  if (neighbours) {
    const { answered, refused, failed, resyncs, repaired: vms } = neighbours;
    const failures = failed > 0 ? `, ${count(failed)} not taken by the kernel` : '';
    rows.push(['neighbour requests', `${count(answered)} answered, ${count(refused)} refused${failures}`]);
    const found = vms > 0 ? `, ${counted(vms, 'VM')} put right` : '';
    rows.push(['kernel entries', `compared ${counted(resyncs, 'time')}${found}`]);
  }
  if (ecnAnomalies > 0) rows.push(['ECN anomalies', `${counted(ecnAnomalies, 'packet')} (RFC 6040 §4.2)`]);
  if (repaired > 0) rows.push(['repaired', `${counted(repaired, 'change')} by others put right; the log names them`]);
  return rows;
}
