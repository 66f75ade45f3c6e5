/** The results as a bar chart in SVG. */
import { barChart } from '../bars.mjs';
import { namesOf } from '../rows.mjs';
import { PEERS, REFERENCE } from './peers.mjs';
import { summary } from './report.mjs';

const PANELS = [
  { key: 'tcp1', title: 'One TCP stream', unit: 'Gbit/s', digits: 1 },
  { key: 'udp', title: '64-byte UDP packets delivered', unit: 'thousand packets/s', digits: 0 },
];

export function chart(result) {
  const names = namesOf(result.rows).filter((name) => summary(result.rows, name));
  return barChart({
    title: 'Inlay beside kernel vxlan',
    note: 'More is better. × is the ratio to kernel vxlan in the same round; a thin line is the range over the rounds.',
    panels: PANELS.map(({ key, ...panel }) => ({ ...panel, bars: names.map((name) => barOf(result.rows, name, key)) })),
    caption: caption(result),
  });
}

function barOf(rows, name, key) {
  const { kind, label } = PEERS[name];
  const figure = summary(rows, name)[key];
  const isReference = name === REFERENCE;
  return { label, kind, isStrong: kind === 'inlay', figure, isReference, ratio: ratioOf(figure, isReference) };
}

function ratioOf({ ratio }, isReference) {
  if (ratio === undefined) return '';
  return isReference ? '1 ×' : `${ratio.toFixed(2)} ×`;
}

function caption({ date, kernel, node, cpu, cores, rounds, seconds, nic }) {
  const wire = nic === 'cut' ? 'segments cut before the wire' : 'super-packets cross it whole';
  return [
    `Two VMs (network namespaces) that share ${cores} cores (${cpu}), joined by a veth of MTU 1500; ${wire}.`,
    `${rounds > 1 ? `Medians of ${rounds} rounds, ` : ''}${seconds} s a test. ${date.slice(0, 10)}, Linux ${kernel}, Node ${node}. npm run bench:overlay`,
  ];
}
