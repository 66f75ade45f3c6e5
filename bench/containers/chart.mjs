/** The results over two VMs as a bar chart in SVG. */
import { barChart } from '../bars.mjs';
import { figure, ratio } from '../rows.mjs';
import { PEERS } from './peers.mjs';

const REFERENCE = 'vxlan';
/** Those of which the chart tells: the others differ little. */
const SHOWN = ['routing', 'vxlan', 'vxlan-bridge', 'gre-off', 'gre', 'gre-udp'];

const PANELS = [
  {
    part: 'whole',
    key: 'tcp1',
    title: 'One TCP stream',
    unit: 'Gbit/s, super-packets cross the wire whole',
    digits: 1,
  },
  {
    part: 'cut',
    key: 'tcp1',
    title: 'One TCP stream',
    unit: 'Gbit/s, cut before the wire and merged behind it',
    digits: 1,
  },
  { part: 'whole', key: 'udp', title: '64-byte UDP packets delivered', unit: 'thousand packets/s', digits: 0 },
  { part: 'whole', key: 'rtt', title: 'Round trip', unit: 'us, less is better', digits: 1, apart: 'gre-off' },
];

export function chart(result) {
  return barChart({
    title: 'From container to container, over two VMs',
    note: '× is the ratio to kernel vxlan in the same round; a thin line is the range over the rounds.',
    panels: PANELS.filter(({ part }) => result[part]).map(({ part, ...panel }) => panelOf(result[part], panel)),
    caption: caption(result),
  });
}

/** A bar that would make all others too short to be compared is told in words: the one `apart`. */
function panelOf(rows, { key, unit, apart, ...panel }) {
  const far = apart && figure(rows, apart, key)?.median;
  const words = far ? `${unit}; ${PEERS[apart].label}: ${far.toFixed(0)}` : unit;
  const bars = SHOWN.filter((name) => name !== apart).flatMap((name) => {
    const found = figure(rows, name, key);
    const { label, kind } = PEERS[name];
    const isReference = name === REFERENCE;
    const quotient = isReference ? '1 ×' : `${ratio(rows, name, key, REFERENCE)?.median.toFixed(2) ?? '-'} ×`;
    return found ? [{ label, kind, isStrong: kind === 'inlay', figure: found, isReference, ratio: quotient }] : [];
  });
  return { ...panel, unit: words, bars };
}

function caption({ date, kernel, node, cpu, cores, rounds, seconds }) {
  return [
    `Two VMs (network namespaces) that share ${cores} cores (${cpu}), joined by a veth of MTU 1500; a container on each.`,
    `${rounds > 1 ? `Medians of ${rounds} rounds, ` : ''}${seconds} s a test. ${date.slice(0, 10)}, Linux ${kernel}, Node ${node}. npm run bench:containers`,
  ];
}
