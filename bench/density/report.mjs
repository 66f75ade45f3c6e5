/** The results as text, and what of them is wrong whatever the machine. */
import { median, quantile, table } from '../statistics.mjs';

/** Cores that other programs may use before the start. */
export const QUIET = 0.35;
const PARTS = [0.5, 0.95, 0.99];
/** Descriptors that a daemon may have more at one moment than at another. */
const SPARE = 3;

export function report(result) {
  const { options, levels, seconds, memory, reach, entries, replace, starts, together, rest, churn } = result;
  const { containers, dataplane } = options;
  const { background, cores, date, kernel, node } = result;
  const text = [
    `One VM with ${containers} containers, data plane ${dataplane}, on one machine of ${cores} cores; ${date.slice(0, 10)}, Linux ${kernel}, Node ${node}.`,
    `Before the start, other programs used ${background.toFixed(2)} cores${background > QUIET ? ': measure again' : ''}.\n`,
    levelTable('attach', levels, 'attach', 'floorAttach', 3),
    'The same in ms of the processor, which other programs change less:\n',
    levelTable('attach', levels, 'attach', 'floorAttach', 3, 'cpu'),
    levelTable('detach', levels, 'detach', 'floorDetach', 1),
    `All ${containers} attached, namespaces included: ${seconds.toFixed(1)} s.`,
    `One that comes for one that left, with its namespace, beside ${containers - 1}: p50 ${median(replace).toFixed(2)}, p95 ${quantile(replace, 0.95).toFixed(2)} ms.`,
    ...[together, rest]
      .filter(Boolean)
      .map(({ count, ms }) => `${count} detached at once: ${(ms / 1000).toFixed(2)} s.`),
    `Memory of a container and its namespace: ${memory.objects.toFixed(0)} kB of kernel objects, ${memory.available.toFixed(0)} kB less available;` +
      ` of the daemon ${memory.daemon.before.toFixed(0)} MB before, ${memory.daemon.after.toFixed(0)} MB after.`,
    `From another VM's container, ${reach.count - reach.silent} of ${reach.count} answer a ping (${reach.lost[0]} not the first), ${reach.count - reach.unconnected} a TCP connection.`,
    `On that VM: ${['routes', 'neighbours', 'tunnels'].map((what) => `${what} ${entries.before[what]} before, ${entries.after[what]} after`).join('; ')}.`,
    ...throughputLines(result),
    `Start of the daemon: ${startOf(starts.dense)} with ${containers}, ${startOf(starts.single)} with 1 (and CPU seconds of the 5 s after).`,
    ...(churn ? churnLines(churn) : []),
  ];
  return { text: `${text.join('\n')}\n`, failures: failuresOf(result) };
}

/** The value below which `part` (0..1) of them lie; in ms of the clock, or of the processor. */
export function quantileOf(taken, part, what = 'ms') {
  return quantile(
    taken.map((each) => each[what]),
    part,
  );
}

export function ratio(taken, floor, part, what) {
  return quantileOf(taken, part, what) / quantileOf(floor, part, what);
}

function levelTable(name, levels, ours, floor, digits, what = 'ms') {
  const figures = (taken) => PARTS.map((part) => quantileOf(taken, part, what).toFixed(digits)).join(' / ');
  const rows = levels.map((level) => [
    `${name}, ${level.present} present`,
    figures(level[ours]),
    figures(level[floor]),
    ...[0.5, 0.95].map((part) => ratio(level[ours], level[floor], part, what).toFixed(2)),
  ]);
  return table([['p50 / p95 / p99 in ms', 'inlay', 'kernel alone', 'p50 ratio', 'p95 ratio'], ...rows]);
}

