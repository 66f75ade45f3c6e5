/** What the receiving VM's kernel merges arrives as what it was. test/heavy/segment-sizes.test.ts tries every combination. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { IN_LISTS, MergingVms, NEEDED, NIC_LIKE, ON, UDP_TOO, WITHOUT_BPF } from './merging.ts';
import { missing, skip } from './require.ts';

/** The container whose MTU is that of the documentation. */
const USUAL = 3;

describe.skipIf(skip('segment sizes', await missing(...NEEDED)))('segment sizes', () => {
  let vms: MergingVms;
  beforeEach(async () => {
    vms = await MergingVms.open();
  }, 60_000);
  afterEach(async () => {
    await vms?.down();
    await vms?.close();
  });

  test.each([
    ['one queue', []],
    ['two queues, a key, and GRE checksums', ['--queues', '2', '--key', '7', '--gre-checksum', 'on']],
  ])('where the kernel tells them: %s', { timeout: 120_000 }, async (_, flags) => {
    const all = await vms.up(9001, flags);
    expect(all.map(({ segmentSizes }) => segmentSizes)).toEqual(['known', 'known']);
    for (const how of [ON, NIC_LIKE]) expect(await vms.collapses(how, 9001 - 32)).toEqual([]);
    for (const how of [UDP_TOO, IN_LISTS]) {
      const before = (await vms.status('b')).inbound;
      await vms.merge(how);
      for (const length of [1000, 100]) {
        expect({ how, lengths: await vms.datagrams(USUAL, length, 20, 20) }).toEqual({
          how,
          lengths: { [length]: 400 },
        });
      }
      const { packets, drops } = (await vms.status('b')).inbound;
      expect(drops).toEqual({});
      // They count as what they were; TCP asks how many came.
      expect(packets - before.packets).toBeGreaterThanOrEqual(800);
    }
  });

  test('where the kernel does not, as CAP_BPF is missing', { timeout: 120_000 }, async () => {
    const [status] = await vms.up(1500, [], WITHOUT_BPF);
    expect(status).toMatchObject({
      segmentSizes: 'guarded',
      segmentSizesObstacle: expect.stringMatching(/^CAP_BPF is missing, .*552 bytes.*ethtool -K/),
    });
    for (const how of [ON, NIC_LIKE]) expect(await vms.collapses(how, 1500 - 24)).toEqual([]);
    // Long merged UDP is dropped and counted, never delivered as one datagram.
    await vms.merge(UDP_TOO);
    const lengths = await vms.datagrams(USUAL, 1400, 20, 20);
    expect(Object.keys(lengths).filter((length) => length !== '1400')).toEqual([]);
    expect((await vms.status('b')).inbound.drops['merged']).toBeGreaterThan(0);
  });
});
