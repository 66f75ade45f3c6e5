/** What travels on the underlay, as an independent decoder (tshark) sees it. */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh } from '../../src/demo/mesh.ts';
import { startMesh } from './mesh.ts';
import { missing, skip } from './require.ts';
import { capture, decode } from './tshark.ts';

const FIELDS = [
  ...[
    'ip.version',
    'ip.hdr_len',
    'ip.dsfield',
    'ip.len',
    'ip.flags.df',
    'ip.flags.mf',
    'ip.frag_offset',
    'ip.ttl',
    'ip.proto',
  ],
  ...[
    'ip.checksum.status',
    'ip.src',
    'ip.dst',
    'gre.flags_and_version',
    'gre.proto',
    'gre.key',
    'udp.srcport',
    'udp.dstport',
    'udp.checksum',
    'icmp.type',
    'icmp.checksum.status',
  ],
];

describe.skipIf(skip('wire', await missing('tshark', 'ping')))('wire', () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-wire-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  describe.each([
    { flags: [], key: '', flagsAndVersion: '0x0000', overhead: 24 },
    { flags: ['--key', '3735928559'], key: '0xdeadbeef', flagsAndVersion: '0x2000', overhead: 28 },
    { flags: ['--core', 'typescript'], key: '', flagsAndVersion: '0x0000', overhead: 24 },
    // The fast path sends GRE-in-UDP without a checksum.
    {
      flags: ['--encapsulation', 'gre-udp', '--fast-path', 'off'],
      key: '',
      flagsAndVersion: '0x0000',
      overhead: 32,
      port: '4754',
    },
    {
      flags: ['--encapsulation', 'gre-udp', '--key', '1', '--fast-path', 'off'],
      key: '0x00000001',
      flagsAndVersion: '0x2000',
      overhead: 36,
      port: '4754',
    },
    {
      flags: ['--encapsulation', 'gre-udp', '--engine', 'portable', '--fast-path', 'off'],
      key: '',
      flagsAndVersion: '0x0000',
      overhead: 32,
      port: '4754',
    },
    {
      flags: ['--gre-checksum', 'on', '--gre-sequence', 'on', '--key', '2'],
      key: '0x00000002',
      flagsAndVersion: '0xb000',
      overhead: 36,
    },
  ])('up $flags', ({ flags, key, flagsAndVersion, overhead, port = '' }) => {
    let lab: Lab;
    let mesh: Mesh;

    beforeAll(async () => {
      lab = await Lab.open();
      mesh = await startMesh(lab, flags);
    });
    afterAll(() => lab?.close());

    test('G1, O1, U1, U2, U3 tshark decodes the GRE that was meant', async () => {
      const [from, to] = mesh.containers as [Container, Container];
      const file = path.join(folder, `${flags.join('')}.pcap`);
      const what = { where: undefined, device: 'underlay', filter: 'ip proto 47 or udp', count: 4 };
      await capture(lab, what, file, () =>
        lab.run(from.name, ['ping', '-n', '-c', '1', '-W', '1', '-s', '100', to.address]),
      );
      const packets = decode(file, FIELDS);
      const request = echo(packets, '8');
      const reply = echo(packets, '0');
      const outer = {
        'ip.version': '4',
        'ip.hdr_len': '20',
        'ip.dsfield': '0x00',
        'ip.ttl': '64',
        'ip.proto': port === '' ? '47' : '17',
        'ip.checksum.status': '1',
      };
      const flat = {
        'ip.flags.df': '1',
        'ip.flags.mf': '0',
        'ip.frag_offset': '0',
        'ip.len': String(128 + overhead),
      };
      expect(first(request)).toMatchObject({ ...outer, ...flat, 'ip.src': from.vm.underlay, 'ip.dst': to.vm.underlay });
      expect(first(reply)).toMatchObject({ ...outer, ...flat, 'ip.src': to.vm.underlay, 'ip.dst': from.vm.underlay });
      for (const packet of [request, reply].map(last)) {
        expect(packet).toMatchObject({
          'gre.flags_and_version': flagsAndVersion,
          'gre.proto': '0x0800',
          'gre.key': key,
        });
        expect(packet).toMatchObject({ 'icmp.checksum.status': '1', 'udp.dstport': port });
        // None would be zero. This one is made by whoever carries the packet away from here: what it is says nothing.
        if (port !== '') expect(packet['udp.checksum']).not.toBe('0x0000');
        // The dynamic range, but for the one port that Azure drops.
        if (port !== '') expect(Number(packet['udp.srcport'])).toBeGreaterThanOrEqual(49152);
        expect(packet['udp.srcport']).not.toBe('65330');
      }
      expect(last(request)).toMatchObject({
        'ip.src': from.address,
        'ip.dst': to.address,
        'ip.checksum.status': '1',
        'icmp.type': '8',
      });
      expect(last(reply)).toMatchObject({
        'ip.src': to.address,
        'ip.dst': from.address,
        'ip.checksum.status': '1',
        'icmp.type': '0',
      });
    });
  });
});

type Fields = Record<string, string[]>;

/** The first ICMP message of this type; the capture may have begun between a request and its reply, and a busy machine may answer late. */
function echo(packets: Fields[], type: string): Fields {
  const found = packets.find((packet) => last(packet)['icmp.type'] === type);
  if (!found) throw new Error(`captured ${packets.length} packets, none of ICMP type ${type}`);
  return found;
}

const pick = (packet: Fields, index: number) =>
  Object.fromEntries(Object.entries(packet).map(([name, values]) => [name, values.at(index) ?? '']));
/** The outer header's fields, and the inner's. */
const first = (packet: Fields) => pick(packet, 0);
const last = (packet: Fields) => pick(packet, -1);
