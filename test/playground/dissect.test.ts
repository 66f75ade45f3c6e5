/** Each header field has its name, its bytes and its value; and no bytes whatever lead beyond the packet. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { dissect } from '../../playground/packet/dissect.ts';
import type { Layer } from '../../playground/packet/fields.ts';
import { bytesOf } from '../../playground/packet/hex.ts';
import { packetOf, payloadOf } from '../packet.ts';
import golden from '../vectors/all-options.json' with { type: 'json' };

const names = (layers: readonly Layer[]) => layers.map(({ name }) => name);
const values = (layer: Layer | undefined) =>
  Object.fromEntries((layer?.fields ?? []).map(({ name, value, note }) => [name, note ? `${value} (${note})` : value]));
const wrong = (layers: readonly Layer[]) =>
  layers.flatMap(({ fields }) => fields.filter(({ isWrong }) => isWrong).map(({ name }) => name));

/** Made by another implementation: ICMP in GRE with checksum, key and sequence number. */
const TUNNELLED = golden.vectors[0]?.output ?? '';

test('a packet in its tunnel has all of its fields', () => {
  const layers = dissect(bytesOf(TUNNELLED), true);
  expect(names(layers)).toEqual(['Outer IPv4', 'GRE', 'IPv4', 'ICMP', 'Payload']);
  expect(values(layers[0])).toEqual({
    ...{
      Version: '4',
      'Header length': '20 bytes',
      DSCP: '0',
      ECN: '0 (not ECN-capable)',
      'Total length': '120 bytes',
    },
    ...{ Identification: '0x0000', Flags: "don't fragment", 'Fragment offset': '0 bytes', 'Time to live': '64' },
    ...{ Protocol: '47 (GRE)', 'Header checksum': '0x98c5 (right)', Source: '192.168.16.32' },
    Destination: '192.168.16.33',
  });
  expect(values(layers[1])).toEqual({
    ...{ Flags: '0xb000 (checksum, key, sequence number)', Version: '0', 'Protocol type': '0x0800 (IPv4)' },
    ...{ Checksum: '0x6d86 (right)', Reserved: '0', Key: '3737844653', 'Sequence number': '0' },
  });
  expect(values(layers[2])).toMatchObject({
    Source: '10.16.32.91',
    Destination: '10.16.33.7',
    Identification: '0x1234',
  });
  expect(values(layers[3])).toEqual({
    ...{ Type: '8 (echo request)', Code: '0', Checksum: '0x00e5 (right)', Identifier: '7', 'Sequence number': '1' },
  });
});

test.each([
  [
    'TCP',
    packetOf({ tcpOptions: [2, 4, 5, 180] }),
    ['IPv4', 'TCP', 'Payload'],
    { Options: '4 bytes (maximum segment size 1460)', Flags: '0x10 (ACK)' },
  ],
  [
    'UDP',
    packetOf({ protocol: 17, destinationPort: 53 }),
    ['IPv4', 'UDP', 'Payload'],
    { 'Destination port': '53', Length: '108 bytes' },
  ],
] as const)('%s is taken apart, and its checksum is checked', (_, packet, layers, fields) => {
  expect(names(dissect(packet, false))).toEqual(layers);
  expect(values(dissect(packet, false)[1])).toMatchObject(fields);
  expect(wrong(dissect(packet, false))).toEqual([]);
  const damaged = packet.slice();
  damaged.set([(damaged.at(-1) ?? 0) ^ 1], damaged.length - 1);
  expect(wrong(dissect(damaged, false))).toEqual(['Checksum']);
});

test('checksums of packets of odd length are checked', () => {
  for (const protocol of [6, 17] as const)
    expect(wrong(dissect(packetOf({ protocol, payload: payloadOf(33) }), false))).toEqual([]);
});

test('fields have the bytes that they are made of, and cover each header', () => {
  const layers = dissect(bytesOf(TUNNELLED), true);
  for (const { fields, start, end } of layers) {
    const covered = new Set(
      fields.flatMap((field) => Array.from({ length: field.end - field.start }, (_, i) => field.start + i)),
    );
    expect(covered.size).toBe(end - start);
  }
  const source = layers[2]?.fields.find(({ name }) => name === 'Source');
  expect([source?.start, source?.end]).toEqual([20 + 16 + 12, 20 + 16 + 16]);
});

test('what is wrong is marked', () => {
  expect(wrong(dissect(bytesOf('5500001400000000400125680a10205b0a102107'), false))).toEqual([
    'Version',
    'Header checksum',
  ]);
  expect(wrong(dissect(packetOf({}).slice(0, 60), false))).toContain('Total length');
});

test('GRE in UDP is a tunnel on the underlay alone', () => {
  const packet = packetOf({
    protocol: 17,
    destinationPort: 4754,
    payload: bytesOf('000008004500001400000000400125680a10205b0a102107'),
  });
  expect(names(dissect(packet, true))).toEqual(['Outer IPv4', 'UDP', 'GRE', 'IPv4']);
  expect(names(dissect(packet, false))).toEqual(['IPv4', 'UDP', 'Payload']);
});

describe('whatever the bytes are', () => {
  const check = (packet: Uint8Array) => {
    for (const isOuter of [true, false]) {
      const layers = dissect(packet, isOuter);
      let at = 0;
      for (const { start, end, fields } of layers) {
        expect(start).toBe(at);
        expect(end).toBeLessThanOrEqual(packet.length);
        for (const field of fields)
          expect(start <= field.start && field.start < field.end && field.end <= end).toBe(true);
        at = end;
      }
      expect(at).toBe(packet.length);
    }
  };

  test('layers follow each other to the end of the packet', () => {
    fc.assert(fc.property(fc.uint8Array({ maxLength: 120 }), check), { numRuns: 2000 });
  });

  test('also where they begin like packets', () => {
    const starts = [
      bytesOf(TUNNELLED),
      packetOf({}),
      packetOf({ protocol: 17, destinationPort: 4754 }),
      packetOf({ ipOptions: [1, 1, 1, 0] }),
    ];
    const change = fc.tuple(fc.nat(), fc.nat(255));
    fc.assert(
      fc.property(
        fc.constantFrom(...starts),
        fc.array(change, { maxLength: 4 }),
        fc.nat(),
        (start, changes, length) => {
          const packet = start.slice(0, 1 + (length % start.length));
          for (const [at, value] of changes) packet[at % packet.length] = value;
          check(packet);
        },
      ),
      { numRuns: 5000 },
    );
  });

  test('also those of the golden packets', () => {
    for (const { input, output } of golden.vectors) for (const hex of [input, output ?? '']) check(bytesOf(hex));
  });
});
