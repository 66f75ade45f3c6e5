/** Bars of what peers measured, in panels, as SVG. It brings its own background, so that it can be read on any page. */
import { escaped, line, px, STYLE, text } from './svg.mjs';

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
const FOOT_LINE = 17;

/**
 * A panel has a `title`, a `unit`, `digits`, and bars: each its `label`, its `kind` in style, its `figure` with median, least and
 * most, and the words of its `ratio`. The bar with `isReference` gets a line from top to bottom.
 */
export function barChart({ title, note, panels, caption }) {
  const heightOf = ({ bars }) => PANEL_TOP + bars.length * ROW;
  const bottom = panels.reduce((top, panel) => top + heightOf(panel) + PANEL_GAP, HEAD) - PANEL_GAP;
  const height = bottom + FOOT + Math.max(0, caption.length - 2) * FOOT_LINE;
  let top = HEAD;
  const drawn = panels.map((panel) => {
    const svg = panelOf(panel, top);
    top += heightOf(panel) + PANEL_GAP;
    return svg;
  });
  const description = panels.map(({ title: what, unit, digits, bars }) => {
    const parts = bars.map(({ label, figure }) => `${label} ${figure.median.toFixed(digits)}`);
    return `${what}, ${unit}: ${parts.join(', ')}.`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>${escaped(title)}</title>\n<desc>${escaped(description.join(' '))}</desc>\n<style>${STYLE}</style>`,
    `<rect class="card" x=".5" y=".5" width="${WIDTH - 1}" height="${height - 1}" rx="8"/>`,
    text(MARGIN, 38, 'title', title),
    text(MARGIN, 60, 'quiet', note),
    ...drawn,
    ...caption.map((words, i) => text(MARGIN, bottom + 36 + i * FOOT_LINE, 'quiet', words)),
    '</svg>\n',
  ].join('\n');
}

function panelOf({ title, unit, digits, bars }, top) {
  const most = Math.max(...bars.map(({ figure }) => figure.most));
  const scale = (value) => BARS_LEFT + (value / most) * BARS_WIDTH;
  const first = top + PANEL_TOP;
  const bottom = first + bars.length * ROW - (ROW - BAR);
  const parts = [
    `<text x="${MARGIN}" y="${top + 24}" class="panel">${title} <tspan class="quiet" font-weight="400">${unit}</tspan></text>`,
  ];
  // Behind the bars.
  const reference = bars.find(({ isReference }) => isReference)?.figure;
  if (reference) parts.push(line('reference', scale(reference.median), first - 5, scale(reference.median), bottom + 5));
  for (const [i, { label, kind, isStrong, figure, ratio }] of bars.entries()) {
    const y = first + i * ROW;
    const strong = isStrong ? ' strong' : '';
    parts.push(
      `<text x="${BARS_LEFT - 10}" y="${y + 13.5}" class="label${strong}" text-anchor="end">${escaped(label)}</text>`,
      `<rect class="${kind}" x="${BARS_LEFT}" y="${y}" width="${px(scale(figure.median) - BARS_LEFT)}" height="${BAR}" rx="2"/>`,
      line('range', scale(figure.least), y + BAR / 2, scale(figure.most), y + BAR / 2),
      `<text x="${px(scale(figure.most) + 8)}" y="${y + 13.5}" class="value${strong}">${figure.median.toFixed(digits)}` +
        `<tspan class="quiet" font-weight="400" dx="8">${ratio}</tspan></text>`,
    );
  }
  parts.push(line('axis', BARS_LEFT, first - 5, BARS_LEFT, bottom + 5));
  return parts.join('\n');
}
