/** Capture files: what is written is read again, by this page and by others; what is damaged is said. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Captured, readPcap, writePcap } from '../../playground/packet/pcap.ts';
import { missingCommands, skip } from '../net/require.ts';
import { packetOf } from '../packet.ts';

const packet = packetOf({});
const captured = (bytes: Uint8Array<ArrayBuffer>, microseconds = 0): Captured => ({
  seconds: 1_700_000_000,
  microseconds,
  bytes,
});

/** A capture with one frame, made byte by byte. */
function file(
  linkType: number,
  frame: Uint8Array,
  { little = true, magic = 0xa1b2c3d4, length = frame.length, fraction = 7 } = {},
): ArrayBuffer {
  const bytes = new Uint8Array(40 + frame.length);
  const view = new DataView(bytes.buffer);
  const words = [magic, 0x0004_0002, 0, 0, 65_535, linkType, 5, fraction, frame.length, length];
  for (const [i, word] of words.entries()) view.setUint32(4 * i, word, little);
  bytes.set(frame, 40);
  return bytes.buffer;
}

const behind = (length: number, at: number | undefined, bytes = packet, type = 0x0800) => {
  const frame = new Uint8Array(length + bytes.length);
  if (at !== undefined) frame.set([type >> 8, type & 255], at);
  frame.set(bytes, length);
  return frame;
};

test('what is written is read again', () => {
  const bytes = fc.uint8Array({ maxLength: 200 }).map((data) => {
    // Behind the packet's own length nothing is read.
    const copy = Uint8Array.from(data);
    if (copy.length >= 4) copy.set([copy.length >> 8, copy.length & 255], 2);
    return copy;
  });
  fc.assert(
    fc.property(fc.array(fc.record({ seconds: fc.nat(), microseconds: fc.nat(999_999), bytes })), (packets) => {
      expect(readPcap(writePcap(packets).buffer)).toEqual({ packets, others: 0 });
    }),
  );
});

describe.each([
  ['Ethernet', 1, 14, 12],
  ['raw IP', 101, 0, undefined],
  ['Linux cooked', 113, 16, 14],
  ['raw IPv4', 228, 0, undefined],
  ['Linux cooked v2', 276, 20, 0],
] as const)('%s', (_, linkType, length, at) => {
  test.each([true, false])('gives the packet behind its header (little-endian: %s)', (little) => {
    const capture = readPcap(file(linkType, behind(length, at), { little }));
    expect(capture).toEqual({ packets: [{ seconds: 5, microseconds: 7, bytes: packet }], others: 0 });
  });
});

// The other link types carry nothing else.
test.each([
  ['Ethernet', 1, 14, 12],
  ['Linux cooked', 113, 16, 14],
  ['Linux cooked v2', 276, 20, 0],
] as const)('%s: what is not IPv4 is passed over, and counted', (_, linkType, length, at) => {
  const capture = readPcap(file(linkType, behind(length, at, packet, 0x86dd)));
  expect(capture).toMatchObject({ packets: [], others: 1 });
});

test('padding of short Ethernet frames is no part of the packet', () => {
  const frame = behind(14, 12, Uint8Array.of(...packet, 0, 0, 0, 0));
  expect(readPcap(file(1, frame)).packets[0]?.bytes).toEqual(packet);
});

test('nanoseconds are read as microseconds', () => {
  const [first] = readPcap(file(101, packet, { magic: 0xa1b23c4d, fraction: 1999 })).packets;
  expect(first?.microseconds).toBe(1);
});

test('a packet of which the capture has the beginning alone says how long it was', () => {
  expect(
    readPcap(file(1, behind(14, 12, packet.slice(0, 30)), { length: 14 + packet.length })).packets[0]?.cutFrom,
  ).toBe(packet.length);
});

test.each([
  ['nothing', new Uint8Array(), '0 bytes: a pcap file has at least 24'],
  ['something else', new Uint8Array(100), 'this is no pcap file: it does not begin with a1b2c3d4 or a1b23c4d'],
  ['pcapng', Uint8Array.of(10, 13, 13, 10, ...new Uint8Array(40)), 'this is pcapng'],
  ['another link', new Uint8Array(file(127, packet)), 'link type 127: expected one of 1 (Ethernet), 101 (raw IP)'],
])('%s is refused with the reason', (_, bytes, reason) => {
  expect(() => readPcap(bytes.buffer as ArrayBuffer)).toThrow(reason);
});

test('a file that ends anywhere gives what it has, and says so', () => {
  const whole = writePcap([captured(packet), captured(packet, 1)]);
  for (let end = 24; end < whole.length; end++) {
    const { packets, remark } = readPcap(whole.slice(0, end).buffer);
    const isBetween = end === 24 || end === 24 + 16 + packet.length;
    expect([packets.length, remark]).toEqual([
      end < 40 + packet.length ? 0 : 1,
      isBetween ? undefined : 'the file ends inside a packet',
    ]);
  }
});

test('no more packets are read than are asked for, and what is left out is said', () => {
  const three = writePcap([0, 1, 2].map((i) => captured(packet, i))).buffer;
  expect(readPcap(three, 3)).toEqual(readPcap(three));
  expect(readPcap(three, 2)).toEqual({
    ...{ packets: readPcap(three).packets.slice(0, 2), others: 0 },
    remark: 'the file has more packets, which were not read',
  });
});

test('of a frame with more bytes than a packet can have, those are read that it can have', () => {
  const [first] = readPcap(file(101, new Uint8Array(200_000).fill(0x45, 0, 1))).packets;
  expect(first?.bytes.length).toBe(65_535);
});

test('no bytes whatever do more than be refused', () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 120 }), fc.constantFrom(1, 101, 113, 228, 276), (data, linkType) => {
      const bytes = new Uint8Array(file(linkType, new Uint8Array(data)));
      bytes.set(data, 24);
      expect(readPcap(bytes.buffer).packets.length).toBeLessThan(8);
    }),
  );
});

describe.skipIf(skip('playground: tshark', missingCommands('tshark')))('tshark', () => {
  test('reads what is written', () => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-pcap-'));
    writeFileSync(`${folder}/a.pcap`, writePcap([captured(packet, 250_000)]));
    const fields = ['frame.time_epoch', 'ip.src', 'ip.dst', 'tcp.dstport'].flatMap((name) => ['-e', name]);
    const line = execFileSync('tshark', ['-r', `${folder}/a.pcap`, '-T', 'fields', ...fields], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    rmSync(folder, { recursive: true });
    expect(line.trim().split('\t')).toEqual(['1700000000.250000000', '10.16.32.91', '10.16.33.7', '443']);
  });
});
