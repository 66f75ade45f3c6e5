/** What the linux engine makes of an errno of sendmmsg(2). */
import { expect, test } from 'vitest';
import { refusalOf } from '../src/dataplane/wasm/linux/refusal.ts';

const [EIO, EINVAL, EMSGSIZE, ENOBUFS, ENETUNREACH] = [5, 22, 90, 105, 101];

test.each([
  ['EMSGSIZE', EMSGSIZE, false, 'too-long'],
  ['EMSGSIZE of several datagrams', EMSGSIZE, true, 'too-long'],
  ['EINVAL', EINVAL, false, 'other'],
  ['EINVAL of several datagrams', EINVAL, true, 'too-long'],
  ['EIO', EIO, false, 'no-segmentation'],
  ['EIO of several datagrams', EIO, true, 'no-segmentation'],
  ['ENOBUFS', ENOBUFS, true, 'other'],
  ['ENETUNREACH', ENETUNREACH, true, 'other'],
])('%s', (_, errno, hasSegments, expected) => {
  expect(refusalOf(errno, hasSegments)).toBe(expected);
});
