/** Text of the page can be read in both themes: contrast as WCAG 2.2 computes it (1.4.3, 1.4.11). */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';

const css = readFileSync(new URL('../../playground/colours.css', import.meta.url), 'utf8');
const colours = new Map(
  [...css.matchAll(/--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)/g)].map(([, name, light, dark]) => [
    name as string,
    [light as string, dark as string] as const,
  ]),
);

/** Relative luminance. */
function luminance(colour: string): number {
  const [r = 0, g = 0, b = 0] = [1, 3, 5].map((at) => {
    const c = Number.parseInt(colour.slice(at, at + 2), 16) / 255;
    return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function contrast(a: string, b: string): number {
  const [light = 0, dark = 0] = [luminance(a), luminance(b)].sort((x, y) => y - x);
  return (light + 0.05) / (dark + 0.05);
}

const KINDS = ['prefix', 'vm', 'container', 'gre', 'inner'];
const TEXT: [string, string][] = [
  ...['paper', 'ground', 'sunk', 'good-ground', 'bad-ground', 'warn-ground'].map((ground): [string, string] => [
    'ink',
    ground,
  ]),
  ...['paper', 'ground', ...KINDS.map((kind) => `${kind}-ground`)].map((ground): [string, string] => ['soft', ground]),
  ...KINDS.flatMap((kind): [string, string][] => [
    [kind, `${kind}-ground`],
    [kind, `${kind}-odd`],
    ['paper', kind],
    ['bad', `${kind}-ground`],
    ['ink', `${kind}-ground`],
  ]),
  ...['good', 'bad', 'warn'].map((mood): [string, string] => [mood, `${mood}-ground`]),
  ...([
    ['on-accent', 'accent'],
    ['accent', 'paper'],
    ['good', 'paper'],
    ['bad', 'paper'],
    ['vm', 'paper'],
    ['paper', 'ink'],
  ] as [string, string][]),
];
/** Edges of fields, and what shows the focus. */
const SHAPES: [string, string][] = [
  ['edge', 'paper'],
  ['edge', 'ground'],
  ['accent', 'ground'],
  ['accent', 'paper'],
];

test('the colours are found', () => {
  expect(colours.size).toBeGreaterThan(25);
});

describe.each([
  ['light', 0],
  ['dark', 1],
] as const)('%s', (_, theme) => {
  const between = ([a, b]: [string, string]) => contrast(colours.get(a)?.[theme] ?? '', colours.get(b)?.[theme] ?? '');

  test('text has a contrast of at least 4.5', () => {
    const weak = TEXT.filter((pair) => !(between(pair) >= 4.5)).map(
      (pair) => `${pair.join(' on ')}: ${between(pair).toFixed(2)}`,
    );
    expect(weak).toEqual([]);
  });

  test('edges and focus have a contrast of at least 3', () => {
    expect(SHAPES.filter((pair) => !(between(pair) >= 3))).toEqual([]);
  });
});
