/** Shares: of a batch that is too much, each source gets as much as any other, or as it wants. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { abi, type PacketCore } from '../src/core/index.ts';
import { cores, putFrame } from './core.ts';
import * as wire from './packet.ts';
import { runs } from './runs.ts';
import { A, B, coreOf, datagramOf, VIRTIO } from './vms.ts';

const SLICE = 0x0a102000;
const TO = 0x0a102107;
const OVER = abi.DROP_OVER_SHARE;
const plain = wire.ipv4Packet;

/** Puts a packet of each of these indexes into the slots, in order. */
function put(core: PacketCore, sources: readonly number[]): void {
  for (const [i, index] of sources.entries()) core.put(i, plain(SLICE + index, TO, 8));
}

/** Shares and encapsulates what was put; answers the verdicts, in order. */
function handle(core: PacketCore, count: number, divisor: number): number[] {
  core.share('outbound', count, divisor);
  for (let next = 0; next < count; ) next = core.encapsulate(next, count, 0);
  return Array.from({ length: count }, (_, i) => core.verdict(i));
}

const times = <T>(n: number, value: T): T[] => Array<T>(n).fill(value);
const countOf = <T>(all: readonly T[], wanted: T) => all.filter((each) => each === wanted).length;

describe.each(cores)('$name', ({ make }) => {
  test('one floods, the other loses nothing; the last packets are dropped, and counted', () => {
    const core = coreOf(make, {});
    const sources = [...times(60, 5), 6, ...times(40, 5), 6, ...times(26, 5)];
    put(core, sources);
    expect(core.share('outbound', 128, 2)).toBe(2);
    expect(core.encapsulate(0, 128, 0)).toBe(128);
    const verdicts = sources.map((_, i) => core.verdict(i));
    const flood = verdicts.filter((_, i) => sources[i] === 5);
    expect(flood).toEqual([...times(62, 0), ...times(64, OVER)]);
    expect(verdicts.filter((_, i) => sources[i] === 6)).toEqual([0, 0]);
    const { received, forwarded, drops } = core.counters('outbound');
    expect([received, forwarded, drops[-OVER]]).toEqual([128, 64, 64]);
    // It is about this batch alone.
    expect(core.encapsulate(0, 128, 0)).toBe(128);
    expect(core.dropsFor('outbound', OVER)).toBe(64);
  });

  test('who has had less gets more, up to a window', () => {
    const core = coreOf(make, {});
    put(core, times(128, 5));
    for (let i = 0; i < 100; i++) handle(core, 128, 2);
    // 6,400 ahead of the other, of which the window counts.
    const both = [...times(64, 5), ...times(64, 6)];
    put(core, both);
    let batches = 0;
    let lost = 0;
    for (; lost === 0; batches++) lost = countOf(handle(core, 128, 2).slice(64), OVER);
    expect(batches).toBeGreaterThanOrEqual(abi.SHARE_WINDOW / 64);
    expect(batches).toBeLessThanOrEqual(abi.SHARE_WINDOW / 64 + 2);
    handle(core, 128, 2);
    const verdicts = handle(core, 128, 2);
    expect([countOf(verdicts.slice(0, 64), OVER), countOf(verdicts.slice(64), OVER)]).toEqual([32, 32]);
  });

  test('little is never cut down, and each source of a batch gets a packet', () => {
    const core = coreOf(make, {});
    put(core, times(abi.LEAST_WORK, 5));
    expect(countOf(handle(core, abi.LEAST_WORK, 16), OVER)).toBe(0);
    const all = Array.from({ length: 128 }, (_, i) => 2 + (i % 100));
    put(core, all);
    const verdicts = handle(core, 128, 16);
    expect(countOf(verdicts, OVER)).toBe(28);
    expect(verdicts.slice(0, 100)).toEqual(times(100, 0));
  });

  test('sources that are nobody, or another VM, take nothing from anybody', () => {
    const core = coreOf(make, {});
    const packets = [...times(100, plain(0x0a10225b, TO, 8)), ...times(20, plain(SLICE + 5, TO, 8)), new Uint8Array(9)];
    for (const [i, packet] of packets.entries()) core.put(i, packet);
    expect(core.share('outbound', packets.length, 2)).toBe(1);
    core.encapsulate(0, packets.length, 0);
    expect(core.dropsFor('outbound', OVER)).toBe(0);
  });

  test('long packets and many segments are more work', () => {
    const core = coreOf(make, { offloads: VIRTIO });
    const long = wire.superFrame({ source: SLICE + 5, payload: wire.payloadOf(60_000) }, 1400);
    for (let i = 0; i < 40; i++) putFrame(core, i, long);
    for (let i = 40; i < 80; i++) putFrame(core, i, wire.frameOf(plain(SLICE + 6, TO, 8)));
    // 60 kB are 2 each, 80 in all. With 40 small ones that is 120, of which 32 go on, 16 of each source.
    const expected = [...times(8, 0), ...times(32, OVER), ...times(16, 0), ...times(24, OVER)];
    expect(handle(core, 80, 4)).toEqual(expected);
  });

  test('a call that ends early goes on with what is left', () => {
    const core = coreOf(make, { offloads: VIRTIO, encapsulation: 'gre-udp' });
    const long = wire.superFrame({ source: SLICE + 5, payload: wire.payloadOf(128 * 128) }, 128);
    for (let i = 0; i < 24; i++) putFrame(core, i, long);
    core.share('outbound', 24, 2);
    const ends: number[] = [];
    for (let next = 0; next < 24; ends.push(next)) next = core.encapsulate(next, 24, 0);
    expect(ends.length).toBeGreaterThan(1);
    // 1 and, for 128 segments, 2 each; 36 of 72.
    expect(times(24, 0).map((_, i) => core.verdict(i))).toEqual([...times(12, 0), ...times(12, OVER)]);
  });

  test('who sends what nobody gets takes its part, too', () => {
    const core = coreOf(make, {});
    const nobody = 0x0a102100; // Index 0 of a slice.
    for (let round = 0; round < 20; round++) {
      for (let i = 0; i < 100; i++) core.put(i, plain(SLICE + 5, nobody, 8));
      for (let i = 100; i < 110; i++) core.put(i, plain(SLICE + 6, TO, 8));
      const verdicts = handle(core, 110, 4);
      expect(verdicts.slice(100)).toEqual(times(10, 0));
      expect(countOf(verdicts.slice(0, 100), OVER)).toBeGreaterThanOrEqual(60);
    }
  });

  test('inbound, each datagram of a group counts for its own source', () => {
    const core = coreOf(make, { local: B });
    const [flood, other] = [plain(SLICE + 5, TO, 8), plain(SLICE + 6, TO, 8)].map(datagramOf) as [
      Uint8Array,
      Uint8Array,
    ];
    const group = [...times(32, flood), other];
    const bytes = Buffer.concat(group);
    for (let i = 0; i < 4; i++) {
      core.bytes.set(bytes, core.slot(i));
      core.describeDatagrams(i, bytes.length, flood.length, A);
    }
    expect(core.share('inbound', 4, 2)).toBe(2);
    expect(core.decapsulate(0, 4, 0)).toBe(4);
    const { received, forwarded, drops } = core.counters('inbound');
    expect([received, forwarded, drops[-OVER]]).toEqual([132, 66, 66]);
    expect([core.verdict(0), core.verdict(3)]).toEqual([0, 0]);
    // As whole packets, of which one lies about its source.
    for (let i = 0; i < 64; i++) core.put(i, wire.grePacket(A, B, plain(SLICE + 5, TO, 8)));
    core.put(64, wire.grePacket(A, B, plain(0x0a102205, TO, 8)));
    core.put(65, wire.grePacket(A, B, plain(SLICE + 6, TO, 8)));
    expect(core.share('inbound', 66, 2)).toBe(2);
    core.decapsulate(0, 66, 0);
    expect([core.verdict(64), core.verdict(65)]).toEqual([abi.DROP_SPOOFED_SOURCE, 0]);
    expect(core.dropsFor('inbound', OVER)).toBe(66 + 33);
  });

  test('max-min fair, batch after batch', { timeout: 120_000 }, () => {
    const sources = fc.array(fc.tuple(fc.integer({ min: 2, max: 12 }), fc.integer({ min: 1, max: 64 })), {
      minLength: 1,
      maxLength: 12,
    });
    const batches = fc.array(fc.record({ sources, divisor: fc.integer({ min: 1, max: 20 }) }), { maxLength: 12 });
    fc.assert(
      fc.property(batches, (all) => {
        const core = coreOf(make, {});
        const heights = new Map<number, number>();
        for (const { sources, divisor } of all) {
          const order = interleaved(sources).slice(0, abi.BATCH_SIZE);
          put(core, order);
          const before = core.counters('outbound');
          const verdicts = handle(core, order.length, divisor);
          const met = [...new Set(order)];
          const budget = Math.max(Math.floor(order.length / divisor), abi.LEAST_WORK, met.length);
          const top = Math.max(0, ...heights.values());
          const got = (index: number) =>
            countOf(
              verdicts.filter((_, i) => order[i] === index),
              0,
            );
          const wants = (index: number) => countOf(order, index);
          const after = core.counters('outbound');
          expect(after.received - before.received).toBe(order.length);
          expect(after.received).toBe(after.forwarded + after.drops.reduce((sum, n) => sum + n, 0));
          if (order.length <= budget) {
            expect(countOf(verdicts, 0)).toBe(order.length);
            continue; // Where all is forwarded, nothing is held against anybody.
          }
          for (const index of met) {
            heights.set(index, Math.max(heights.get(index) ?? 0, top - abi.SHARE_WINDOW) + got(index));
            // First those that go on, then those that do not.
            const own = verdicts.filter((_, i) => order[i] === index);
            expect(own).toEqual([...times(got(index), 0), ...times(own.length - got(index), OVER)]);
          }
          const forwarded = countOf(verdicts, 0);
          expect(forwarded).toBeLessThanOrEqual(budget);
          expect(forwarded).toBeGreaterThan(budget - met.length);
          // Nobody who lost something stands below one who got something.
          const least = Math.min(
            ...met.filter((index) => got(index) < wants(index)).map((index) => heights.get(index) as number),
          );
          for (const index of met) if (got(index) > 0) expect(heights.get(index)).toBeLessThanOrEqual(least);
        }
      }),
      { numRuns: runs(100) },
    );
  });

  test('who wants no more than its share of a first batch loses nothing', () => {
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 20 }),
        fc.nat(16),
        (wants, divisor) => {
          const core = coreOf(make, {});
          const order = interleaved(wants.map((n, i) => [2 + i, n])).slice(0, abi.BATCH_SIZE);
          put(core, order);
          const verdicts = handle(core, order.length, divisor);
          const met = [...new Set(order)];
          const budget = Math.max(Math.floor(order.length / Math.max(divisor, 1)), abi.LEAST_WORK, met.length);
          for (const index of met) {
            if (countOf(order, index) > Math.floor(budget / met.length)) continue;
            expect(
              countOf(
                verdicts.filter((_, i) => order[i] === index),
                OVER,
              ),
            ).toBe(0);
          }
        },
      ),
      { numRuns: runs(50) },
    );
  });
});

/** So many of each index, dealt out in turn. */
function interleaved(sources: readonly (readonly [index: number, count: number])[]): number[] {
  const most = Math.max(...sources.map(([, count]) => count));
  return Array.from({ length: most }, (_, round) =>
    sources.filter(([, count]) => count > round).map(([index]) => index),
  ).flat();
}
