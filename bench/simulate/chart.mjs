/** What a packet costs, and what a VM keeps, as VMs grow: two bar charts in one SVG. */
import { escaped, line, px, STYLE, text } from '../svg.mjs';
import { number } from './report.mjs';

// px
const WIDTH = 840;
const MARGIN = 28;
const BARS_LEFT = 130;
const PANEL = 410;
const BARS_WIDTH = 170;
const BAR = 20;
const ROW = 30;
const HEAD = 128;
const FOOT = 62;

export function chart(runs, options, machine) {
  const bottom = HEAD + runs.length * ROW;
  const height = bottom + FOOT;
  const title = 'Simulated meshes, as their VMs grow';
  const sent = [...new Set(runs.map(({ packets }) => number(packets)))].join(', ');
  const broken = runs.some(({ failures }) => failures.length > 0);
  const outcome = broken
    ? 'Invariants are BROKEN: the figures mean nothing.'
    : 'Every packet was delivered exactly once to the right container, or is counted under one reason.';
  const described = runs.map(
    ({ vms, cpu, state }) => `${number(vms)} VMs: ${number(cpu)} ns a packet, ${number(state)} bytes a VM.`,
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>${title}</title>\n<desc>${escaped(described.join(' '))}</desc>\n<style>${STYLE}</style>`,
    `<rect class="card" x=".5" y=".5" width="${WIDTH - 1}" height="${height - 1}" rx="8"/>`,
    text(MARGIN, 38, 'title', title),
    text(
      MARGIN,
      60,
      'quiet',
      `${sent} packets, ${options.containers} containers a VM, core ${options.core}. ${outcome}`,
    ),
    text(BARS_LEFT, HEAD - 24, 'panel', 'CPU time a packet, ns'),
    text(BARS_LEFT + PANEL, HEAD - 24, 'panel', 'state kept of each VM, bytes'),
    ...runs.map(({ vms }, i) => label(`${number(vms)} VM${vms === 1 ? '' : 's'}`, HEAD + i * ROW)),
    ...bars(
      runs.map(({ cpu }) => cpu),
      BARS_LEFT,
      ({ memory }) => `${number(memory / 1e6)} MB in all`,
      runs,
    ),
    ...bars(
      runs.map(({ state }) => state),
      BARS_LEFT + PANEL,
      ({ tunnels }) => `${number(tunnels)} tunnels`,
      runs,
    ),
    line('axis', BARS_LEFT, HEAD - 8, BARS_LEFT, bottom),
    line('axis', BARS_LEFT + PANEL, HEAD - 8, BARS_LEFT + PANEL, bottom),
    text(MARGIN, bottom + 34, 'quiet', `${machine}. npm run simulate -- --seed ${options.seed}`),
    '</svg>\n',
  ].join('\n');
}

function label(words, top) {
  return `<text x="${BARS_LEFT - 10}" y="${top + 14.5}" class="label" text-anchor="end">${escaped(words)}</text>`;
}

function bars(values, left, noteOf, runs) {
  const most = Math.max(...values);
  return values.map((value, i) => {
    const [top, width] = [HEAD + i * ROW, (value / most) * BARS_WIDTH];
    return [
      `<rect class="inlay" x="${left}" y="${top}" width="${px(width)}" height="${BAR}" rx="2"/>`,
      `<text x="${px(left + width + 8)}" y="${top + 14.5}" class="value strong">${number(value)}<tspan class="quiet" font-weight="400" dx="8">${noteOf(runs[i])}</tspan></text>`,
    ].join('\n');
  });
}
