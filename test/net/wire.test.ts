/** What travels on the underlay, as an independent decoder (tshark) sees it. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, openSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh } from '../../src/demo/mesh.ts';
import { startMesh } from './mesh.ts';
import { missing, skip } from './require.ts';

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
    'udp.checksum.status',
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
    { flags: ['--encapsulation', 'gre-udp'], key: '', flagsAndVersion: '0x0000', overhead: 32, port: '4754' },
    {
      flags: ['--encapsulation', 'gre-udp', '--key', '1'],
      key: '0x00000001',
      flagsAndVersion: '0x2000',
      overhead: 36,
      port: '4754',
    },
    {
      flags: ['--encapsulation', 'gre-udp', '--engine', 'portable'],
      key: '',
      flagsAndVersion: '0x0000',
      overhead: 32,
      port: '4754',
    },
  ])('up $flags', ({ flags, key, flagsAndVersion, overhead, port = '' }) => {
    let lab: Lab;
    let mesh: Mesh;

    beforeAll(async () => {
      lab = await Lab.open();
      mesh = await startMesh(lab, flags);
    });
    afterAll(() => lab?.close());

    test('tshark decodes the GRE that was meant', async () => {
      const [from, to] = mesh.containers as [Container, Container];
      const file = path.join(folder, `${flags.join('')}.pcap`);
      const capture = lab.start(
        undefined,
        ['tshark', '-Q', '-i', 'underlay', '-c', '2', '-a', 'duration:20', '-f', 'ip proto 47 or udp', '-w', '-'],
        {
          stdio: ['ignore', openSync(file, 'w'), 'ignore'],
        },
      );
      const ended = new Promise((resolve) => capture.once('exit', resolve));
      let captured = false;
      void ended.then(() => {
        captured = true;
      });
      // The capture begins some time after its start: ping until it has what it wants.
      while (!captured) await lab.run(from.name, ['ping', '-n', '-c', '1', '-W', '1', '-s', '100', to.address]);
      // The capture may have begun between a request and its reply.
      const packets = decode(file);
      const [request, reply] =
        last(packets[0])['icmp.type'] === '8' ? packets : (packets.toReversed() as [Fields, Fields]);
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
      for (const packet of [request, reply]) {
        expect(packet).toMatchObject({
          'gre.flags_and_version': flagsAndVersion,
          'gre.proto': '0x0800',
          'gre.key': key,
        });
        expect(packet).toMatchObject({ 'icmp.checksum.status': '1', 'udp.dstport': port });
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

type Fields = Record<string, string>;

/** The fields of each packet; those of both IPv4 headers stand in one text, separated by commas. */
function decode(file: string): [Fields, Fields] {
  const words = [
    '-r',
    file,
    '-o',
    'ip.check_checksum:TRUE',
    '-d',
    'udp.port==4754,gre',
    '-T',
    'fields',
    ...FIELDS.flatMap((name) => ['-e', name]),
  ];
  const lines = execFileSync('tshark', words, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })
    .trimEnd()
    .split('\n');
  // Newer versions print flags as True and False, older ones as 1 and 0.
  const plain = (value: string) => value.replaceAll('True', '1').replaceAll('False', '0');
  const packets = lines.map(
    (line) => Object.fromEntries(line.split('\t').map((value, i) => [FIELDS[i], plain(value)])) as Fields,
  );
  if (packets.length !== 2) throw new Error(`captured ${packets.length} packets`);
  return packets as [Fields, Fields];
}

const pick = (packet: Fields, index: number) =>
  Object.fromEntries(Object.entries(packet).map(([name, value]) => [name, value.split(',').at(index) ?? '']));
/** The outer header's fields, and the inner's. */
const first = (packet: Fields) => pick(packet, 0);
const last = (packet: Fields) => pick(packet, -1);
