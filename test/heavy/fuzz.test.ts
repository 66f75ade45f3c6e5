/** The fuzzer sees all that can be wrong with a core. */
import { test } from 'vitest';
import { BREAKS, expectFound } from '../fuzz/breaks.ts';

test.each(BREAKS)('a core that $what is found, and what shows it is small', { timeout: 300_000 }, expectFound);
