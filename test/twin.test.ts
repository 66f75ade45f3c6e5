/** What only the TypeScript twin has: the checksum that adds words is the plain sum. All else of it, the suites of both twins test. */
import { expect, test } from 'vitest';
import { sum } from '../src/core/typescript/checksum.ts';
import * as wire from './packet.ts';

test('the checksum is the plain sum at every length and alignment', () => {
  const bytes = new Uint8Array(9008).map((_, i) => (i * 2654435761) >>> 13);
  const memory = new DataView(bytes.buffer);
  for (let length = 0; length <= 9001; length++) {
    const start = length % 7;
    expect(sum(memory, start, length)).toBe(wire.sum(bytes.subarray(start, start + length)));
  }
  const ones = new Uint8Array(65535).fill(0xff);
  expect(sum(new DataView(ones.buffer), 0, ones.length)).toBe(wire.sum(ones));
});
