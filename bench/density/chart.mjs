/** What attaching takes, by how many are there, as a bar chart in SVG. */
import { escaped, line, px, STYLE, text } from '../svg.mjs';
import { QUIET, quantileOf, ratio } from './report.mjs';

// px
const WIDTH = 840;
const MARGIN = 28;
const BARS_LEFT = 264;
const BARS_WIDTH = 426;
const BAR = 18;
const ROW = 23;
const GROUP = 2 * ROW + 14;
const HEAD = 92;
const FOOT = 84;

export function chart({ levels, seconds, options, background, cpu, cores, date, kernel, node }) {
  const busy = background > QUIET ? `Other programs used ${background.toFixed(1)} cores: measure again.` : '';
  const bottom = HEAD + levels.length * GROUP;
  const height = bottom + FOOT;
  const most = Math.max(
    ...levels.flatMap(({ attach, floorAttach }) => [attach, floorAttach].map((v) => quantileOf(v, 0.95))),
  );
  const scale = (value) => BARS_LEFT + (value / most) * BARS_WIDTH;
  const title = 'Attaching one more container';
  const description = levels.map(
    ({ present, attach, floorAttach }) =>
      `${present} present: inlay ${quantileOf(attach, 0.5).toFixed(2)}, kernel alone ${quantileOf(floorAttach, 0.5).toFixed(2)} ms.`,
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>${title}</title>\n<desc>${escaped(description.join(' '))}</desc>\n<style>${STYLE}</style>`,
    `<rect class="card" x=".5" y=".5" width="${WIDTH - 1}" height="${height - 1}" rx="8"/>`,
    text(MARGIN, 38, 'title', title),
    text(
      MARGIN,
      60,
      'quiet',
      'ms, less is better. Median; a thin line leads to the 95th percentile. × is the ratio of the 95th percentiles.',
    ),
    ...levels.flatMap((level, i) => group(level, HEAD + i * GROUP, scale)),
    line('axis', BARS_LEFT, HEAD - 5, BARS_LEFT, bottom - 9),
    text(
      MARGIN,
      bottom + 28,
      'quiet',
      `Kernel alone: the same messages written beforehand, in turns. All ${options.containers} with their namespaces: ${seconds.toFixed(1)} s.`,
    ),
    text(
      MARGIN,
      bottom + 45,
      'quiet',
      `${cores} cores (${cpu}). ${date.slice(0, 10)}, Linux ${kernel}, Node ${node}. npm run bench:density`,
    ),
    text(MARGIN, bottom + 62, 'quiet', busy),
    '</svg>\n',
  ].join('\n');
}

function group({ present, attach, floorAttach }, top, scale) {
  const rows = [
    { kind: 'none', label: `${present.toLocaleString('en')} present: kernel alone`, values: floorAttach, note: '1 ×' },
    { kind: 'inlay', label: 'inlay', values: attach, note: `${ratio(attach, floorAttach, 0.95).toFixed(2)} ×` },
  ];
  return rows.map(({ kind, label, values, note }, i) => {
    const y = top + i * ROW;
    const [middle, high] = [0.5, 0.95].map((part) => quantileOf(values, part));
    const strong = kind === 'inlay' ? ' strong' : '';
    return [
      `<text x="${BARS_LEFT - 10}" y="${y + 13.5}" class="label${strong}" text-anchor="end">${escaped(label)}</text>`,
      `<rect class="${kind}" x="${BARS_LEFT}" y="${y}" width="${px(scale(middle) - BARS_LEFT)}" height="${BAR}" rx="2"/>`,
      line('range', scale(middle), y + BAR / 2, scale(high), y + BAR / 2),
      `<text x="${px(scale(high) + 8)}" y="${y + 13.5}" class="value${strong}">${middle.toFixed(2)}<tspan class="quiet" font-weight="400" dx="8">${note}</tspan></text>`,
    ].join('\n');
  });
}
