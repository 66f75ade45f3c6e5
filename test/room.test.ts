/** What does not fit the tables is left for the next call; first, count and descriptors that say anything. */
import { describe, expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { cores, hex, messages, putFrame } from './core.ts';
import * as wire from './packet.ts';
import { coreOf, expectSums, send, VIRTIO } from './vms.ts';

/** As many segments as there can be. */
const BIGGEST = wire.superFrame({ payload: wire.payloadOf(65_495) }, abi.LEAST_TCP_SEGMENT);

describe.each(cores)('$name', ({ make }) => {
  test('what does not fit the tables is left for the next call: nothing is lost, nothing done twice', () => {
    const core = coreOf(make, { offloads: VIRTIO });
    const small = wire.frameOf(wire.packetOf({}));
    for (let i = 0; i < 4; i++) putFrame(core, i, i === 3 ? small : BIGGEST);
    const full = abi.MESSAGES / abi.MAX_SEGMENTS;
    const before = hex(core.bytes.subarray(abi.DESCRIPTORS + full * abi.DESCRIPTOR_SIZE, abi.CONTENTS));
    expect([core.encapsulate(0, 4, 0), core.messages.count()]).toEqual([full, abi.MESSAGES]);
    expect(core.counters('outbound').received).toBe(abi.MESSAGES);
    expect(hex(core.bytes.subarray(abi.DESCRIPTORS + full * abi.DESCRIPTOR_SIZE, abi.CONTENTS))).toBe(before);
    expect([core.encapsulate(full, 4, 0), core.messages.count()]).toEqual([4, abi.MAX_SEGMENTS + 1]);
    expect(core.counters('outbound').received).toBe(abi.MESSAGES + abi.MAX_SEGMENTS + 1);
    expect(core.messages.bytes(abi.MAX_SEGMENTS).length).toBe(24 + 140);
  });

  test('a packet that is dropped needs no room', () => {
    const core = coreOf(make, { offloads: VIRTIO });
    for (let i = 0; i < 4; i++) putFrame(core, i, i === 2 ? new Uint8Array(20) : BIGGEST);
    expect([core.encapsulate(0, 4, 0), core.verdict(2)]).toEqual([3, abi.DROP_TRUNCATED]);
  });

  test('header blocks run out before messages do', () => {
    const core = coreOf(make, { offloads: VIRTIO | abi.OFFLOAD_UDP_SEGMENT, encapsulation: 'gre-udp', ports: 1 });
    // Each takes 32 blocks, and none is left after the last that fits.
    const big = wire.superFrame({ payload: wire.payloadOf(32 * 128) }, 128);
    const small = wire.frameOf(wire.packetOf({ payload: wire.payloadOf(1) }));
    const full = abi.HEADER_BLOCKS / 32;
    for (let i = 0; i < full + 2; i++) putFrame(core, i, i === full ? small : big);
    // The small one is not cut and needs none.
    expect(core.encapsulate(0, full + 2, 0)).toBe(full + 1);
    expect([core.verdict(full), core.counters('outbound').received]).toEqual([abi.FORWARD, full * 32 + 1]);
    expect(core.encapsulate(full + 1, full + 2, 0)).toBe(full + 2);
    expect(core.counters('outbound').received).toBe((full + 1) * 32 + 1);
  });

  test('a port whose messages run out ends the call', () => {
    const core = coreOf(make, { offloads: VIRTIO, encapsulation: 'gre-udp', ports: 8 });
    const big = wire.superFrame({ payload: wire.payloadOf(100 * 128) }, 128);
    for (let i = 0; i < 3; i++) putFrame(core, i, big);
    expect(core.encapsulate(0, 3, 0)).toBe(1);
    const [{ port } = { port: -1 }] = messages(core);
    expect(core.messages.count(port)).toBe(100);
    expect([core.encapsulate(1, 3, 0), core.encapsulate(2, 3, 0)]).toEqual([2, 3]);
    expect(core.counters('outbound').received).toBe(300);
  });

  test('GRE-in-UDP: so many segments as there can be fit one port, if they share messages', () => {
    const vm = { encapsulation: 'gre-udp', ports: 8 } as const;
    const honest = wire.superFrame({ payload: wire.payloadOf(128 * 500) }, 500);
    const longer = wire.superFrame({ payload: wire.payloadOf(128 * 500 + 1) }, 500);
    const core = coreOf(make, { ...vm, offloads: VIRTIO | abi.OFFLOAD_UDP_SEGMENT });
    const made = send(core, [BIGGEST]);
    expect(made.map(({ content }) => content.packets)).toEqual(Array(8).fill(64));
    // Neither does what lies in the port's last message take room from it, nor two of them from each other.
    const small = wire.frameOf(wire.packetOf({ payload: wire.payloadOf(128) }));
    for (const [i, frame] of [small, BIGGEST, BIGGEST, BIGGEST].entries()) putFrame(core, i, frame);
    expect([core.encapsulate(0, 4, 0), core.encapsulate(3, 4, 0)]).toEqual([3, 4]);
    expect(core.counters('outbound').forwarded).toBe(4 * abi.MAX_SEGMENTS + 1);
    // Each segment a message of its own.
    const alone = coreOf(make, { ...vm, offloads: VIRTIO });
    expect([send(alone, [honest]).length, alone.verdict(0)]).toEqual([128, abi.FORWARD]);
    for (const frame of [longer, BIGGEST]) {
      expect([send(alone, [frame]), alone.verdict(0)]).toEqual([[], abi.DROP_TOO_LONG]);
    }
  });

  test('first and count are clamped', () => {
    const core = coreOf(make, { offloads: VIRTIO });
    const [most, least] = [2 ** 31 - 1, -(2 ** 31)];
    for (const [first, count, end, made] of [
      [0, 0, 0, 0],
      [0, -1, 0, 0],
      [5, 3, 3, 0],
      [most, most, 128, 0],
      [least, least, 0, 0],
      [most, 7, 7, 0],
      [-3, 2, 2, 2],
      [126, 1000, 128, 2],
      [least, most, 128, 128],
    ] as const) {
      // Outer headers have taken the place of virtio headers.
      for (let i = 0; i < abi.BATCH_SIZE; i++) putFrame(core, i, wire.frameOf(wire.packetOf({})));
      const before = core.counters('outbound').received;
      expect([first, count, core.encapsulate(first, count, 0), core.messages.count()]).toEqual([
        first,
        count,
        end,
        made,
      ]);
      expect(core.counters('outbound').received).toBe(before + made);
    }
  });

  test('descriptors outside the slots', () => {
    const core = coreOf(make, {});
    const words = new Uint32Array(core.memory, abi.DESCRIPTORS, 2);
    const first = abi.SLOTS + abi.HEADROOM - abi.VIRTIO_SIZE;
    for (const address of [0, first - 1, first, abi.MEMORY_SIZE - 1, abi.MEMORY_SIZE, 0x80000000, 0xffffffff]) {
      for (const length of [0, 1, abi.MEMORY_SIZE, 0x7fffffff, 0x80000000, 0xffffffff]) {
        const isOutside = address < first || address + length > abi.MEMORY_SIZE;
        const expected = isOutside ? abi.DROP_BAD_DESCRIPTOR : abi.DROP_TRUNCATED;
        for (const handle of ['encapsulate', 'decapsulate'] as const) {
          words.set([address, length]);
          expect([address, length, core[handle](0, 1, 0), core.verdict(0)]).toEqual([address, length, 1, expected]);
          expect([...words]).toEqual([address, length]);
        }
      }
    }
    expectSums(core, 'outbound', []);
    expectSums(core, 'inbound', []);
  });
});
