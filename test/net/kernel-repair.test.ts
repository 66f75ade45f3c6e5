/** Somebody changes what the daemon made: it is put right, and packets flow. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { KernelVms } from './kernel-vms.ts';
import { missing, skip } from './require.ts';
import { type Daemon, PATIENCE, withoutIndexes } from './vms.ts';

describe.skipIf(skip('kernel repair', await missing('ping', 'tc', 'bridge')))('kernel repair', () => {
  let vms: KernelVms;
  let a: Daemon;
  let calm: unknown;
  /** With one remote VM known. */
  let right: unknown;

  beforeAll(async () => {
    vms = await KernelVms.open('a', 'b', 'c');
    calm = await vms.network('a');
    await vms.up('b');
    await vms.up('c');
    await start();
    right = await vms.network('a');
  });
  /** What one test did not put right is no matter of the next. */
  afterEach(async ({ task }) => {
    if (task.result?.state !== 'fail') return;
    await vms.reset('a');
    await vms.lab.run('a', ['sh', '-c', 'ip route del 10.0.0.0/8 dev lo; ip link del peer0']);
    await vms.ip('a', 'link set eth0 up', 'address replace 192.168.16.32/16 dev eth0');
    await start();
  });
  afterAll(() => vms?.close());

  async function start(): Promise<void> {
    a = await vms.up('a', '--idle-timeout', '1h', '--log-level', 'debug');
    expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
  }
  const isRight = () =>
    expect.poll(async () => withoutIndexes(await vms.network('a')), PATIENCE).toEqual(withoutIndexes(right));
  const flows = async () => {
    for (const [from, to] of [
      ['a', 'b'],
      ['b', 'a'],
    ] as const)
      await expect.poll(() => vms.pings(from, vms.overlay(to), 3), PATIENCE).toBe('3');
    expect(await vms.status('a')).toMatchObject({ state: 'running', pid: a.pid, sourceCheck: 'on' });
  };

  const b = { neighbour: '10.16.33.1', mac: '02:00:c0:a8:10:21', slice: '10.16.33.0/24' };
  const wrong = 'lladdr 02:00:c0:a8:10:22 dev inlay0';
  const cases: [name: string, command: string][] = [
    ['the route to the overlay is deleted', 'ip route del 10.0.0.0/8'],
    [
      'the route that makes our slice unreachable is deleted',
      'ip route del unreachable 10.16.32.0/24 metric 4294967295',
    ],
    ['the catch-all is deleted', 'ip route del unreachable 10.0.0.0/8 metric 1'],
    ['all our routes are flushed', 'ip route flush proto 73; ip route flush proto 75'],
    ["the catch-all's rules are deleted", 'ip rule del priority 32700; ip rule del priority 32701'],
    ['our address is deleted', 'ip address del 10.16.32.1/32 dev inlay0'],
    ["the device's addresses are flushed", 'ip address flush dev inlay0'],
    ["the device's routes are flushed", 'ip route flush dev inlay0'],
    ["a VM's route is deleted", `ip route del ${b.slice}`],
    [
      "a VM's route is replaced",
      `ip route del ${b.slice}; ip route add ${b.slice} via 10.16.33.7 dev inlay0 onlink proto 73 metric 5`,
    ],
    ["a VM's neighbour is deleted", `ip neighbour del ${b.neighbour} dev inlay0`],
    [
      "a VM's neighbour gets another MAC address",
      `ip neighbour replace ${b.neighbour} ${wrong} nud permanent extern_learn protocol 73`,
    ],
    [
      "a VM's neighbour gets another MAC address, of others",
      `ip neighbour replace ${b.neighbour} ${wrong} nud reachable`,
    ],
    ["a VM's neighbour fails", `ip neighbour change ${b.neighbour} dev inlay0 nud failed`],
    ['all neighbours are flushed', 'ip neighbour flush dev inlay0; ip neighbour flush nud permanent dev inlay0'],
    ["a VM's MAC address is forgotten", `bridge fdb del ${b.mac} dev inlay0 dst 192.168.16.33 self`],
    ["a VM's MAC address moves", `bridge fdb replace ${b.mac} dev inlay0 dst 192.168.16.34 self permanent`],
    [
      'a neighbour that is no VM',
      'ip neighbour add 10.16.40.1 lladdr 02:00:00:00:00:01 dev inlay0 extern_learn protocol 73',
    ],
    ['the device is set down', 'ip link set inlay0 down'],
    ['the device is set down and up', 'ip link set inlay0 down; ip link set inlay0 up'],
    ['the device gets another MTU', 'ip link set inlay0 mtu 1400'],
    ['the device does not ask any more', 'ip link set inlay0 arp off'],
    ['the device is deleted', 'ip link del inlay0'],
    ['the device is deleted twice', 'ip link del inlay0; sleep 0.1; ip link del inlay0; true'],
    [
      'another device takes its place',
      'ip link del inlay0; ip link add inlay0 type vxlan id 77 dstport 4790 local 192.168.16.32; ip link del inlay0; true',
    ],
    ['the device does not forward any more', 'echo 0 >/proc/sys/net/ipv4/conf/inlay0/forwarding'],
    ['the device hears of redirects', 'echo 1 >/proc/sys/net/ipv4/conf/inlay0/accept_redirects'],
    ['all devices forward, and then none', 'for on in 1 0; do echo $on >/proc/sys/net/ipv4/ip_forward; done'],
    [
      "the underlay's address goes and comes",
      'ip address del 192.168.16.32/16 dev eth0; ip address add 192.168.16.32/16 dev eth0',
    ],
    ["the underlay's device goes down and up", 'ip link set eth0 down; ip link set eth0 up'],
  ];

  test.each(cases)('%s', async (_, command) => {
    await vms.lab.must('a', ['sh', '-c', command]);
    await flows();
    await isRight();
  });

  test.each([
    ['the program at the ingress of the underlay is removed', 'tc filter del dev eth0 ingress'],
    ["the underlay's discipline is removed", 'tc qdisc del dev eth0 clsact'],
    ['the program at the ingress of our device is removed', 'tc filter del dev inlay0 ingress'],
    ['the program at the egress of our device is removed', 'tc filter del dev inlay0 egress'],
    ["our device's discipline is removed", 'tc qdisc del dev inlay0 clsact'],
  ])('%s', async (_, command) => {
    await vms.lab.must('a', ['sh', '-c', command]);
    await isRight();
    await flows();
  });

  test('a route of others that takes the place of ours is reported, and the daemon goes on', async () => {
    const said = (await vms.log('a')).length;
    await vms.ip('a', 'route replace 10.0.0.0/8 dev lo');
    await expect
      .poll(async () => (await vms.log('a')).slice(said), PATIENCE)
      .toContain('degraded: a route to 10.0.0.0/8 exists already: 10.0.0.0/8 dev lo proto 3');
    // VMs that are known have routes of their own.
    expect(await vms.pings('a', vms.overlay('b'), 3)).toBe('3');
    expect(await vms.status('a')).toMatchObject({
      state: 'degraded',
      troubles: [
        {
          what: 'a route to 10.0.0.0/8 exists already: 10.0.0.0/8 dev lo proto 3',
          hint: expect.stringContaining('ip route del 10.0.0.0/8'),
        },
      ],
    });
    expect(await vms.lab.must('a', ['ip', 'route', 'show', '10.0.0.0/8'])).toBe(
      '10.0.0.0/8 dev lo scope link \nunreachable 10.0.0.0/8 proto 75 metric 1 \n',
    );
    await vms.ip('a', 'route del 10.0.0.0/8 dev lo');
    await isRight();
    await flows();
  });

  test('a device of others that takes the place of ours is reported and left alone', async () => {
    const said = (await vms.log('a')).length;
    await vms.lab.must('a', [
      'sh',
      '-c',
      `kill -STOP ${a.pid}; ip link del inlay0; ip link add inlay0 type veth peer name peer0; kill -CONT ${a.pid}`,
    ]);
    a.child.kill('SIGCONT');
    await expect
      .poll(async () => (await vms.log('a')).slice(said), PATIENCE)
      .toContain('degraded: device inlay0 exists already');
    expect(await vms.status('a')).toMatchObject({ state: 'degraded' });
    expect(await vms.lab.must('a', ['ip', '-d', 'link', 'show', 'inlay0'])).toMatch(/veth/);
    await vms.ip('a', 'link del inlay0');
    await expect.poll(() => vms.pings('a', vms.overlay('b'), 3), PATIENCE).toBe('3');
    await isRight();
    await flows();
  });

  test('first packets to another VM still arrive, and in the end down removes everything', async () => {
    expect(await vms.pings('a', vms.overlay('c'), 1)).toBe('1');
    await vms.expectEntries('a', 'b', 'c');
    expect(await vms.end('TERM', a)).toBe(0);
    expect(await vms.inlay('a', 'down')).toMatchObject({ code: 0, stderr: '' });
    expect(await vms.network('a')).toEqual(calm);
  });
});
