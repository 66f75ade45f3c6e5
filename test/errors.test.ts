/** The names of error numbers. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { SystemError } from '../src/linux/system-error.ts';
import { skip } from './net/require.ts';

const codeOf = (errno: number) => new SystemError('read', errno, 'from a file').code;

describe('errno', () => {
  test.each([
    [1, 'EPERM'],
    [11, 'EAGAIN'],
    [15, 'ENOTBLK'],
    [44, 'ECHRNG'],
    [57, 'EBADSLT'],
    [70, 'ECOMM'],
    [77, 'EBADFD'],
    [83, 'ELIBEXEC'],
    [95, 'EOPNOTSUPP'],
    [109, 'ETOOMANYREFS'],
    [125, 'ECANCELED'],
    [133, 'EHWPOISON'],
    // Numbers that Linux leaves out.
    [41, 'errno 41'],
    [58, 'errno 58'],
    [134, 'errno 134'],
  ])('%d is %s', (errno, name) => {
    expect(codeOf(errno)).toBe(name);
  });

  const header = headerOf('/usr/include/asm-generic/errno-base.h') + headerOf('/usr/include/asm-generic/errno.h');
  const numbers = [...header.matchAll(/#define\s+(E\w+)\s+(\d+)/g)].map(([, name, number]) => [Number(number), name]);

  const noHeaders = numbers.length === 0 ? 'no headers of the kernel (apt-get install linux-libc-dev)' : undefined;
  test.skipIf(skip('error numbers', noHeaders))('all that the C library of this machine has', () => {
    expect(numbers.map(([number]) => [number, codeOf(number as number)])).toEqual(numbers);
  });
});

/** Empty where the kernel's headers are not installed. */
function headerOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
