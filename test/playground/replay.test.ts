/** Captures go through one core, in order, a slice at a time. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Captured } from '../../playground/packet/pcap.ts';
import { Replay, slicesOf } from '../../playground/packet/replay.ts';
import { createCore, ipv4, mapping } from '../../src/core/index.ts';
import { packetOf } from '../packet.ts';

const captured = (bytes: Uint8Array<ArrayBuffer>, seconds = 0): Captured => ({ seconds, microseconds: 0, bytes });
const packets = Array.from({ length: 1000 }, (_, i) => captured(packetOf({}), i));
const config = {
  local: ipv4('192.168.16.32'),
  greSequence: true,
  mappings: [mapping('10.0.0.0/8', '192.168.0.0/16')],
};
const sequenceOf = (message: Uint8Array | undefined) => message && Buffer.from(message).readUInt32BE(24);

test('the packets come in slices, so that there are pauses between few of them, and few of their bytes', () => {
  const sizes = fc.array(fc.constantFrom(0, 20, 1500, 65_535), { maxLength: 2000, size: 'max' });
  fc.assert(
    fc.property(sizes, (lengths) => {
      const packets = lengths.map((length) => captured(new Uint8Array(length)));
      const slices = [...slicesOf(packets)];
      expect(slices.flatMap(({ slice }) => slice)).toEqual(packets);
      let next = 0;
      for (const { first, slice } of slices) {
        expect(first).toBe(next);
        next += slice.length;
        expect(slice.length).toBeLessThanOrEqual(256);
        expect(slice.reduce((sum, { bytes }) => sum + bytes.length, 0)).toBeLessThan((128 << 10) + 65_535);
      }
    }),
    { numRuns: 20 },
  );
});

test('the packets follow each other in one core, which each run begins anew', async () => {
  const replay = new Replay(await createCore());
  for (let run = 0; run < 2; run++) {
    const numbers: unknown[] = [];
    const isWhole = await replay.run(config, 'encapsulate', packets, ({ messages }, packet, i) =>
      numbers.push([packets.indexOf(packet), i, sequenceOf(messages[0])]),
    );
    expect(isWhole).toBe(true);
    expect(numbers).toEqual(packets.map((_, i) => [i, i, i]));
  }
});

test('between slices other things happen, and another run stops the one before', async () => {
  const replay = new Replay(await createCore());
  const many = Array.from({ length: 20 }, () => packets).flat();
  const taken = { first: 0, second: 0, third: 0 };
  const first = replay.run(config, 'encapsulate', packets, () => taken.first++);
  // One slice, and nothing more before whoever called is done.
  expect(taken.first).toBe(256);
  const second = replay.run(config, 'encapsulate', many, () => taken.second++);
  let between = many.length;
  setImmediate(() => {
    between = taken.second;
  });
  expect([await first, await second]).toEqual([false, true]);
  expect([taken.first, taken.second]).toEqual([256, many.length]);
  expect(between).toBeLessThan(many.length);
  const third = replay.run(config, 'encapsulate', packets, () => taken.third++);
  replay.stop();
  expect([await third, taken.third]).toEqual([false, 256]);
});

test('a capture without packets is done at once', async () => {
  const replay = new Replay(await createCore());
  expect(await replay.run(config, 'decapsulate', [], () => expect.unreachable())).toBe(true);
});
