/** podman with its CNI back end, alone and with other plugins in a chain. What an operator types is `inlay cni install`. */
import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { missing, skip } from '../net/require.ts';
import { COMMANDS, proveBoth, ROOTFS_TAR, type Root, type Running, Runtimes } from './runtime.ts';

/** Debian's containernetworking-plugins has them there. */
const PLUGINS = '/usr/lib/cni';
const IMAGE = 'busybox:latest';
const PODMAN = ['podman', '--root', '/run/storage', '--runroot', '/run/storage-run', '--storage-driver', 'vfs'];
/** Without cgroups, which would be the machine's. */
const CONFIGURATION = `[network]
network_backend = "cni"
cni_plugin_dirs = ["/opt/cni/bin", "${PLUGINS}"]
network_config_dir = "/etc/cni/net.d"
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
`;

/** Shaped, filtered and set up by the project's own plugins after ours. */
const CHAIN = {
  cniVersion: '1.0.0',
  cniVersions: ['1.0.0', '1.1.0'],
  name: 'shaped',
  plugins: [
    { type: 'inlay-cni', capabilities: { ips: true, mac: true } },
    { type: 'portmap', capabilities: { portMappings: true } },
    {
      type: 'bandwidth',
      ingressRate: 100_000_000,
      ingressBurst: 10_000_000,
      egressRate: 100_000_000,
      egressBurst: 10_000_000,
    },
    { type: 'firewall' },
    { type: 'tuning', sysctl: { 'net.ipv4.conf.eth0.log_martians': '0' } },
  ],
};

const why =
  (await missing(...COMMANDS, 'podman', 'crun', 'curl', 'iptables', 'tc')) ??
  (existsSync(PLUGINS) ? undefined : `${PLUGINS} is missing (apt-get install containernetworking-plugins)`);

describe.skipIf(skip('test/runtimes/podman', why))('podman', () => {
  let runtimes: Runtimes;
  const roots = () => [runtimes.a, runtimes.b];

  beforeAll(async () => {
    runtimes = await Runtimes.open();
    await Promise.all(
      roots().map(async (root) => {
        await root.write('/etc/containers/containers.conf', CONFIGURATION);
        await root.must([...PODMAN, 'import', ROOTFS_TAR, IMAGE]);
      }),
    );
  });
  afterAll(() => runtimes?.close());
  afterEach(async () => {
    for (const root of roots()) await root.run([...PODMAN, 'rm', '-f', '-a', '-t', '0']);
  });

  async function run(root: Root, name: string, ...words: string[]): Promise<Running> {
    await root.must([...PODMAN, 'run', '-d', '--name', name, ...words, IMAGE, '/bin/busybox', 'sleep', '1000']);
    const [found] = JSON.parse(await root.must([...PODMAN, 'inspect', name])) as [Inspected];
    const [network] = Object.values(found.NetworkSettings.Networks);
    return { root, netns: `/proc/${found.State.Pid}/ns/net`, address: network?.IPAddress ?? '' };
  }

  interface Inspected {
    State: { Pid: number };
    NetworkSettings: { Networks: Record<string, { IPAddress: string; MacAddress: string }> };
  }

  async function remove(root: Root, name: string): Promise<void> {
    await root.must([...PODMAN, 'rm', '-f', '-t', '0', name]);
  }

  test('alone', async () => {
    for (const root of roots()) expect(await root.inlay('cni', 'install')).toMatchObject({ code: 0, stderr: '' });
    const before = await Promise.all(roots().map((root) => root.state()));
    const [one, other] = await Promise.all(roots().map((root) => run(root, 'web', '--network', 'mesh')));
    await proveBoth(one as Running, other as Running);
    for (const root of roots()) await remove(root, 'web');
    // Which address, and which link-layer address.
    const asked = await run(
      runtimes.a,
      'db',
      '--network',
      'mesh',
      '--ip',
      '10.16.32.91',
      '--mac-address',
      '02:00:00:00:00:5a',
    );
    expect(asked.address).toBe('10.16.32.91');
    expect(await macOf(asked)).toBe('02:00:00:00:00:5a');
    const taken = await runtimes.a.run([
      ...PODMAN,
      'run',
      '--rm',
      '--network',
      'mesh',
      '--ip',
      '10.16.32.91',
      IMAGE,
      '/bin/busybox',
      'true',
    ]);
    expect(taken.code).not.toBe(0);
    expect(taken.stderr).toMatch(/10\.16\.32\.91|container 90/);
    await remove(runtimes.a, 'db');
    for (const [i, root] of roots().entries()) await expect.poll(() => root.state()).toEqual(before[i]);
  });

  test('in a chain with portmap, bandwidth, firewall and tuning', async () => {
    for (const root of roots()) {
      await root.inlay('cni', 'install');
      await root.write('/etc/cni/net.d/20-shaped.conflist', JSON.stringify(CHAIN));
    }
    const { a, b } = runtimes;
    const before = await Promise.all(roots().map((root) => root.state()));
    const [one, other] = await Promise.all(
      roots().map((root) => run(root, 'web', '--network', 'shaped', '-p', '8080:80')),
    );
    await proveBoth(one as Running, other as Running);
    const link = await linkTo(a, (one as Running).address);
    expect(await a.must(['tc', 'qdisc', 'show', 'dev', link])).toContain('tbf');
    await a.must([
      ...PODMAN,
      'exec',
      'web',
      '/bin/busybox',
      'sh',
      '-c',
      'echo hello >/tmp/index.html; /bin/busybox httpd -p 80 -h /tmp',
    ]);
    // What comes to a published port comes on the underlay's device.
    await a.must(['sysctl', '-qw', 'net.ipv4.conf.eth0.forwarding=1']);
    expect(await b.must(['curl', '-sS', '-m', '10', 'http://192.168.16.32:8080/'])).toBe('hello\n');
    for (const root of roots()) await remove(root, 'web');
    for (const [i, root] of roots().entries()) await expect.poll(() => root.state()).toEqual(before[i]);
  });
});

/** The VM's end of a container's veth. */
async function linkTo(root: Root, address: string): Promise<string> {
  const [route] = JSON.parse(await root.must(['ip', '-j', 'route', 'show', `${address}/32`])) as [{ dev: string }];
  return route.dev;
}

async function macOf({ root, netns }: Running): Promise<string> {
  const words = ['nsenter', `--net=${netns}`, 'ip', '-j', 'link', 'show', 'eth0'];
  const [link] = JSON.parse(await root.must(words)) as [{ address: string }];
  return link.address;
}
