/** Where the fast path hands packets to: to the VM, to a router, or to whom the kernel finds. */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { nextHopOf } from '../../src/dataplane/fast-path/obstacles/ways.ts';
import { Lab } from '../../src/demo/lab.ts';
import { ipv4Bytes } from '../../src/linux/netlink/ipv4.ts';
import type { AnyRoute } from '../../src/linux/netlink/route.ts';
import { why } from '../fast-path/twin.mjs';
import { missing, skip } from './require.ts';

const AGENT = fileURLToPath(new URL('next-hop.mjs', import.meta.url));
const [CONTAINER, OTHER] = ['10.16.32.91', '10.16.33.91'];
const [VM, ROUTER] = ['192.168.16.33', '192.168.16.1'];
const MACS = { vm: '02:00:00:00:00:33', router: '02:00:00:00:00:01' };
const ROUTER_NUMBER = 0xc0a81001;

const counters = `table netdev seen {
  counter vm {}
  counter router {}
  chain ingress {
    type filter hook ingress device "eth0" priority 0;
    ip protocol gre ether daddr ${MACS.vm} counter name vm
    ip protocol gre ether daddr ${MACS.router} counter name router
  }
}
`;

const reason = (await missing('ip', 'nft', 'ping')) ?? why();

test.each([
  ['the VM itself', [{}], 'vm'],
  ['the VM itself, whatever covers it', [{}, {}], 'vm'],
  ['a router', [{ gateway: ipv4Bytes(ROUTER_NUMBER) }], ROUTER_NUMBER],
  ['some by a router', [{ gateway: ipv4Bytes(ROUTER_NUMBER) }, {}], undefined],
  ['two routers', [{ gateway: ipv4Bytes(ROUTER_NUMBER) }, { gateway: ipv4Bytes(ROUTER_NUMBER + 1) }], undefined],
  ['a router of IPv6', [{ via: new Uint8Array(18) }], undefined],
  ['several at once', [{ multipath: [{ ifindex: 2 }, { ifindex: 2 }] }], undefined],
  ['none', [], undefined],
] satisfies [string, Partial<AnyRoute>[], unknown][])('routes to %s', (_, ways, expected) => {
  expect(nextHopOf(ways as AnyRoute[])).toBe(expected);
});

let lab: Lab;
beforeAll(async () => {
  if (reason !== undefined) return;
  lab = await Lab.open();
  await lab.ip(undefined, [
    ...['netns add vm', 'netns add world', 'netns add c'],
    'link add eth0 netns vm type veth peer name eth0 netns world',
    'link add port netns vm type veth peer name eth0 netns c',
  ]);
  await lab.ip('world', ['link set eth0 up']);
  await lab.must('world', ['nft', '-f', '-'], counters);
  await lab.ip('vm', [
    ...['address add 192.168.16.32/16 dev eth0', 'link set eth0 up', 'link set port up'],
    `neighbour add ${VM} lladdr ${MACS.vm} dev eth0 nud permanent`,
    `neighbour add ${ROUTER} lladdr ${MACS.router} dev eth0 nud permanent`,
  ]);
  const [mac] = /(?<=link\/ether )\S+/.exec(await lab.must('vm', ['ip', 'link', 'show', 'port'])) ?? [];
  await lab.ip('c', [
    ...[`address add ${CONTAINER}/8 dev eth0`, 'link set eth0 up'],
    `neighbour add ${OTHER} lladdr ${mac} dev eth0 nud permanent`,
  ]);
  await lab.linksUp('c', ['eth0']);
  await lab.linksUp('vm', ['eth0', 'port']);
});
afterAll(() => lab?.close());

test.skipIf(skip('next hop', reason))(
  'packets go where the next hop says, and else where the kernel has a route',
  async () => {
    const agent = lab.start('vm', [process.execPath, AGENT, 'port', 'eth0', CONTAINER, VM], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const ended = once(agent, 'exit');
    const answer = async () => {
      const [text] = await Promise.race([once(agent.stdout as NodeJS.ReadableStream, 'data'), ended]);
      return String(text);
    };
    expect(await answer()).toBe('ready\n');
    let seen = await packets();
    /** How many packets of five each gets. The first of all goes its ordinary way. */
    const gets = async (nextHop: unknown, count = 5) => {
      const said = answer();
      agent.stdin?.write(`${JSON.stringify(nextHop)}\n`);
      await said;
      await lab.run('c', ['ping', '-q', '-c', String(count), '-i', '0.01', '-W', '0.01', OTHER]);
      const before = seen;
      seen = await packets();
      return { vm: seen.vm - before.vm, router: seen.router - before.router };
    };
    await gets(null, 1);
    expect(await gets(null)).toEqual({ vm: 5, router: 0 });
    expect(await gets('vm')).toEqual({ vm: 5, router: 0 });
    expect(await gets(ROUTER_NUMBER)).toEqual({ vm: 0, router: 5 });
    await lab.ip('vm', [`route add ${VM} via ${ROUTER}`]);
    expect(await gets(null)).toEqual({ vm: 0, router: 5 });
    expect(await gets('vm')).toEqual({ vm: 5, router: 0 });
  },
);

async function packets() {
  const text = await lab.must('world', ['nft', 'list', 'counters', 'netdev']);
  const of = (name: string) => Number(new RegExp(`counter ${name} \\{\\s+packets (\\d+)`).exec(text)?.[1]);
  return { vm: of('vm'), router: of('router') };
}
