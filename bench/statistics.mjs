/** What both benchmarks make of repeated measurements: medians, ranges and Markdown tables. */

/** The middle of the values, or the mean of the two in the middle. */
export function median(values) {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length / 2;
  return sorted.length % 2 ? sorted[Math.floor(middle)] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** The value below which `part` (0..1) of the values lie. */
export function quantile(values, part) {
  return values.toSorted((a, b) => a - b)[Math.round((values.length - 1) * part)];
}

/** How far the middle half of the values lies apart, in per cent of their median. */
export function spread(values) {
  return ((quantile(values, 0.75) - quantile(values, 0.25)) / median(values)) * 100;
}

/** A Markdown table whose columns line up; the first row is the head, the first column is text. */
export function table(rows) {
  const widths = rows[0].map((_, column) => Math.max(3, ...rows.map((row) => row[column].length)));
  const line = (row) => `| ${row.map((cell, i) => cell[i ? 'padStart' : 'padEnd'](widths[i])).join(' | ')} |\n`;
  const rule = `|${widths.map((width, i) => (i ? `${'-'.repeat(width + 1)}:` : '-'.repeat(width + 2))).join('|')}|\n`;
  return line(rows[0]) + rule + rows.slice(1).map(line).join('');
}
