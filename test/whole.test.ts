/** Super-packets that go back to the kernel whole, which can cut them behind outer headers. */
import { describe, expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { config, cores, hex, type Message, putFrame } from './core.ts';
import * as wire from './packet.ts';
import { timestamps } from './traffic.ts';
import { A, B, coreOf, packetsIn, send, VIRTIO, type Vm } from './vms.ts';

const { ACK, CWR } = wire;

describe.each(cores)('$name', ({ make }) => {
  const offloads = VIRTIO | abi.OFFLOAD_GRE_SEGMENT;
  const long = (parts: wire.Parts = {}) => ({ payload: wire.payloadOf(2500), ...parts });

  test.each<{ name: string; vm: Vm; parts: wire.Parts; header: number[]; said?: number[] }>([
    { name: 'TCP', vm: {}, parts: {}, header: [0, 0, 8, 0] },
    { name: 'TCP with CWR', vm: {}, parts: { flags: ACK | CWR }, header: [0, 0, 8, 0] },
    {
      name: 'TCP with a key and options',
      vm: { key: 0x01020304 },
      parts: { tcpOptions: timestamps, ipOptions: [1, 1, 1, 1] },
      header: [0x20, 0, 8, 0, 1, 2, 3, 4],
    },
    // All flags, the bit ECN, a header length that is none.
    { name: 'TCP, much said', vm: {}, parts: {}, header: [0, 0, 8, 0], said: [255, 0x81, 255, 255] },
  ])('whole: $name', ({ vm, parts, header, said = [] }) => {
    const core = coreOf(make, { ...vm, offloads });
    const frame = wire.edited(wire.superFrame(long(parts), 1000), 0, ...said);
    const packet = frame.subarray(abi.VIRTIO_SIZE);
    const made = send(core, [frame]);
    const outer = 20 + header.length;
    const ip = 20 + (parts.ipOptions?.length ?? 0);
    const expected = wire.frameOf(wire.editedHeader(wire.grePacket(A, B, packet, header), 8, 65), {
      flags: 1,
      type: frame[abi.VIRTIO_GSO_TYPE] as number,
      headerLength: outer + wire.headersLength(packet),
      size: 1000,
      start: outer + ip,
      offset: 16,
    });
    expect(made.map(({ bytes, whole, peer }) => [hex(bytes), whole, peer])).toEqual([[hex(expected), true, B]]);
    expect(core.messages.pieces(0)).toBe(1);
    // All is counted as what it is cut into.
    const cut = wire.cut(wire.packetOf(long(parts)), 1000);
    const bytes = cut.reduce((sum, { length }) => sum + length, 0);
    expect(made[0]?.content).toEqual({ packets: 3, bytes });
    expect(core.counters('outbound')).toMatchObject({ received: 3, forwarded: 3, bytes });
    core.refuse(0);
    expect(core.counters('outbound').drops[-abi.DROP_NOT_WRITTEN]).toBe(3);
  });

  test.each<{ name: string; vm?: Vm; frame: Uint8Array; packets: number }>([
    { name: 'one segment', frame: wire.superFrame(long(), 2500), packets: 1 },
    { name: 'no NEEDS_CSUM', frame: wire.edited(wire.superFrame(long(), 1000), 0, 0), packets: 3 },
    {
      name: 'another start',
      frame: wire.edited(wire.superFrame(long(), 1000), abi.VIRTIO_CHECKSUM_START, 21),
      packets: 3,
    },
    {
      name: 'another offset',
      frame: wire.edited(wire.superFrame(long(), 1000), abi.VIRTIO_CHECKSUM_OFFSET, 6),
      packets: 3,
    },
    {
      name: 'an offset of 256 more',
      frame: wire.edited(wire.superFrame(long(), 1000), abi.VIRTIO_CHECKSUM_OFFSET + 1, 1),
      packets: 3,
    },
    {
      name: 'the start without its options',
      frame: wire.edited(wire.superFrame(long({ ipOptions: [1, 1, 1, 1] }), 1000), abi.VIRTIO_CHECKSUM_START, 20),
      packets: 3,
    },
    // Who gets it whole from a raw socket could not tell where its datagrams end.
    { name: 'UDP', frame: wire.superFrame(long({ protocol: 17 }), 1000), packets: 3 },
    {
      name: 'UDP with the offset of TCP',
      frame: wire.edited(wire.superFrame(long({ protocol: 17 }), 1000), abi.VIRTIO_CHECKSUM_OFFSET, 16),
      packets: 3,
    },
    { name: 'GRE-in-UDP', vm: { encapsulation: 'gre-udp' }, frame: wire.superFrame(long(), 1000), packets: 3 },
    { name: 'no such offload', vm: { offloads: VIRTIO }, frame: wire.superFrame(long(), 1000), packets: 3 },
    {
      name: 'too long in one',
      frame: wire.superFrame({ payload: wire.payloadOf(65535 - 24 - 39) }, 1000),
      packets: 66,
    },
    {
      name: 'too long with a key',
      vm: { key: 1 },
      frame: wire.superFrame({ payload: wire.payloadOf(65535 - 28 - 39) }, 1000),
      packets: 66,
    },
  ])('cut: $name', ({ vm, frame, packets }) => {
    const made = send(coreOf(make, { offloads, ...vm }), [frame]);
    expect([packetsIn(made).reduce((sum, n) => sum + n), made.some(({ whole }) => whole)]).toEqual([packets, false]);
    expect(made.length).toBe(packets);
  });

  test.each([
    [undefined, 24],
    [1, 28],
  ])('the longest that stays whole, with key %s, and the fewest segments', (key, outer) => {
    const core = coreOf(make, { key, offloads });
    const frame = wire.superFrame({ payload: wire.payloadOf(65535 - outer - 40) }, 1000);
    const [{ bytes, whole }] = send(core, [frame]) as [Message];
    expect([bytes.length, whole]).toEqual([abi.VIRTIO_SIZE + 65535, true]);
    expect(send(core, [wire.superFrame(long(), 2499)]).map(({ whole }) => whole)).toEqual([true]);
  });

  test('O1 the TTL is one more, for the kernel takes one; 255 stays', () => {
    for (const [ttl, expected] of [
      [1, 2],
      [254, 255],
      [255, 255],
    ] as const) {
      const core = coreOf(make, { offloads });
      core.configure({ ...config, ttl });
      const small = wire.frameOf(wire.packetOf({}));
      const [first, second] = send(core, [wire.superFrame(long(), 1000), small]) as [Message, Message];
      expect([first.bytes[abi.VIRTIO_SIZE + 8], second.bytes[8]]).toEqual([expected, ttl]);
    }
  });

  test('in its place between the others, and the mark goes with the message', () => {
    const core = coreOf(make, { offloads });
    const small = wire.frameOf(wire.packetOf({}));
    const big = wire.superFrame(long(), 1000);
    expect(send(core, [small, big, small, big]).map(({ whole }) => whole)).toEqual([false, true, false, true]);
    expect(send(core, [big, small, small]).map(({ whole }) => whole)).toEqual([true, false, false]);
  });

  test('it asks for the room of one that is cut', () => {
    const core = coreOf(make, { offloads });
    const of = (segments: number) => wire.superFrame({ payload: wire.payloadOf(segments * 128) }, 128);
    for (let i = 0; i < 128; i++) putFrame(core, i, of(500));
    // Each takes one message and no header block, but all ask for 500.
    expect(core.encapsulate(0, 128, 0)).toBe(128);
    expect(core.counters('outbound').received).toBe(128 * 500);
    // Of 1,024, the first leaves 524, the second all of these but one.
    const cut = wire.edited(of(500), 0, 0);
    for (const [i, frame] of [cut, of(500), cut, of(23), of(500)].entries()) putFrame(core, i, frame);
    expect([core.encapsulate(0, 5, 0), core.messages.count()]).toEqual([4, 1002]);
  });

  test('where room ends, its segments count; it takes one message', () => {
    const core = coreOf(make, { offloads });
    const of = (segments: number) => wire.superFrame({ payload: wire.payloadOf(128 * segments) }, 128);
    // These are cut, and leave room for two messages.
    const cut = [128, 128, 128, 128, 128, 128, 128, 126].map((segments) => wire.edited(of(segments), 0, 0));
    for (const [i, frame] of [...cut, of(2), of(2)].entries()) putFrame(core, i, frame);
    expect([core.encapsulate(0, 10, 0), core.messages.count(), core.messages.isWhole(1022)]).toEqual([9, 1023, true]);
    expect([core.encapsulate(9, 10, 0), core.messages.count()]).toEqual([10, 1]);
    for (const [i, frame] of [...cut, of(3)].entries()) putFrame(core, i, frame);
    expect([core.encapsulate(0, 9, 0), core.messages.count()]).toEqual([8, 1022]);
  });

  test('what is wrong with it is so without cutting, too', () => {
    const core = coreOf(make, { offloads });
    for (const [frame, verdict] of [
      [wire.superFrame({ payload: wire.payloadOf(129) }, 127), abi.DROP_TINY_SEGMENTS],
      [wire.edited(wire.superFrame(long(), 1000), abi.VIRTIO_SIZE + 32, 0x40), abi.DROP_BAD_OFFLOAD],
    ] as const) {
      expect([send(core, [frame]), core.verdict(0)]).toEqual([[], verdict]);
    }
  });
});
