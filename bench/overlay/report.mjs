/** The results as a table: medians, ranges, and ratios to the reference peer within a round. */
import { median, table } from '../statistics.mjs';
import { PEERS, REFERENCE } from './peers.mjs';

const MEASURES = [
  { key: 'tcp1', title: 'TCP x1 Gbit/s', digits: 2, ratio: true },
  { key: 'tcp4', title: 'TCP x4 Gbit/s', digits: 2, ratio: true },
  { key: 'udp', title: 'UDP 64 B kpps', digits: 0, ratio: true },
  { key: 'rtt', title: 'RTT us', digits: 0, ratio: true },
  { key: 'cpu', title: 'daemon CPU s/GB', digits: 2, ratio: false },
];

/** One peer's figures over all rounds that it got through; undefined if there is none. */
export function summary(rows, name) {
  const own = rows.filter((row) => row.peer === name && !row.error);
  if (own.length === 0) return undefined;
  const reference = new Map(rows.filter((row) => row.peer === REFERENCE && !row.error).map((row) => [row.round, row]));
  const figures = MEASURES.map(({ key }) => {
    const values = own.map((row) => row[key]);
    // The machine's mood changes from round to round: only what was measured in the same one is compared.
    const ratios = own
      .filter(({ round }) => reference.has(round))
      .map((row) => row[key] / reference.get(row.round)[key]);
    const range = { median: median(values), least: Math.min(...values), most: Math.max(...values) };
    return [key, { ...range, ratio: ratios.length > 0 ? median(ratios) : undefined }];
  });
  return Object.fromEntries(figures);
}

/** The names of the peers in the results, in the order in which they were measured. */
export function namesOf(rows) {
  return [...new Set(rows.map(({ peer }) => peer))];
}

export function overlayTable({ rows, rounds }) {
  const titles = MEASURES.flatMap(({ title, ratio }) => (ratio ? [title, `/ ${REFERENCE}`] : [title]));
  const lines = namesOf(rows).map((name) => {
    const figures = summary(rows, name);
    const cells = MEASURES.flatMap(({ key, digits, ratio }) => {
      if (!figures) return ratio ? ['failed', ''] : ['failed'];
      if (key === 'cpu' && PEERS[name].kind !== 'inlay') return ['-'];
      const { median: middle, least, most, ratio: quotient } = figures[key];
      const range = rounds > 1 ? ` [${least.toFixed(digits)}..${most.toFixed(digits)}]` : '';
      const text = `${middle.toFixed(digits)}${range}`;
      return ratio ? [text, quotient?.toFixed(2) ?? '-'] : [text];
    });
    return [PEERS[name].label, ...cells];
  });
  return table([['', ...titles], ...lines]);
}

/** Where and how the results were got, as one sentence. */
export function conditions({ date, kernel, node, cores, rounds, seconds, nic }) {
  const wire = nic === 'cut' ? 'segments cut before the wire' : 'super-packets cross it whole';
  return (
    `Two VMs (network namespaces) on one machine of ${cores} cores, a veth of MTU 1500 (${wire}), ` +
    `${rounds > 1 ? `medians [and ranges] of ${rounds} rounds, ` : ''}${seconds} s a test; ${date.slice(0, 10)}, Linux ${kernel}, Node ${node}`
  );
}
