import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { sha256 } from '../src/containers/sha256.ts';

test('is what node:crypto has', () => {
  for (let length = 0; length < 300; length++) compare('x'.repeat(length));
  fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 300 }), compare));
});

function compare(text: string): void {
  expect(sha256(text).toString('hex')).toBe(createHash('sha256').update(text).digest('hex'));
}
