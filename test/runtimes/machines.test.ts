/** LXC and systemd-nspawn, by the recipes of the documentation. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { missing, skip } from '../net/require.ts';
import { PATIENCE } from '../net/vms.ts';
import { COMMANDS, proveBoth, ROOTFS, type Root, type Running, Runtimes } from './runtime.ts';

const needed = await missing(...COMMANDS, 'lxc-start', 'systemd-nspawn');

describe.skipIf(skip('machines', needed))('machines', () => {
  let runtimes: Runtimes;
  let before: string[][];
  const states = () => Promise.all([runtimes.a.state(), runtimes.b.state()]);

  beforeAll(async () => {
    runtimes = await Runtimes.open();
    before = await states();
  });
  afterAll(() => runtimes?.close());

  async function lxc(root: Root, network: string): Promise<Running> {
    await root.write(
      '/var/lib/lxc/web/config',
      `lxc.uts.name = web
lxc.rootfs.path = dir:${ROOTFS}
lxc.init.cmd = /bin/busybox sleep 1000
lxc.apparmor.profile = unconfined
lxc.cgroup.dir = ${root.cgroup.slice(1)}
${network}
`,
    );
    const { code } = await root.run(['lxc-start', '-n', 'web', '-l', 'DEBUG', '-o', '/run/lxc.log']);
    if (code !== 0) throw new Error(await root.log('lxc'));
    const pid = (await root.must(['lxc-info', '-n', 'web', '-p', '-H'])).trim();
    const address = (await root.sh(`nsenter --net=/proc/${pid}/ns/net ip -o -4 address show dev eth0`)).split(
      /[ /]+/,
    )[3];
    return { root, netns: `/proc/${pid}/ns/net`, address: address ?? '' };
  }

  test('LXC, attached by a hook', async () => {
    const hooks = `lxc.net.0.type = empty
lxc.hook.version = 1
lxc.hook.start-host = inlay attach $LXC_PID --id lxc-$LXC_NAME
lxc.hook.stop = inlay detach --id lxc-$LXC_NAME`;
    const { a, b } = runtimes;
    const [one, other] = [await lxc(a, hooks), await lxc(b, hooks)];
    await proveBoth(one, other);
    await Promise.all([a, b].map((root) => root.must(['lxc-stop', '-n', 'web', '-k'])));
    await vi.waitFor(async () => expect(await states()).toEqual(before), PATIENCE);
    // It was detached while its namespace was there: the address cools down.
    expect(await a.sh('ip route show type unreachable')).toContain(one.address);
  });

  test('LXC, which routes the address itself', async () => {
    const routed = (index: number) => `lxc.net.0.type = veth
lxc.net.0.veth.mode = router
lxc.net.0.flags = up
lxc.net.0.name = eth0
lxc.net.0.mtu = 1476
lxc.net.0.ipv4.address = 10.16.${index}.91/32
lxc.net.0.ipv4.gateway = 10.16.${index}.1`;
    const { a, b } = runtimes;
    await proveBoth(await lxc(a, routed(32)), await lxc(b, routed(33)));
    // Nobody else gets it.
    const { stderr } = await a.run([
      'sh',
      '-c',
      'ip netns add box; inlay attach box --container 90; ip netns delete box',
    ]);
    expect(stderr).toContain('container 90 (10.16.32.91) is in use');
    await Promise.all([a, b].map((root) => root.must(['lxc-stop', '-n', 'web', '-k'])));
    await vi.waitFor(async () => expect(await states()).toEqual(before), PATIENCE);
  });

  test('systemd-nspawn', async () => {
    const { a, b } = runtimes;
    const begin = async (root: Root): Promise<Running> => {
      const attached = JSON.parse(await root.sh('ip netns add web; inlay attach web --json'));
      const words = `systemd-nspawn --quiet --directory ${ROOTFS} --network-namespace-path=/run/netns/web`;
      // Without a systemd of its own the lab has neither units nor machines.
      root.daemon(
        'nspawn',
        `${words} --register=no --keep-unit /bin/busybox sh -c`
          .split(' ')
          .concat('echo ready; exec busybox sleep 1000'),
      );
      await vi.waitFor(async () => expect(await root.log('nspawn')).toContain('ready'), PATIENCE);
      return { root, netns: '/run/netns/web', address: attached.address };
    };
    await proveBoth(await begin(a), await begin(b));
    for (const root of [a, b]) {
      await root.end('nspawn', 'KILL');
      await root.sh('inlay detach web; ip netns delete web');
    }
    expect(await states()).toEqual(before);
  });
});
