/** The results as a table: medians, ranges, and ratios to the reference peer within a round. */
import { figure, namesOf, rangeText, ratio } from '../rows.mjs';
import { table } from '../statistics.mjs';
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
  if (!figure(rows, name, MEASURES[0].key)) return undefined;
  const figures = MEASURES.map(({ key }) => [
    key,
    { ...figure(rows, name, key), ratio: ratio(rows, name, key, REFERENCE)?.median },
  ]);
  return Object.fromEntries(figures);
}

export function overlayTable({ rows, rounds }) {
  const titles = MEASURES.flatMap(({ title, ratio: hasRatio }) => (hasRatio ? [title, `/ ${REFERENCE}`] : [title]));
  const lines = namesOf(rows).map((name) => {
    const figures = summary(rows, name);
    const cells = MEASURES.flatMap(({ key, digits, ratio: hasRatio }) => {
      if (!figures) return hasRatio ? ['failed', ''] : ['failed'];
      if (key === 'cpu' && PEERS[name].kind !== 'inlay') return ['-'];
      const text = rangeText(figures[key], digits, rounds);
      return hasRatio ? [text, figures[key].ratio?.toFixed(2) ?? '-'] : [text];
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