function throughputLines({ options, throughput, throughputBefore }) {
  const line = ({ dense, single }, what, digits) => {
    const [more, one] = [dense, single].map((rounds) => median(rounds.map((round) => round[what])));
    return `${more.toFixed(digits)} against ${one.toFixed(digits)}: ${(more / one).toFixed(2)}`;
  };
  return [
    `One TCP stream, Gbit/s, with ${options.containers} against 1: ${line(throughput, 'tcp', 2)} (both with 1: ${line(throughputBefore, 'tcp', 2)}).`,
    `64-byte UDP, thousands a second, with ${options.containers} against 1: ${line(throughput, 'udp', 0)} (both with 1: ${line(throughputBefore, 'udp', 0)}).`,
  ];
}

function startOf(rounds) {
  const [ms, cpu] = ['ms', 'cpu'].map((what) => median(rounds.map((round) => round[what])));
  return `${ms.toFixed(0)} ms (${cpu.toFixed(2)} s)`;
}

function churnLines({
  attaches,
  elapsed,
  present,
  attachMs,
  detachMs,
  pulse,
  calmCpu,
  churnCpu,
  before,
  after,
  ...faults
}) {
  const cpu = ({ all, control }) => `${all.toFixed(1)} % of a core (${control.toFixed(1)} % without forwarding)`;
  const both = (what, pick, digits = 0) => `${what} ${pick(before).toFixed(digits)} and ${pick(after).toFixed(digits)}`;
  const counts = ['links', 'claims', 'permanent', 'tombstones'].map((what) => both(what, ({ counts }) => counts[what]));
  return [
    `Churn: ${attaches} came and went in ${elapsed.toFixed(1)} s beside ${present}; one with its namespace p50 ${median(attachMs).toFixed(2)}, p95 ${quantile(attachMs, 0.95).toFixed(2)}, p99 ${quantile(attachMs, 0.99).toFixed(2)} ms;` +
      ` ten detached together p50 ${median(detachMs).toFixed(1)}, p95 ${quantile(detachMs, 0.95).toFixed(1)} ms.`,
    `Collisions ${faults.collisions}, addresses that came back too early ${faults.early}; pings to the others: ${pulse.lost} of ${pulse.sent} lost.`,
    `The daemon's CPU time: ${cpu(churnCpu)}, before that with the same pings ${cpu(calmCpu)}.`,
    `Before and after: ${counts.join(', ')}, ${both("the daemon's descriptors", ({ daemon }) => daemon.descriptors)},` +
      ` ${both("the attaching process's", ({ descriptors }) => descriptors)}, ${both("the daemon's memory", ({ daemon }) => daemon.memory)} MB,` +
      ` ${both('kernel objects', ({ kernel }) => kernel.objects / 1024)} MB.`,
  ];
}

/** What must not be, on any machine. */
function failuresOf({ reach, entries, churn, left }) {
  const isSame = (what, a, b) => (a === b ? [] : [`${what}: ${a} before, ${b} after`]);
  const isNone = (what, count) => (count === 0 ? [] : [`${what}: ${count}`]);
  return [
    ...isNone('containers that do not answer a ping', reach.silent),
    ...isNone('containers that take no TCP connection', reach.unconnected),
    ...isSame('routes of another VM', entries.before.routes, entries.after.routes),
    ...(entries.after.tunnels > entries.before.tunnels
      ? isSame('tunnels of another VM', entries.before.tunnels, entries.after.tunnels)
      : []),
    // The first container of the VM stays.
    ...isNone('links that are left', left.links - 1),
    ...isNone('claims that are left', left.claims - 1),
    ...(churn ? churnFailures(churn, isNone, isSame) : []),
  ];
}

function churnFailures({ collisions, early, pulse, before, after }, isNone, isSame) {
  return [
    ...isNone('addresses that two had', collisions),
    ...isNone('addresses that came back too early', early),
    ...isNone('lost pings to those that stayed', pulse.lost),
    ...['links', 'claims', 'permanent'].flatMap((what) => isSame(what, before.counts[what], after.counts[what])),
    ...isSame('descriptors of the attaching process', before.descriptors, after.descriptors),
    // More or less by connections to the control socket.
    ...(after.daemon.descriptors > before.daemon.descriptors + SPARE
      ? isSame('descriptors of the daemon', before.daemon.descriptors, after.daemon.descriptors)
      : []),
  ];
}
