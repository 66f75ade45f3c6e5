/** The drawing of docs/fast-path.md: one packet as it is sent, on the underlay, and as it arrives. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ethernet } from '../attack/packets.mjs';
import { blocksOf } from '../documents.ts';
import { packetOf } from '../packet.ts';
import { FastPathVms } from './fast-path/vms.ts';
import { missing, skip } from './require.ts';
import { PATIENCE } from './vms.ts';

const [OUTER, IPV4_HEADER, WORD] = [24, 20, 4];
const number = (address: string) => address.split('.').reduce((all, part) => all * 256 + Number(part), 0);
const spaced = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex').replace(/..\B/g, '$& ');
/** What the words of the packet on the underlay are. */
const WORDS = [
  ...['IPv4, 56 bytes in all', "don't fragment", 'TTL 64, protocol 47: GRE, checksum'],
  ...['192.168.16.32, the VM of 10.16.32.91', '192.168.16.33, the VM of 10.16.33.91'],
  'GRE without options; IPv4 follows',
  ...['IPv4, 32 bytes in all', "number 1, don't fragment", 'TTL 64, then 63, then 62; UDP, checksum'],
  ...['10.16.32.91', '10.16.33.91'],
  ...['UDP: from port 40000 to 7777', '12 bytes in all, checksum', 'the data'],
];

function drawn(sent: Uint8Array, underlay: Uint8Array, got: Uint8Array): string {
  const line = (...cells: string[]) => `${cells.map((cell) => cell.padEnd(14)).join('')}`.trimEnd();
  const word = (packet: Uint8Array, at: number) => (at < 0 ? '' : spaced(packet.subarray(at, at + WORD)));
  const rows = WORDS.map((what, i) => {
    const inner = WORD * i - OUTER;
    return line(word(sent, inner), word(underlay, WORD * i), word(got, inner), what);
  });
  rows.splice(OUTER / WORD, 0, '');
  return `${[line('sent', 'underlay', 'arrived'), '', ...rows].join('\n')}\n`;
}

describe.skipIf(skip('the drawing of the fast path', await missing('ping')))('docs/fast-path.md', () => {
  let vms: FastPathVms;
  beforeAll(async () => {
    vms = await FastPathVms.of('wasm', 'a', 'b');
    for (const vm of ['a', 'b']) await vms.up(vm, '--fast-path', 'on');
    await vms.attachTo('a', 'c1');
    await vms.attachTo('b', 'd1');
    await vms.settled('a', 'b');
    await vms.watch('c1', 'b', 'd1');
    await vms.acquainted('c1', 'd1');
  });
  afterAll(() => vms?.close());

  test('draws a packet that the fast path takes', async () => {
    const { mac: from, hostMac: to, address } = vms.attached('c1');
    const packet = packetOf({
      ...{ protocol: 17, source: number(address), destination: number(vms.address('d1')) },
      ...{ sourcePort: 40_000, destinationPort: 7777, payload: Buffer.from('data') },
    });
    const taken = async () => (await vms.taken('b')).inbound + (await vms.taken('a')).outbound;
    // Now and then one goes the ordinary way.
    await expect
      .poll(async () => {
        await vms.collect();
        const before = await taken();
        await vms.send('c1', [ethernet({ from, to }, packet)]);
        const seen = await vms.collect();
        const at = (place: string) => seen.find((each) => each.at === place && each.packet.includes('data'))?.packet;
        const [underlay, got] = [at('b'), at('d1')];
        if ((await taken()) < before + 2 || !underlay || !got) return undefined;
        expect(underlay.length).toBe(OUTER + IPV4_HEADER + 12);
        return drawn(packet, underlay, got);
      }, PATIENCE)
      .toBe(blocksOf('docs/fast-path.md').find(({ words }) => words.join(' ') === 'text drawn packet')?.text);
  });
});
