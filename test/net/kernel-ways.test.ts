/** Kernel data plane: containers are told what the underlay's way to a VM takes, and that there is none. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Mesh } from '../../src/demo/mesh.ts';
import { KernelVms } from './kernel-vms.ts';
import { startMesh } from './mesh.ts';
import { missing, skip } from './require.ts';
import { stream } from './stream.ts';
import { type Daemon, PATIENCE } from './vms.ts';

const FLAGS = ['--dataplane', 'kernel', '--encapsulation', 'vxlan'];
const OVERHEAD = 50;
const NARROW = 1300;

const reason = await missing('ping', 'tc', 'bridge');

describe.skipIf(skip('kernel ways, path MTU', reason))('kernel ways, path MTU', () => {
  let lab: Lab;
  let mesh: Mesh;
  const at = (i: number) => {
    const vm = mesh.vms[i];
    const [container] = vm?.containers ?? [];
    if (!vm || !container) throw new Error(`there is no VM ${i}`);
    return { vm, container };
  };

  beforeEach(async () => {
    lab = await Lab.open();
    mesh = await startMesh(lab, FLAGS);
    // The bridge becomes a router that finds each VM by its port.
    await lab.ip(undefined, [
      'address add 192.168.66.6/32 dev lo',
      ...mesh.vms.map(({ name }) => `link set port-${name} nomaster`),
    ]);
    await wayThrough(1500);
    const ports = mesh.vms.map(({ name }) => `port-${name}`).join(' ');
    const script = `for port in ${ports}; do for key in forwarding proxy_arp; do echo 1 >/proc/sys/net/ipv4/conf/$port/$key; done; echo 0 >/proc/sys/net/ipv4/neigh/$port/proxy_delay; done
      echo 0 >/proc/sys/net/ipv4/icmp_ratelimit`;
    await lab.must(undefined, ['sh', '-c', script]);
    for (const { name } of mesh.vms) await lab.ip(name, ['neigh flush dev eth0']);
  });
  afterEach(() => lab.close());

  const wayThrough = (mtu: number) =>
    lab.ip(
      undefined,
      mesh.vms.map(({ name, underlay }) => `route replace ${underlay}/32 dev port-${name} mtu ${mtu}`),
    );
  const slice = () => lab.must(at(0).vm.name, ['ip', 'route', 'show', at(1).vm.slice]);
  const tunnelMtu = async (from: number) => (await mesh.tunnels(at(from).vm))[0]?.mtu;
  const ping = async (to: string, ...words: string[]) =>
    (await lab.run(at(0).container.name, ['ping', '-n', '-c', '3', '-i', '0.2', '-W', '1', ...words, to])).stdout;
  /** Sends too much until somebody says so. */
  const isTold = (to: string) =>
    expect.poll(() => ping(to, '-M', 'do', '-s', '1400'), PATIENCE).toContain(`mtu = ${NARROW - OVERHEAD}`);

  test('the route to the slice says it, to all containers; the device and other VMs stay as they are', async () => {
    await wayThrough(NARROW);
    await isTold(at(1).container.address);
    expect(await slice()).toContain(` mtu ${NARROW - OVERHEAD}`);
    expect(await tunnelMtu(0)).toBe(NARROW - OVERHEAD);
    expect((await mesh.status(at(0).vm)).mtu).toBe(1500 - OVERHEAD);
    expect(await lab.must(at(0).vm.name, ['cat', '/sys/class/net/inlay0/mtu'])).toBe(`${1500 - OVERHEAD}\n`);
    // One that nothing was sent to: its first packets are refused, or cut. The answers have a way of their own.
    const another = '10.16.33.100';
    await lab.ip(at(1).container.name, [`address add ${another}/32 dev eth0`]);
    await lab.ip(at(1).vm.name, [`route add ${another}/32 dev ${at(1).container.hostInterface}`]);
    expect(await ping(another, '-M', 'do', '-s', '1400')).toContain(`mtu = ${NARROW - OVERHEAD}`);
    await expect.poll(() => ping(another, '-M', 'dont', '-s', '1400'), PATIENCE).toContain(' 0% packet loss');
    // Super-packets go as they are, in segments that fit.
    await stream(lab, at(0).container.name, at(1).container, 10_000_000);
  });

  test('a first stream, that nothing told before, completes', async () => {
    await wayThrough(NARROW);
    await stream(lab, at(0).container.name, at(1).container, 10_000_000);
    expect([await tunnelMtu(0), await tunnelMtu(1)]).toEqual([NARROW - OVERHEAD, NARROW - OVERHEAD]);
  });

  test('when what the kernel had learnt is too old, more goes through again', async () => {
    await lab.must(at(0).vm.name, ['sh', '-c', 'echo 3 >/proc/sys/net/ipv4/route/mtu_expires']);
    await wayThrough(NARROW);
    await isTold(at(1).container.address);
    await wayThrough(1500);
    await expect.poll(slice, PATIENCE).not.toContain(' mtu ');
    await lab.ip(at(0).container.name, ['route flush cache']);
    expect(await ping(at(1).container.address, '-M', 'do', '-s', '1400')).toContain(' 0% packet loss');
    expect(await tunnelMtu(0)).toBe(1500 - OVERHEAD);
  });

  test('a route of the underlay to one VM, with an MTU of its own', async () => {
    await lab.ip(at(0).vm.name, [`route add ${at(1).vm.underlay}/32 dev eth0 mtu ${NARROW}`]);
    await isTold(at(1).container.address);
    await lab.ip(at(0).vm.name, [`route del ${at(1).vm.underlay}/32`]);
    await expect.poll(slice, PATIENCE).not.toContain(' mtu ');
  });

  test('a daemon that comes back finds the route right', async () => {
    await wayThrough(NARROW);
    await isTold(at(1).container.address);
    const before = await slice();
    const { pid } = await mesh.status(at(0).vm);
    await lab.must(undefined, ['kill', '-KILL', String(pid)]);
    await expect.poll(() => mesh.status(at(0).vm).catch(() => undefined), PATIENCE).toBeUndefined();
    await mesh.startDaemon(at(0).vm);
    await expect.poll(() => tunnelMtu(0), PATIENCE).toBe(NARROW - OVERHEAD);
    expect(await slice()).toBe(before);
    expect((await mesh.status(at(0).vm)).neighbours).toMatchObject({ failed: 0, repaired: 0 });
  });
});

