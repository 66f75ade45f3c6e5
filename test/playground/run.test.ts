/** What the page makes of packets is what the core makes of them: the golden packets, and the examples. */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { Carry } from '../../playground/carry.ts';
import { hostOf } from '../../playground/host.ts';
import { meshOf } from '../../playground/mesh.ts';
import { dissect } from '../../playground/packet/dissect.ts';
import { bytesOf, hexOf } from '../../playground/packet/hex.ts';
import { Vm } from '../../playground/packet/run.ts';
import { DEFAULTS, type State } from '../../playground/state.ts';
import { createCore, ipv4, ipv4Text, mapping } from '../../src/core/index.ts';
import { formatAddress } from '../../src/mesh/address.ts';

/** One core for all tests, as on the page: what one run leaves in it must not matter to the next. */
const core = await createCore();
const host = (state: State) => hostOf(state, meshOf(state), core);

interface Golden {
  config: { local: string; mappings: { overlay: string; underlay: string }[]; key?: number };
  vectors: {
    name: string;
    direction: string;
    input: string;
    verdict: string;
    output?: string;
    outputs?: string[];
    peer?: string;
    reply?: string;
    merged?: number;
    refused?: number;
  }[];
}

const folder = new URL('../vectors/', import.meta.url);
const files = readdirSync(folder).filter((name) => name.endsWith('.json'));
const golden = files.map((name): [string, Golden] => [name, JSON.parse(readFileSync(new URL(name, folder), 'utf8'))]);
/** As of a packet that the page is given: nobody says whether it was merged, and nothing is refused later. */
const isPlain = ({ merged, refused }: Golden['vectors'][number]) => merged === undefined && refused === undefined;
const plain = golden.filter(([, { vectors }]) => vectors.some(isPlain));

test('there are golden packets', () => {
  expect(plain.length).toBeGreaterThan(8);
});

test.each(plain)('%s', (_, { config, vectors }) => {
  const told = {
    ...config,
    local: ipv4(config.local),
    mappings: config.mappings.map((pair) => mapping(pair.overlay, pair.underlay)),
  };
  for (const vector of vectors.filter(isPlain)) {
    const way = vector.direction === 'outbound' ? 'encapsulate' : 'decapsulate';
    const { verdict, messages, replies, peer } = new Vm(core, told).handle(way, bytesOf(vector.input), 1);
    const expected = vector.outputs ?? (vector.output === undefined ? [] : [vector.output]);
    expect([vector.name, verdict.name, ...messages.map((bytes) => hexOf(bytes))]).toEqual([
      vector.name,
      vector.verdict,
      ...expected,
    ]);
    expect(replies.map((bytes) => hexOf(bytes))).toEqual(vector.reply === undefined ? [] : [vector.reply]);
    expect(peer === undefined ? undefined : ipv4Text(peer)).toBe(vector.peer);
  }
});

const VERDICTS: Record<string, string> = {
  ...{ 'empty packet': 'forward', ping: 'forward', 'TCP SYN': 'forward', 'too big': 'too-big', fragmented: 'forward' },
  ...{ 'to nobody': 'reserved-address', 'foreign source': 'foreign-source', 'from the other VM': 'forward' },
  ...{ damaged: 'gre-checksum', 'another key': 'gre-key', 'spoofed source': 'spoofed-source' },
};

describe.each([
  ['README.md', {}],
  ['class E', { overlay: '240.0.0.0/4', underlay: '192.168.0.0/17' }],
  ['two VMs', { overlay: '10.0.0.0/28', underlay: '192.168.16.32/30', local: '192.168.16.33' }],
  ['GRE in UDP', { encapsulation: 'gre-udp' }],
  ['all options', { encapsulation: 'gre-udp', key: '4294967295', checksum: true, sequence: true }],
  ['jumbo frames', { underlayMtu: '9000' }],
  ['the largest MTU', { underlayMtu: '65535' }],
] as [string, Partial<State>][])('the examples for %s', (name, change) => {
  const state = { ...DEFAULTS, ...change };

  test('show what their names say, with right checksums', () => {
    const { examples, config } = host(state);
    if (!config) throw new Error('no VM');
    const found = examples.map(({ name: example, way, make }) => {
      const packet = make();
      const { verdict, messages, replies } = new Vm(core, config).handle(way, packet, 1);
      if (example === 'fragmented') expect(messages.length).toBeGreaterThan(1);
      expect(replies.length).toBe(['too-big', 'reserved-address'].includes(verdict.name) ? 1 : 0);
      for (const bytes of [...messages, ...(example === 'damaged' ? [] : [packet])]) {
        const isOuter = (way === 'decapsulate') === (bytes === packet);
        const wrong = dissect(bytes, isOuter).flatMap(({ fields }) => fields.filter(({ isWrong }) => isWrong));
        expect(wrong).toEqual([]);
      }
      return [example, verdict.name];
    });
    // Nobody else's address can be taken where there are two VMs.
    const { 'spoofed source': spoofed, ...others }: Record<string, string> = {
      ...VERDICTS,
      // The UDP checksum finds the damage before the GRE checksum does.
      ...(state.encapsulation === 'gre-udp' && { damaged: 'not-delivered' }),
    };
    expect(Object.fromEntries(found)).toEqual(name === 'two VMs' ? others : { ...others, 'spoofed source': spoofed });
  });
});

