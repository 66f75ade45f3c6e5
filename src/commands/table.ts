/** Aligned tables for terminals. */
import { count } from './units.ts';

/** Rows aligned in columns. A column that has numbers is aligned to the right, its head too. */
export function table(rows: readonly (readonly (string | number)[])[]): string {
  const widths: number[] = [];
  const hasNumbers: boolean[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) {
      widths[i] = Math.max(widths[i] ?? 0, textOf(cell).length);
      hasNumbers[i] ||= typeof cell === 'number';
    }
  }
  const line = (row: readonly (string | number)[]) =>
    row.map((cell, i) => (hasNumbers[i] ? textOf(cell).padStart(widths[i] ?? 0) : textOf(cell).padEnd(widths[i] ?? 0)));
  return rows.map((row) => line(row).join('  ').trimEnd()).join('\n');
}

function textOf(cell: string | number): string {
  return typeof cell === 'number' ? count(cell) : cell;
}