describe.skipIf(skip('kernel ways, no route', reason))('kernel ways, no route', () => {
  let vms: KernelVms;
  let calm: unknown;
  let a: Daemon;
  const ROUTE = '192.168.0.0/16';
  const back = `route add ${ROUTE} dev eth0 src 192.168.16.32`;
  const TOLD = 'Destination Host Unreachable';

  beforeAll(async () => {
    vms = await KernelVms.open('a', 'b', 'c');
    // As it is after the route went and came.
    await vms.ip('a', `route del ${ROUTE}`, back);
    calm = await vms.network('a');
    await vms.up('b');
    await vms.up('c');
  });
  beforeEach(async () => {
    a = await vms.up('a', '--idle-timeout', '1h');
    expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
  });
  afterEach(async () => {
    await vms.reset('a');
    await vms.lab.run('a', ['ip', 'route', 'del', ROUTE]);
    await vms.ip('a', back);
    await vms.lab.run(undefined, ['rm', '-f', '/run/a.log']);
  });
  afterAll(() => vms?.close());

  const ping = async (to: string, count = 1) =>
    (await vms.lab.run('a', ['ping', '-n', '-c', String(count), '-i', '0.2', '-W', '2', to])).stdout;
  const unreachable = async () =>
    Object.fromEntries((await vms.tunnels('a')).map((tunnel) => [tunnel.vm, tunnel.unreachable]));
  const isLost = async (why = 'network unreachable') => {
    await expect.poll(unreachable, PATIENCE).toEqual({ '192.168.16.33': why });
    await expect
      .poll(() => vms.lab.must('a', ['ip', 'route', 'show', '10.16.33.0/24']), PATIENCE)
      .toContain('via 10.16.33.0 ');
  };
  const flows = (to: string) => expect.poll(() => vms.pings('a', vms.overlay(to), 3), PATIENCE).toBe('3');

  test.each([
    ['is deleted', `route del ${ROUTE}`, 'network unreachable'],
    ['is unreachable', `route replace unreachable ${ROUTE}`, 'host unreachable'],
    ['is prohibited', `route replace prohibit ${ROUTE}`, 'communication prohibited'],
    ['is a black hole', `route replace blackhole ${ROUTE}`, 'network unreachable'],
  ])('it %s: senders are told, to VMs that are known and to others, until it is back', async (_, line, why) => {
    await vms.ip('a', line);
    await isLost(why);
    expect(await ping('10.16.33.77')).toContain(TOLD);
    expect(await ping(vms.overlay('b'))).toContain(TOLD);
    // The kernel tells nobody more often than once a second, but for the first six.
    await new Promise((resolve) => setTimeout(resolve, 3000));
    expect(await ping('10.16.34.77')).toContain(TOLD);
    expect(await unreachable()).toEqual({ '192.168.16.33': why, '192.168.16.34': why });
    // Each VM once.
    const said = async () =>
      [...(await vms.log('a')).matchAll(/"vm":"([^"]*)".*"VM unreachable"/g)].map(([, name]) => name);
    await expect.poll(said, PATIENCE).toEqual(['192.168.16.33', '192.168.16.34']);
    expect(await vms.status('a')).toMatchObject({ pid: a.pid, neighbours: { failed: 0, repaired: 0 } });

    await vms.lab.run('a', ['ip', 'route', 'del', ROUTE]);
    await vms.ip('a', back);
    await flows('b');
    await flows('c');
    expect(await unreachable()).toEqual({ '192.168.16.33': undefined, '192.168.16.34': undefined });
    await vms.expectEntries('a', 'b', 'c');
  });

  test('the device of the underlay is down for a while', async () => {
    await vms.ip('a', 'link set eth0 down');
    await isLost();
    await vms.ip('a', 'link set eth0 up');
    await flows('b');
  });

  test('the daemon ends: the kernel forwards as soon as the route is back', async () => {
    await vms.ip('a', `route del ${ROUTE}`);
    await isLost();
    expect(await vms.end('TERM', a)).toBe(0);
    await vms.ip('a', back);
    await flows('b');
  });

  test('the daemon is killed, and the next one sees that the route is back', async () => {
    await vms.ip('a', `route del ${ROUTE}`);
    await isLost();
    await vms.end('KILL', a);
    await vms.ip('a', back);
    await vms.up('a');
    await flows('b');
    await vms.expectEntries('a', 'b');
  });

  test('the daemon is killed, and down leaves nothing behind', async () => {
    await vms.ip('a', `route del ${ROUTE}`);
    await isLost();
    await vms.end('KILL', a);
    expect(await vms.inlay('a', 'down')).toMatchObject({ code: 0, stderr: '' });
    await vms.ip('a', back);
    expect(await vms.network('a')).toEqual(calm);
  });
});