test('the first example is the packet of README.md', () => {
  const [first] = host(DEFAULTS).examples;
  expect(hexOf(first?.make() ?? new Uint8Array())).toBe(DEFAULTS.packet);
  expect(readFileSync(new URL('../../README.md', import.meta.url), 'utf8')).toContain(DEFAULTS.packet);
});

test('GRE in UDP comes back out as it went in, and for another VM it is not taken off', () => {
  const state: State = { ...DEFAULTS, encapsulation: 'gre-udp', checksum: true };
  const [here, there] = [host(state).config, host({ ...state, local: '192.168.16.33' }).config];
  if (!here || !there) throw new Error('no VM');
  const packet = bytesOf(DEFAULTS.packet);
  const [sent = new Uint8Array()] = new Vm(core, here).handle('encapsulate', packet, 1).messages;
  expect(sent.length).toBe(20 + 28 + 8);
  expect(new Vm(core, there).handle('decapsulate', sent, 1)).toMatchObject({
    verdict: { name: 'forward' },
    messages: [packet],
  });
  expect(new Vm(core, here).handle('decapsulate', sent, 1).verdict).toMatchObject({
    number: undefined,
    name: 'not-delivered',
    meaning: expect.stringContaining('it is for 192.168.16.33'),
  });
});

test.each([
  ['a wrong UDP checksum', 50, 'not-delivered', 'its UDP checksum is wrong'],
  ['a UDP length beyond the packet', 24, 'not-delivered', 'its UDP length does not fit the packet'],
  ['a wrong IPv4 checksum', 8, 'bad-header-checksum', 'the IPv4 header checksum is wrong'],
] as const)('of GRE in UDP, a packet with %s goes as far as on a VM', (_, at, name, meaning) => {
  const state: State = { ...DEFAULTS, encapsulation: 'gre-udp', direction: 'decapsulate' };
  const { config, examples } = host(state);
  const packet = examples.find((example) => example.way === 'decapsulate')?.make();
  if (!config || !packet) throw new Error('no VM');
  packet[at] = (packet[at] ?? 0) ^ 0x55;
  const { verdict, messages } = new Vm(core, config).handle('decapsulate', packet, 1);
  expect([verdict.name, messages]).toEqual([name, []]);
  expect(verdict.meaning).toContain(meaning);
});

test.each([
  ['local', '10.0.0.1', 'VM 10.0.0.1 is outside the underlay prefix 192.168.0.0/16; a VM of this mesh is 192.168.0.1'],
  ['local', 'x', 'local "x": expected an IPv4 address such as 192.168.16.32; a VM of this mesh is 192.168.0.1'],
  ['key', '4294967296', 'key "4294967296": expected a number from 0 to 4294967295'],
  ['underlayMtu', '12', 'underlay-mtu "12": expected a number from 600 to 65535'],
] as const)('%s %s is refused as on the command line', (name, value, error) => {
  const { config, errors } = host({ ...DEFAULTS, [name]: value });
  expect([config, errors[name]]).toEqual([undefined, error]);
});

test('when prefixes change, the address stays the same container, and an example is made anew', () => {
  const carry = new Carry();
  carry.note(DEFAULTS, meshOf(DEFAULTS), host(DEFAULTS));
  const changed = { ...DEFAULTS, overlay: '240.0.0.0/4' };
  const mesh = meshOf(changed);
  if (!('value' in mesh)) throw new Error('no mesh');
  const address = carry.address(mesh.value);
  expect(address && formatAddress(address)).toBe('241.2.0.91');
  const [ip] = dissect(bytesOf(carry.packet(host(changed), 'encapsulate') ?? ''), false);
  const values = Object.fromEntries((ip?.fields ?? []).map(({ name, value }) => [name, value]));
  expect(values).toMatchObject({ Source: '241.2.0.91', Destination: '241.2.16.7', Protocol: '1' });
});
