/** The results as a bar chart in SVG. It brings its own background, so that it can be read on any page. */
import { escaped, line, px, STYLE, text } from '../svg.mjs';
import { PEERS, REFERENCE } from './peers.mjs';
import { namesOf, summary } from './report.mjs';

const PANELS = [
  { key: 'tcp1', title: 'One TCP stream', unit: 'Gbit/s', digits: 1 },
  { key: 'udp', title: '64-byte UDP packets delivered', unit: 'thousand packets/s', digits: 0 },
];

// px
const WIDTH = 840;
const MARGIN = 28;
const BARS_LEFT = 264;
const BARS_WIDTH = 426;
const BAR = 18;
const ROW = 27;
const PANEL_TOP = 44; // from a panel's upper edge to its first bar
const PANEL_GAP = 22;
const HEAD = 84;
const FOOT = 66;

export function chart(result) {
  const names = namesOf(result.rows).filter((name) => summary(result.rows, name));
  const panelHeight = PANEL_TOP + names.length * ROW;
  const height = HEAD + PANELS.length * panelHeight + (PANELS.length - 1) * PANEL_GAP + FOOT;
  const panels = PANELS.map((panel, i) => panelOf(panel, result.rows, names, HEAD + i * (panelHeight + PANEL_GAP)));
  const description = PANELS.map(({ key, title, unit, digits }) => {
    const parts = names.map((name) => `${PEERS[name].label} ${summary(result.rows, name)[key].median.toFixed(digits)}`);
    return `${title}, ${unit}: ${parts.join(', ')}.`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>Inlay beside kernel vxlan</title>\n<desc>${escaped(description.join(' '))}</desc>\n<style>${STYLE}</style>`,
    `<rect class="card" x=".5" y=".5" width="${WIDTH - 1}" height="${height - 1}" rx="8"/>`,
    text(MARGIN, 38, 'title', 'Inlay beside kernel vxlan'),
    text(
      MARGIN,
      60,
      'quiet',
      'More is better. × is the ratio to kernel vxlan in the same round; a thin line is the range over the rounds.',
    ),
    ...panels,
    ...caption(result).map((line, i) => text(MARGIN, height - FOOT + 36 + i * 17, 'quiet', line)),
    '</svg>\n',
  ].join('\n');
}

function panelOf({ key, title, unit, digits }, rows, names, top) {
  const figures = new Map(names.map((name) => [name, summary(rows, name)[key]]));
  const most = Math.max(...[...figures.values()].map((figure) => figure.most));
  const scale = (value) => BARS_LEFT + (value / most) * BARS_WIDTH;
  const first = top + PANEL_TOP;
  const bottom = first + names.length * ROW - (ROW - BAR);
  const parts = [
    `<text x="${MARGIN}" y="${top + 24}" class="panel">${title} <tspan class="quiet" font-weight="400">${unit}</tspan></text>`,
  ];
  // Behind the bars.
  const reference = figures.get(REFERENCE);
  if (reference) parts.push(line('reference', scale(reference.median), first - 5, scale(reference.median), bottom + 5));
  for (const [i, [name, figure]] of [...figures].entries()) {
    const y = first + i * ROW;
    const { kind, label } = PEERS[name];
    const strong = kind === 'inlay' ? ' strong' : '';
    parts.push(
      `<text x="${BARS_LEFT - 10}" y="${y + 13.5}" class="label${strong}" text-anchor="end">${escaped(label)}</text>`,
      `<rect class="${kind}" x="${BARS_LEFT}" y="${y}" width="${px(scale(figure.median) - BARS_LEFT)}" height="${BAR}" rx="2"/>`,
      line('range', scale(figure.least), y + BAR / 2, scale(figure.most), y + BAR / 2),
      `<text x="${px(scale(figure.most) + 8)}" y="${y + 13.5}" class="value${strong}">${figure.median.toFixed(digits)}` +
        `<tspan class="quiet" font-weight="400" dx="8">${ratioOf(name, figure)}</tspan></text>`,
    );
  }
  parts.push(line('axis', BARS_LEFT, first - 5, BARS_LEFT, bottom + 5));
  return parts.join('\n');
}

function ratioOf(name, { ratio }) {
  if (ratio === undefined) return '';
  return name === REFERENCE ? '1 ×' : `${ratio.toFixed(2)} ×`;
}

function caption({ date, kernel, node, cpu, cores, rounds, seconds, nic }) {
  const wire = nic === 'cut' ? 'segments cut before the wire' : 'super-packets cross it whole';
  return [
    `Two VMs (network namespaces) that share ${cores} cores (${cpu}), joined by a veth of MTU 1500; ${wire}.`,
    `${rounds > 1 ? `Medians of ${rounds} rounds, ` : ''}${seconds} s a test. ${date.slice(0, 10)}, Linux ${kernel}, Node ${node}. npm run bench:overlay`,
  ];
}
