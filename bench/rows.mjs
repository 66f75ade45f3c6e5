/** What peers that took turns measured: a row each, with its `round`, its `peer`, and its figures or the `error` that it failed with. */
import { median } from './statistics.mjs';

/** The names of the peers, in the order in which they were measured. */
export function namesOf(rows) {
  return [...new Set(rows.map(({ peer }) => peer))];
}

/** Median and range of one peer's figure over the rounds that it got through; undefined if there is none. */
export function figure(rows, name, key) {
  return rangeOf(throughRows(rows, name, key).map((row) => row[key]));
}

/**
 * The same of its ratio to another peer's. The machine's mood changes from round to round: only what was measured in
 * the same one is compared.
 */
export function ratio(rows, name, key, reference) {
  const others = new Map(throughRows(rows, reference, key).map((row) => [row.round, row]));
  const own = throughRows(rows, name, key).filter(({ round }) => others.has(round));
  return rangeOf(own.map((row) => row[key] / others.get(row.round)[key]));
}

export function rangeOf(values) {
  if (values.length === 0) return undefined;
  return { median: median(values), least: Math.min(...values), most: Math.max(...values) };
}

/** `5.1 [4.0..6.2]`, and without the range where there is none. */
export function rangeText({ median: middle, least, most }, digits, rounds) {
  const range = rounds > 1 ? ` [${least.toFixed(digits)}..${most.toFixed(digits)}]` : '';
  return `${middle.toFixed(digits)}${range}`;
}

/** Those of one peer that have the figure. */
function throughRows(rows, name, key) {
  return rows.filter((row) => row.peer === name && !row.error && row[key] !== undefined);
}
