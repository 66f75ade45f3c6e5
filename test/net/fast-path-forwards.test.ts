/**
 * A container that hands on what it gets: to a namespace inside of it, by a bridge, through a tap. What the kernel remembers of a tunnel about a packet that it
 * merged must not do harm there, whoever cuts it then.
 */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { expectExact, FastPathVms } from './fast-path/vms.ts';
import { missing, skip } from './require.ts';
import { stream } from './stream.ts';
import type { Plane } from './vms.ts';

const TAPS = fileURLToPath(new URL('fast-path/taps.mjs', import.meta.url));
const BYTES = 20_000_000;
/** Of the container's own link and of that behind it. */
const [OUTSIDE, INSIDE] = ['172.31.0.1', '172.31.0.2'];
/** Of all segments, those that may be sent again. */
const AGAIN = 0.05;
/** What a device cuts by itself. */
const CUTTING = ['tso', 'gso', 'tx-gre-segmentation', 'tx-gre-csum-segmentation', 'tx-udp_tnl-segmentation'].concat(
  'tx-udp_tnl-csum-segmentation',
  'tx-udp-segmentation',
);

interface Inside {
  name: string;
  /** Makes the way from d1 into the namespace `inside`. */
  make(vms: FastPathVms): Promise<ChildProcess | undefined>;
}

const offloads = (device: string, state: 'on' | 'off', names = ['tso', 'gso']) => [
  'ethtool',
  ...['-K', device, ...names.flatMap((name) => [name, state])],
];

/** A veth from d1 into the namespace. */
async function veth({ lab }: FastPathVms, ...more: string[]): Promise<void> {
  await lab.ip('d1', ['link add in0 type veth peer name in0 netns inside', 'link set in0 up', ...more]);
  await lab.ip('inside', [`address add ${INSIDE}/24 dev in0`, 'link set in0 up', `route add default via ${OUTSIDE}`]);
}

async function taps(vms: FastPathVms, kind: 'whole' | 'cut'): Promise<ChildProcess> {
  const words = [process.execPath, TAPS, 'd1', 'inside', kind];
  const child = vms.lab.start(undefined, words, { stdio: ['pipe', 'pipe', 'inherit'] });
  if (child.stdout) await once(child.stdout, 'data');
  await vms.lab.ip('d1', [`address add ${OUTSIDE}/24 dev tap0`, 'link set tap0 up']);
  await vms.lab.ip('inside', [
    `address add ${INSIDE}/24 dev tap0`,
    'link set tap0 up',
    `route add default via ${OUTSIDE}`,
  ]);
  return child;
}

const INSIDES: readonly Inside[] = [
  {
    name: 'a veth',
    async make(vms) {
      await veth(vms, `address add ${OUTSIDE}/24 dev in0`);
      return undefined;
    },
  },
  {
    name: 'a veth that does not cut',
    async make(vms) {
      await veth(vms, `address add ${OUTSIDE}/24 dev in0`);
      for (const where of ['d1', 'inside']) await vms.lab.must(where, [...offloads('in0', 'off'), 'tx', 'off']);
      return undefined;
    },
  },
  {
    name: "a bridge that has the container's own device",
    async make(vms) {
      const { address, gateway, hostMac, mac } = vms.attached('d1');
      await veth(
        vms,
        `link add br0 address ${mac} type bridge`,
        ...['eth0', 'in0'].map((port) => `link set ${port} master br0`),
        `address delete ${address}/32 dev eth0`,
        ...[`${address}/32`, `${OUTSIDE}/24`].map((each) => `address add ${each} dev br0`),
        'link set br0 up',
        `route replace ${gateway} dev br0`,
        `route replace default via ${gateway} dev br0`,
        `neighbour replace ${gateway} lladdr ${hostMac} nud permanent dev br0`,
      );
      return undefined;
    },
  },
  { name: 'a tap that takes super-packets', make: (vms) => taps(vms, 'whole') },
  { name: 'a tap that takes none', make: (vms) => taps(vms, 'cut') },
];

const needed = await missing('ping', 'nft', 'ethtool', 'nstat');
describe.skipIf(skip('fast path, containers that forward', needed)).each<{ plane: Plane; nic: 'whole' | 'cut' }>([
  { plane: 'wasm', nic: 'whole' },
  { plane: 'wasm', nic: 'cut' },
  { plane: 'wasm-udp', nic: 'whole' },
  { plane: 'wasm-udp', nic: 'cut' },
])('a container that forwards, $plane, device $nic', ({ plane, nic }) => {
  let vms: FastPathVms;
  let relay: ChildProcess | undefined;
  beforeAll(async () => {
    vms = await FastPathVms.of(plane, 'a', 'b');
    for (const vm of ['a', 'b']) {
      // What was cut on the way in is merged on the way out of the wire.
      if (nic === 'cut') await vms.lab.must(vm, [...offloads('eth0', 'off', CUTTING), 'gro', 'on']);
      await vms.up(vm, '--fast-path', 'on');
    }
    await vms.attachTo('a', 'c1');
  });
  afterEach(async () => {
    relay?.stdin?.end();
    if (relay) await once(relay, 'exit');
    relay = undefined;
    await vms.detach('d1');
    await vms.deleteNamespaces('inside', 'd1');
  });
  afterAll(() => vms?.close());

  const segments = async (where: string) => {
    const shown = await vms.lab.must(where, ['nstat', '-asz', 'TcpOutSegs', 'TcpRetransSegs']);
    const value = (name: string) => Number(new RegExp(`${name}\\s+(\\d+)`).exec(shown)?.[1]);
    return { sent: value('TcpOutSegs'), again: value('TcpRetransSegs') };
  };

  test.each(INSIDES)('$name', async ({ make }) => {
    await vms.attachTo('b', 'd1');
    await vms.namespaces('inside');
    await vms.lab.ip('inside', ['link set lo up']);
    relay = await make(vms);
    const rules = `table ip inside { chain in { type nat hook prerouting priority dstnat; tcp dport 5001 dnat to ${INSIDE}; }; }`;
    await vms.lab.must('d1', ['nft', rules]);
    await vms.lab.must('d1', ['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward']);
    await vms.settled('a', 'b');
    await vms.acquainted('c1', 'd1');
    const [before, taken] = [await segments('c1'), await vms.taken('b')];
    await stream(vms.lab, 'c1', { name: 'inside', address: vms.address('d1'), listens: INSIDE }, BYTES);
    const after = await segments('c1');
    for (const { sent, again } of [
      { sent: after.sent - before.sent, again: after.again - before.again },
      await segments('inside'),
    ])
      expect(again).toBeLessThan(sent * AGAIN);
    const { inbound, outbound } = await vms.taken('b');
    for (const more of [inbound - taken.inbound, outbound - taken.outbound]) expect(more).toBeGreaterThan(100);
    for (const vm of ['a', 'b']) expectExact(await vms.status(vm));
  });
});
