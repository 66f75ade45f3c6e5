/** Whatever a journal says, `down` undoes nothing but what Inlay makes: it writes no file elsewhere, removes none, and takes nothing of others. */
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import { parseLines } from '../../src/machine/journal-lines.ts';
import { kindOf } from '../../src/machine/things/kinds.ts';
import { missing, skip } from '../net/require.ts';

const DOWN = fileURLToPath(new URL('./hostile-journals.mjs', import.meta.url));
const CANARY = '/run/canary';
/** As a path from /proc/sys, where sysctls are. */
const AWAY = `../../..${CANARY}`;

const device = fc.constantFrom(
  'eth0',
  'gre0',
  'lo',
  'all',
  'default',
  '.',
  '..',
  '',
  'a/b',
  AWAY,
  'x'.repeat(16),
  '\u001b[2J',
  'e0\n',
);
const setting = fc.constantFrom(
  'forwarding',
  'rp_filter',
  'disable_ipv6',
  'file',
  '../file',
  'proxy_arp',
  '../../../../ip_forward',
  '',
);
const name = fc.oneof(
  fc
    .tuple(fc.constantFrom('net/ipv4/conf', 'net/ipv6/conf', 'net/ipv4', 'kernel', ''), device, setting)
    .map((parts) => parts.join('/')),
  fc.constantFrom(
    `${AWAY}/file`,
    `${CANARY}/file`,
    `net/${AWAY}/file`,
    'net/ipv4/ip_forward',
    'net/ipv4/conf/eth0/../../ip_forward',
  ),
);
const value = fc.constantFrom('0', '1', '2', '1\n0', 'root::0:0:::', '', '9'.repeat(50));
const to = fc.constantFrom(
  '10.0.0.0/8',
  '0.0.0.0/0',
  '192.168.0.0/16',
  '127.0.0.0/8',
  '10.0.0.0/33',
  'x',
  '10.0.0.0/8 \n',
);
const number = fc.constantFrom(0, 1, -1, 1.5, 73, 75, 4, 4754, 22, 2 ** 32, 32700, 32766);
const thing = fc.oneof(
  fc.record({ kind: fc.constant('sysctl'), name, value, device }),
  fc.record({
    kind: fc.constant('directory'),
    path: fc.constantFrom(CANARY, `${CANARY}/empty`, '/run/l', '.', '..', '/'),
  }),
  fc.record({ kind: fc.constantFrom('link-up', 'clsact', 'container-filters'), device }),
  fc.record({
    kind: fc.constant('link'),
    device,
    info: fc.constantFrom({ kind: 'gre' }, { kind: 'veth' }, { kind: 'gre', data: { ttl: 1 } }, null, 'gre'),
  }),
  fc.record({ kind: fc.constant('filter'), device, place: fc.constantFrom('ingress', 'egress', 'root') }),
  fc.record({ kind: fc.constant('route'), to, metric: number, protocol: number }),
  fc.record({
    kind: fc.constant('rule'),
    to,
    priority: number,
    action: fc.constantFrom('main', 'unreachable', 'goto'),
  }),
  fc.record({ kind: fc.constant('fou'), port: number }),
  fc.record({ kind: fc.constantFrom('toString', '__proto__', 'addresses', 'link-settings'), device }),
);
const line = fc.oneof(
  fc
    .record({
      v: fc.constant(1),
      op: fc.constant('add'),
      owner: fc.constantFrom('daemon', 'daemon', '\u001b[2J'),
      thing: fc.oneof(
        { weight: 20, arbitrary: thing },
        { weight: 1, arbitrary: fc.json().map((text) => JSON.parse(text)) },
      ),
      before: fc.oneof(value, fc.constant(undefined)),
    })
    .map((found) => JSON.stringify(found)),
  fc.string(),
);
const journal = fc.array(line, { maxLength: 12 });

test('what is taken from a journal is safe to show, and names what Inlay makes', () => {
  let taken = 0;
  fc.assert(
    fc.property(journal, (lines) => {
      for (const { owner, thing: found, before } of parseLines(`${lines.join('\n')}\n`).entries.values()) {
        taken++;
        const words = [owner, kindOf(found).describe(found), before ?? ''].join(' ');
        // biome-ignore lint/suspicious/noControlCharactersInRegex: there may be none.
        expect(words).not.toMatch(/[\x00-\x1f\x7f-\x9f]/);
        if (found.kind === 'sysctl') {
          expect(found.name).toMatch(/^net\/ipv[46]\/conf\/[^/]+\/[a-z0-9_]+$/);
          expect(found.name).not.toMatch(/\.\.|\/(all|default)\//);
          expect([found.value, before ?? '0'].join()).toMatch(/^-?\d{1,10},-?\d{1,10}$/);
        }
      }
    }),
    { numRuns: 2000 },
  );
  expect(taken).toBeGreaterThan(100);
});

describe.skipIf(skip('hostile journals', await missing('sysctl')))('in a kernel', () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await Lab.open();
    // A file whose text is a value that a journal may name: an entry for it would be undone.
    const canaries = `mkdir -p ${CANARY}/empty && printf 1 >${CANARY}/file && printf 1 >${CANARY}/forwarding`;
    await lab.must(undefined, ['sh', '-c', canaries]);
    await lab.ip(undefined, [
      ...['link add eth0 type veth peer name eth1', 'link set eth0 up', 'link set eth1 up'],
      'address add 192.168.16.32/16 dev eth0',
      ...[
        'route add 10.0.0.0/8 dev eth0 metric 1',
        'route add 127.0.0.0/8 dev eth0',
        'rule add to 10.0.0.0/8 priority 32700 table 9',
      ],
    ]);
  });
  afterAll(() => lab?.close());

  const WITHOUT = ['forwarding', 'rp_filter', 'disable_ipv6'].map((each) => `--exclude=${each}`).join(' ');
  const look = () =>
    lab.must(undefined, [
      ...['sh', '-c'],
      `ls -lR --time-style=full-iso ${CANARY} && cat ${CANARY}/*r* ${CANARY}/file && ip route && ip rule && ip -o link show eth0
       grep -rs ${WITHOUT} . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/ip_forward | sort; ls /run`,
    ]);

  test('down changes nothing of others, whatever the journal says', async () => {
    const before = await look();
    const journals = fc.sample(journal, 150);
    const said: string[][] = JSON.parse(
      await lab.must(undefined, [process.execPath, DOWN, '/run/l'], JSON.stringify(journals)),
    );
    expect(said.length).toBe(journals.length);
    expect(await look()).toBe(before);
  });
});
