/** What a packet costs, and how much memory the mesh takes, as VMs grow: two bar charts in one SVG. */
import { escaped, line, px, STYLE, text } from '../svg.mjs';
import { number } from './report.mjs';

// px
const WIDTH = 840;
const MARGIN = 28;
const BARS_LEFT = 130;
const MEMORY_LEFT = 510;
const BARS_WIDTH = 150;
const BAR = 20;
const ROW = 30;
const HEAD = 136;
const FOOT = 80;

export function chart(runs, options, machine) {
  const bottom = HEAD + runs.length * ROW;
  const height = bottom + FOOT;
  const title = 'Simulated meshes, as their VMs grow';
  const sent = [...new Set(runs.map(({ packets }) => number(packets)))].join(', ');
  const outcome = runs.some(({ failures }) => failures.length > 0)
    ? 'Invariants are BROKEN: the figures mean nothing.'
    : 'Every packet was delivered exactly once to the right container, or is counted under one reason.';
  const sizes = `${sent} packets in each mesh, ${options.containers} containers a VM, core ${options.core}.`;
  const described = runs.map(
    ({ vms, cpu, memory }) => `${number(vms)} VMs: ${number(cpu)} ns a packet, ${number(memory / 1e6)} MB.`,
  );
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>${title}</title>\n<desc>${escaped(described.join(' '))}</desc>\n<style>${STYLE}</style>`,
    `<rect class="card" x=".5" y=".5" width="${WIDTH - 1}" height="${height - 1}" rx="8"/>`,
    text(MARGIN, 38, 'title', title),
    text(MARGIN, 60, 'quiet', outcome),
    text(MARGIN, 78, 'quiet', sizes),
    text(BARS_LEFT, HEAD - 20, 'panel', 'CPU time a packet, ns'),
    text(MEMORY_LEFT, HEAD - 20, 'panel', 'memory of the process, MB'),
    ...runs.map(({ vms }, i) => label(`${number(vms)} VM${vms === 1 ? '' : 's'}`, HEAD + i * ROW)),
    ...bars(runs, {
      left: BARS_LEFT,
      amountOf: ({ cpu }) => cpu,
      noteOf: ({ batch }) => `${number(batch)} in a VM's turn`,
    }),
    ...bars(runs, {
      left: MEMORY_LEFT,
      amountOf: ({ memory }) => memory / 1e6,
      noteOf: ({ state }) => `${number(state)} bytes a VM`,
    }),
    line('axis', BARS_LEFT, HEAD - 8, BARS_LEFT, bottom),
    line('axis', MEMORY_LEFT, HEAD - 8, MEMORY_LEFT, bottom),
    text(MARGIN, bottom + 34, 'quiet', `${machine}.`),
    text(MARGIN, bottom + 52, 'quiet', command()),
    '</svg>\n',
  ].join('\n');
}

/** The command that this process was started with, but for where the chart goes. */
function command() {
  const given = process.argv
    .slice(2)
    .join(' ')
    .replace(/--chart[ =]\S+/, '');
  return `npm run simulate -- ${given}`.trim().replaceAll('  ', ' ');
}

function label(words, top) {
  return `<text x="${BARS_LEFT - 10}" y="${top + 14.5}" class="label" text-anchor="end">${escaped(words)}</text>`;
}

function bars(runs, { left, amountOf, noteOf }) {
  const most = Math.max(...runs.map(amountOf));
  return runs.map((run, i) => {
    const [top, width] = [HEAD + i * ROW, (amountOf(run) / most) * BARS_WIDTH];
    return [
      `<rect class="inlay" x="${left}" y="${top}" width="${px(width)}" height="${BAR}" rx="2"/>`,
      `<text x="${px(left + width + 8)}" y="${top + 14.5}" class="value strong">${number(amountOf(run))}<tspan class="quiet" font-weight="400" dx="8">${escaped(noteOf(run))}</tspan></text>`,
    ].join('\n');
  });
}
