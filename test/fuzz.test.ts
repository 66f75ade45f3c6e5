/** The fuzzer sees what is wrong with a core: some of what test/heavy/fuzz.test.ts has. */
import { expect, test } from 'vitest';
import { BREAKS, expectFound } from './fuzz/breaks.ts';

test.each(['reads the byte before a packet', 'counts one too many, as its twin does'])(
  'a core that %s is found, and what shows it is small',
  (what) => {
    const found = BREAKS.filter((each) => each.what === what);
    expect(found.length).toBe(1);
    found.forEach(expectFound);
  },
);
