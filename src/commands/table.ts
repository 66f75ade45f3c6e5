/** Aligned tables for terminals. */
import { count } from './units.ts';

/**
 * Rows aligned in columns. A column that has numbers is aligned to the right, its head too; so are those in
 * `right`.
 */
export function table(rows: readonly (readonly (string | number)[])[], right: readonly number[] = []): string {
  const widths: number[] = [];
  const isRight: boolean[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) {
      widths[i] = Math.max(widths[i] ?? 0, textOf(cell).length);
      isRight[i] ||= typeof cell === 'number' || right.includes(i);
    }
  }
  const line = (row: readonly (string | number)[]) =>
    row.map((cell, i) => (isRight[i] ? textOf(cell).padStart(widths[i] ?? 0) : textOf(cell).padEnd(widths[i] ?? 0)));
  return rows.map((row) => line(row).join('  ').trimEnd()).join('\n');
}

function textOf(cell: string | number): string {
  return typeof cell === 'number' ? count(cell) : cell;
}
