/**
 * Rules that change addresses, under traffic: a service whose containers are in the mesh is reached by other containers, since the
 * fast path leaves their packets to the ordinary way; and so is one outside.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { FastPathStatus } from '../../src/dataplane/dataplane.ts';
import { FastPathVms } from './fast-path/vms.ts';
import { missing, skip } from './require.ts';
import { stream } from './stream.ts';
import { PATIENCE, type Plane } from './vms.ts';

const SERVICE = '172.30.0.1';
const BYTES = 200_000;
/** Who makes it, and how. */
interface Tool {
  make: (to: string) => string;
  undo: string;
  chain: string;
}

const NFTABLES: Tool = {
  make: (to) =>
    `nft 'table ip n { chain c { type nat hook prerouting priority -100; ip daddr ${SERVICE} dnat to ${to}; }; }'`,
  undo: 'nft delete table ip n',
  chain: 'the chain ip n c of nftables',
};
const LEGACY: Tool = {
  make: (to) => `iptables-legacy -t nat -A PREROUTING -d ${SERVICE} -j DNAT --to-destination ${to}`,
  undo: 'iptables-legacy -t nat -F PREROUTING',
  chain: 'the chain PREROUTING of iptables-legacy (table nat)',
};
const PLANES: readonly Plane[] = ['wasm'];
const reason = await missing('nft', 'iptables-legacy', 'ping');

describe.skipIf(skip('services', reason)).each(PLANES)('services, %s', (plane) => {
  let vms: FastPathVms;

  beforeAll(async () => {
    vms = await FastPathVms.of(plane, 'a', 'b');
    for (const vm of ['a', 'b']) await vms.up(vm);
    await vms.attachTo('a', 'c1', 'c2');
    await vms.attachTo('b', 'd1');
    await vms.settled('a', 'b');
  });
  afterAll(() => vms?.close());

  const sh = (vm: string, script: string) => vms.lab.must(vm, ['sh', '-ec', script]);
  const fastPath = async (vm: string) => (await vms.status(vm)).fastPath as FastPathStatus;

  describe.each(Object.entries({ nftables: NFTABLES, 'iptables-legacy': LEGACY }))('%s', (_, { make, undo, chain }) => {
    test.each([
      ['c2', 'this VM'],
      ['d1', 'another VM'],
    ])('a container %s of %s', async (backend) => {
      await vms.acquainted('c1', backend);
      await sh('a', make(vms.address(backend)));
      try {
        const obstacle = `${chain} may lead packets of containers to other containers`;
        await expect.poll(() => fastPath('a'), PATIENCE).toMatchObject({ state: 'off', obstacle });
        // The other end has the address that was asked.
        await stream(vms.lab, 'c1', { name: backend, address: SERVICE, listens: vms.address(backend) }, BYTES);
      } finally {
        await sh('a', undo);
      }
      await vms.acquainted('c1', backend);
      await expect.poll(async () => (await fastPath('a')).state, PATIENCE).toBe('on');
    });
  });

  test('one outside the mesh is in the way of nothing', async () => {
    const address = '172.31.9.2';
    await vms.lab.ip(undefined, ['netns add outside']);
    await vms.ip(
      'a',
      'link add out0 type veth peer name out0 netns outside',
      'link set out0 up',
      'address add 172.31.9.1/24 dev out0',
    );
    await vms.lab.ip('outside', [
      `address add ${address}/24 dev out0`,
      'link set out0 up',
      'route add default via 172.31.9.1',
    ]);
    await sh('a', 'for d in out0; do echo 1 >/proc/sys/net/ipv4/conf/$d/forwarding; done');
    await sh('a', NFTABLES.make(address));
    await stream(vms.lab, 'c1', { name: 'outside', address: SERVICE, listens: address }, BYTES);
    await vms.acquainted('c1', 'c2');
    await vms.acquainted('c1', 'd1');
    expect(await fastPath('a')).toMatchObject({ state: 'on' });
  });
});
