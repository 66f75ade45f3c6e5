/**
 * TCP through every pair of container MTU and underlay MTU, however the receiving side merges: the kernel of a VM forwards to containers only what has
 * segments that fit them, and TCP all but stops where it cannot.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { IN_LISTS, MergingVms, NEEDED, NIC_LIKE, OFF, ON, WITHOUT_BPF } from '../net/merging.ts';
import { missing, skip } from '../net/require.ts';

/** Bytes in the outer headers, flags of `inlay up`, and whether the sizes of merged packets are known. */
const PLANES = [
  { plane: 'wasm, GRE cut by the kernel', overhead: 24, flags: [], sizes: 'known' },
  { plane: 'wasm, GRE cut by the core', overhead: 24, flags: ['--gre-segmentation', 'core'], sizes: 'known' },
  { plane: 'wasm, GRE-in-UDP', overhead: 32, flags: ['--encapsulation', 'gre-udp'], sizes: 'known' },
  { plane: 'wasm, GRE, sizes unknown', overhead: 24, flags: [], sizes: 'guarded' },
  {
    plane: 'kernel, vxlan',
    overhead: 50,
    flags: ['--dataplane', 'kernel', '--encapsulation', 'vxlan'],
    sizes: undefined,
  },
];

describe.skipIf(skip('segment sizes', await missing(...NEEDED)))('segment sizes', () => {
  let vms: MergingVms;
  beforeAll(async () => {
    vms = await MergingVms.open();
  }, 60_000);
  afterAll(() => vms?.close());

  describe.each(PLANES)('$plane', ({ overhead, flags, sizes }) => {
    test.each([9001, 1500])('over an underlay with MTU %i', { timeout: 300_000 }, async (underlay) => {
      try {
        const all = await vms.up(underlay, flags, sizes === 'guarded' ? WITHOUT_BPF : []);
        expect(all.map(({ segmentSizes }) => segmentSizes)).toEqual([sizes, sizes]);
        // A list has nothing that tells it from a broken packet, but for its size.
        const ways = sizes === 'guarded' ? [ON, OFF, NIC_LIKE] : [ON, OFF, NIC_LIKE, IN_LISTS];
        const found: unknown[] = [];
        for (const how of ways) found.push(...(await vms.collapses(how, underlay - overhead)));
        expect(found).toEqual([]);
      } finally {
        await vms.down();
      }
    });
  });
});
