/** Slots follow the kernel's routes and devices, whoever changes them: each case is made by the commands of iproute2, as others would. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { FollowedVm, XDP } from './followed.ts';
import { missing, skip } from './require.ts';
import { A, B, BASE, type Case, devices, others, routes } from './slot-cases.ts';

const NODE = process.execPath;

describe.skipIf(skip('containers of the fast path', await missing('tc')))('slots', () => {
  let vm: FollowedVm;
  beforeAll(async () => {
    vm = await FollowedVm.open(3);
    await vm.sh(`ip route add ${A} dev v1; ip route add ${B} dev v2`);
    await vm.follow();
  });
  afterAll(() => vm?.close());

  test('have the addresses of both ends', async () => {
    await vm.expectDevices(BASE);
    // From here on only notifications tell.
    await vm.follower.ask('still');
    const index = await vm.indexOf('v1');
    expect((await vm.slots())[A]).toEqual({ link: index, mac: '02:00:00:00:01:01', hostMac: '02:00:00:00:00:01' });
    expect(await vm.follower.status()).toMatchObject({ count: 2 });
  });

  const change =
    ({ sh, slots, undo }: Case) =>
    async () => {
      await vm.sh(sh);
      await vm.heard('v3');
      await vm.expectDevices(slots);
      await vm.sh(undo);
      await vm.expectDevices(BASE, undo);
    };
  describe('follow routes', () => {
    for (const each of routes) test(each.name, change(each));
  });
  describe('follow a device', () => {
    for (const each of devices) test(each.name, change(each));
  });
  describe('give way to', () => {
    for (const each of others)
      test(each.name, async () => {
        await vm.follower.ask('restless');
        await expect.poll(() => vm.programs('v1')).toHaveLength(1);
        await vm.follower.ask('still');
        await change(each)();
        // Ours was never away.
        expect(await vm.programs('v1')).toHaveLength(1);
      });

    test('a device that the kernel does not forward from', async () => {
      await vm.sh('sysctl -qw net.ipv4.conf.v1.forwarding=0');
      await vm.expectDevices({ [B]: 'v2' });
      await vm.sh('sysctl -qw net.ipv4.conf.v1.forwarding=1');
      await vm.expectDevices(BASE);
      await vm.sh('sysctl -qw net.ipv4.ip_forward=0');
      await vm.expectDevices({});
      await vm.sh('sysctl -qw net.ipv4.ip_forward=1');
      await vm.expectDevices(BASE);
    });

    test.each(['', 'ip netns exec c1'])('an XDP program (%s)', async (where) => {
      const index = where
        ? JSON.parse(await vm.sh('ip -j -n c1 link show dev eth0'))[0].ifindex
        : await vm.indexOf('v1');
      await vm.sh(`${where} ${NODE} "${XDP}" ${index}`);
      await vm.expectDevices({ [B]: 'v2' });
      await vm.sh(`${where} ${NODE} "${XDP}" ${index} off`);
      await vm.expectDevices(BASE);
    });
  });

  const macOf = async () => (await vm.slots())[A];
  test('follow the link-layer addresses, and the entry of the neighbour before them', async () => {
    await vm.sh('ip link set v1 address 02:00:00:00:00:aa');
    await expect.poll(macOf).toMatchObject({ mac: '02:00:00:00:01:01', hostMac: '02:00:00:00:00:aa' });
    await vm.sh(`ip neighbour add ${A} dev v1 lladdr 02:00:00:00:00:bb nud permanent`);
    await expect.poll(macOf).toMatchObject({ mac: '02:00:00:00:00:bb' });
    await vm.sh(`ip neighbour change ${A} dev v1 lladdr 02:00:00:00:00:cc nud reachable`);
    await expect.poll(macOf).toMatchObject({ mac: '02:00:00:00:00:cc' });
    await vm.sh(`ip neighbour del ${A} dev v1; ip link set v1 address 02:00:00:00:00:01`);
    await expect.poll(macOf).toMatchObject({ mac: '02:00:00:00:01:01', hostMac: '02:00:00:00:00:01' });
  });

  test('are as read anew, whatever happened before', async () => {
    const before = await vm.slots();
    await vm.end('end');
    await vm.follow();
    expect(await vm.slots()).toEqual(before);
  });
});
