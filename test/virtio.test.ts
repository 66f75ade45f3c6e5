/** What a virtio header may say, and how long a packet may be. */
import { describe, expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { cores, hex } from './core.ts';
import * as wire from './packet.ts';
import { coreOf, send, VIRTIO, type Vm } from './vms.ts';

describe.each(cores)('$name', ({ make }) => {
  const packet = wire.packetOf({ payload: wire.payloadOf(3000) });
  const datagram = wire.packetOf({ protocol: 17, payload: wire.payloadOf(3000) });
  const tcp: wire.Virtio = { flags: 1, type: wire.VIRTIO_TCPV4, headerLength: 40, size: 1000, start: 20, offset: 16 };
  const udp: wire.Virtio = { flags: 1, type: wire.VIRTIO_UDP_L4, headerLength: 28, size: 1000, start: 20, offset: 6 };
  const short = wire.packetOf({ payload: new Uint8Array(0) });
  const empty = wire.packetOf({ protocol: 17, payload: new Uint8Array(0) });
  const GOOD = abi.FORWARD;
  const BAD = abi.DROP_BAD_OFFLOAD;
  const TINY = abi.DROP_TINY_SEGMENTS;
  const longHeaders = { ipOptions: Array<number>(40).fill(1), tcpOptions: Array<number>(40).fill(1) };
  test.each<[name: string, verdict: number, frame: Uint8Array]>([
    ['TCP', GOOD, wire.frameOf(packet, tcp)],
    ['UDP', GOOD, wire.frameOf(datagram, udp)],
    ['the ECN bit', GOOD, wire.frameOf(packet, { ...tcp, type: 0x81 })],
    ['the ECN bit alone', GOOD, wire.frameOf(packet, { type: 0x80 })],
    ['no flags, header length, start and offset', GOOD, wire.frameOf(packet, { type: 1, size: 1000 })],
    ['an unknown flag', GOOD, wire.frameOf(packet, { ...tcp, flags: 0xff })],
    ...[2, 3, 4, 6, 7, 0x7f, 0x83, 0xff].map(
      (type) => [`GSO type ${type}`, BAD, wire.frameOf(packet, { ...tcp, type })] as [string, number, Uint8Array],
    ),
    ['TCPV4 with UDP in it', BAD, wire.frameOf(datagram, { ...tcp })],
    ['UDP_L4 with TCP in it', BAD, wire.frameOf(packet, { ...udp })],
    ['UDP_L4 with neither in it', BAD, wire.frameOf(wire.editedHeader(datagram, 9, 136), udp)],
    ['GSO size 0', BAD, wire.frameOf(packet, { ...tcp, size: 0 })],
    ['another protocol', BAD, wire.frameOf(wire.editedHeader(packet, 9, 132), tcp)],
    ['a first fragment', BAD, wire.frameOf(wire.editedHeader(packet, 6, 0x20, 0), tcp)],
    ['a last fragment', BAD, wire.frameOf(wire.editedHeader(packet, 6, 0, 1), tcp)],
    ['the reserved bit is no fragment', GOOD, wire.frameOf(wire.editedHeader(packet, 6, 0x80, 0), tcp)],
    ['data offset 4', BAD, wire.frameOf(wire.edited(packet, 32, 0x40), tcp)],
    ['data offset 5, without payload', BAD, wire.frameOf(short, tcp)],
    [
      'TCP options up to the end',
      BAD,
      wire.frameOf(wire.packetOf({ tcpOptions: [1, 1, 1, 1], payload: new Uint8Array(0) }), tcp),
    ],
    ['TCP options beyond the end', BAD, wire.frameOf(wire.edited(short, 32, 0xf0), tcp)],
    ['a TCP header beyond the end', BAD, wire.frameOf(wire.editedHeader(packet, 2, 0, 30), tcp)],
    ['TCP, one byte', GOOD, wire.frameOf(wire.packetOf({ payload: new Uint8Array(1) }), tcp)],
    ['UDP without payload', BAD, wire.frameOf(empty, udp)],
    ['a UDP header beyond the end', BAD, wire.frameOf(wire.editedHeader(empty, 2, 0, 27), udp)],
    ['UDP, one byte', GOOD, wire.frameOf(wire.packetOf({ protocol: 17, payload: new Uint8Array(1) }), udp)],
    ['TCP, 512 segments of 128 bytes', GOOD, wire.superFrame({ payload: new Uint8Array(65495) }, 128)],
    ['TCP, 131 segments of 500 bytes', GOOD, wire.superFrame({ payload: new Uint8Array(65495) }, 500)],
    ['TCP, segments of 127 bytes', TINY, wire.superFrame({ payload: new Uint8Array(200) }, 127)],
    ['TCP, segments of 1 byte', TINY, wire.superFrame({ payload: new Uint8Array(65495) }, 1)],
    ['TCP, 1 segment of 1 byte', GOOD, wire.superFrame({ payload: new Uint8Array(1) }, 1)],
    ['TCP, as much payload as headers', GOOD, wire.superFrame({ ...longHeaders, payload: new Uint8Array(200) }, 144)],
    ['TCP, more headers than payload', TINY, wire.superFrame({ ...longHeaders, payload: new Uint8Array(200) }, 143)],
    ['UDP, 128 segments of 64 bytes', GOOD, wire.superFrame({ protocol: 17, payload: new Uint8Array(128 * 64) }, 64)],
    ['UDP, 129 segments', BAD, wire.superFrame({ protocol: 17, payload: new Uint8Array(129 * 64) }, 64)],
    ['UDP, segments of 63 bytes', TINY, wire.superFrame({ protocol: 17, payload: new Uint8Array(126) }, 63)],
    ['UDP, 1 segment of 1 byte', GOOD, wire.superFrame({ protocol: 17, payload: new Uint8Array(1) }, 1)],
    ['a checksum at the start of the payload', GOOD, wire.frameOf(packet, { flags: 1, start: 20, offset: 0 })],
    ['a checksum that starts in the header', BAD, wire.frameOf(packet, { flags: 1, start: 19, offset: 16 })],
    [
      'a checksum that starts in the options',
      BAD,
      wire.frameOf(wire.packetOf({ ipOptions: [1, 1, 1, 1] }), { flags: 1, start: 20, offset: 16 }),
    ],
    ['a checksum in the last two bytes', GOOD, wire.frameOf(packet, { flags: 1, start: 20, offset: 3018 })],
    ['a checksum half beyond the end', BAD, wire.frameOf(packet, { flags: 1, start: 20, offset: 3019 })],
    ['a checksum far beyond the end', BAD, wire.frameOf(packet, { flags: 1, start: 0xffff, offset: 0xffff })],
    [
      'a checksum behind the total length',
      BAD,
      wire.frameOf(Uint8Array.from([...packet, 0, 0]), { flags: 1, start: 20, offset: 3020 }),
    ],
    ['no checksum asked for', GOOD, wire.frameOf(packet, { start: 0xffff, offset: 0xffff })],
    ['a packet that ends early', abi.DROP_TRUNCATED, wire.frameOf(packet).subarray(0, -1)],
    ['no packet', abi.DROP_TRUNCATED, new Uint8Array(10)],
    ['less than a virtio header', abi.DROP_TRUNCATED, new Uint8Array(9)],
    ['nothing', abi.DROP_TRUNCATED, new Uint8Array(0)],
    [
      'a foreign source, before the virtio header',
      abi.DROP_FOREIGN_SOURCE,
      wire.frameOf(wire.editedHeader(packet, 14, 99), { type: 9 }),
    ],
    [
      'a bad virtio header, before the length',
      BAD,
      wire.frameOf(wire.packetOf({ payload: new Uint8Array(65495) }), { type: 9 }),
    ],
  ])('virtio header: %s: %i', (_, verdict, frame) => {
    const core = coreOf(make, { offloads: VIRTIO });
    const made = send(core, [frame]);
    expect(core.verdict(0)).toBe(verdict);
    const { received, drops } = core.counters('outbound');
    if (verdict === GOOD) {
      expect(made.length).toBe(received);
      expect(made.length).toBeGreaterThan(0);
    } else {
      // However many it would have been, it is one.
      expect([made, received, drops[-verdict], core.tunnels.count]).toEqual([[], 1, 1, 0]);
      const start = core.slot(0) - abi.VIRTIO_SIZE;
      expect(hex(core.bytes.subarray(start, start + frame.length))).toBe(hex(frame));
    }
  });

  test.each<[vm: Vm, overhead: number]>([
    [{}, 24],
    [{ key: 1 }, 28],
    [{ encapsulation: 'gre-udp' }, 32],
    [{ encapsulation: 'gre-udp', key: 1 }, 36],
  ])('the longest packet of %j, uncut and cut', (vm, overhead) => {
    const core = coreOf(make, { ...vm, offloads: VIRTIO });
    const verdict = (frame: Uint8Array) => {
      send(core, [frame]);
      return core.verdict(0);
    };
    const longest = 65535 - overhead - 40;
    // With DF, as all of these.
    const uncut = (length: number) => wire.frameOf(wire.packetOf({ payload: new Uint8Array(length) }));
    expect([verdict(uncut(longest)), verdict(uncut(longest + 1))]).toEqual([GOOD, abi.DROP_TOO_BIG]);
    // What counts is the first segment.
    const cut = (size: number) => wire.superFrame({ payload: new Uint8Array(65495) }, size);
    expect([verdict(cut(longest)), verdict(cut(longest + 1))]).toEqual([GOOD, abi.DROP_TOO_BIG]);
    expect(core.counters('outbound').drops[-abi.DROP_TOO_BIG]).toBe(2);
  });
});
