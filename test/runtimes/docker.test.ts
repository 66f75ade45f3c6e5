/** docker, with Inlay as its network and IPAM driver: the distribution's own packages, on two VMs. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { CLI } from '../net/mesh.ts';
import { missing, skip } from '../net/require.ts';
import { PATIENCE } from '../net/vms.ts';
import { COMMANDS, prove, proveBoth, ROOTFS_TAR, type Root, type Running, Runtimes } from './runtime.ts';

const SOCKET = '/run/docker/plugins/inlay.sock';
/** The packages' programs: others may lie in /usr/local. */
const PACKAGED = ['env', 'PATH=/usr/sbin:/usr/bin:/sbin:/bin'];
/** No bridge, no rules, no cgroup of its own choice: nothing that a lab has not. */
const DOCKERD = [
  ...[...PACKAGED, 'dockerd', '--host', 'unix:///run/docker.sock', '--data-root', '/var/lib/docker-test'],
  ...['--bridge', 'none', '--iptables=false', '--ip6tables=false', '--ip-forward=false', '--ip-masq=false'],
  ...[
    '--userland-proxy=false',
    '--shutdown-timeout',
    '1',
    '--storage-driver',
    'vfs',
    '--exec-opt',
    'native.cgroupdriver=cgroupfs',
  ],
];

const OURS = ['-d', 'inlay', '--ipam-driver', 'inlay'];

class Docker {
  readonly root: Root;

  constructor(root: Root) {
    this.root = root;
  }

  async startPlugin(): Promise<void> {
    this.root.daemon('plugin', [process.execPath, CLI, 'docker-plugin']);
    await vi.waitFor(() => this.root.must(['test', '-S', SOCKET]), { timeout: 15_000, interval: 50 });
  }

  /** systemd listens, and starts the plugin when it is asked. */
  async listenForPlugin(): Promise<void> {
    const words = ['systemd-socket-activate', '-l', SOCKET, process.execPath, CLI, 'docker-plugin'];
    this.root.daemon('plugin', words);
    await vi.waitFor(() => this.root.must(['test', '-S', SOCKET]), { timeout: 15_000, interval: 50 });
  }

  async start(): Promise<void> {
    this.root.daemon('dockerd', [...DOCKERD, '--cgroup-parent', this.root.cgroup]);
    await vi.waitFor(() => this.must('version'), { timeout: 60_000, interval: 100 });
  }

  run(...words: string[]) {
    return this.root.run([...PACKAGED, 'docker', '--host', 'unix:///run/docker.sock', ...words]);
  }

  async must(...words: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...words);
    if (code !== 0) throw new Error(`docker ${words.join(' ')}: ${stderr}${await this.root.log('plugin')}`);
    return stdout.trim();
  }

  /** Starts a container that sleeps. */
  async container(name: string, ...words: string[]): Promise<Running> {
    const flags = ['--detach', '--name', name, '--network', 'mesh', '--stop-timeout', '0', ...words];
    await this.must('run', ...flags, 'busybox', 'busybox', 'sleep', '1000');
    return this.running(name);
  }

  async running(name: string): Promise<Running> {
    const format = '{{.State.Pid}} {{.NetworkSettings.Networks.mesh.IPAddress}}';
    const [pid = '', address = ''] = (await this.must('inspect', '--format', format, name)).split(' ');
    return { root: this.root, netns: `/proc/${pid}/ns/net`, address };
  }
}

const needed = await missing(...COMMANDS, 'dockerd', 'docker', 'systemd-socket-activate');

describe.skipIf(skip('docker', needed))('docker', () => {
  let runtimes: Runtimes;
  let a: Docker;
  let b: Docker;
  let before: string[][];
  const states = () => Promise.all([runtimes.a.state(), runtimes.b.state()]);

  beforeAll(async () => {
    runtimes = await Runtimes.open();
    before = await states();
    [a, b] = [new Docker(runtimes.a), new Docker(runtimes.b)];
    await Promise.all(
      [a, b].map(async (docker) => {
        await docker.startPlugin();
        await docker.start();
        await docker.must('import', ROOTFS_TAR, 'busybox');
      }),
    );
  });
  afterAll(() => runtimes?.close());

  test('containers of two VMs, and of one, reach each other; then all is gone', async () => {
    await a.must('network', 'create', ...OURS, 'mesh');
    await b.must('network', 'create', ...OURS, '--subnet', '10.16.33.0/24', 'mesh');
    // Where no address is answered for that is not the device's own: docker's containers ask for none.
    await a.root.sh('echo 2 >/proc/sys/net/ipv4/conf/all/arp_ignore');
    const [one, two, other] = [await a.container('one'), await a.container('two'), await b.container('other')];
    expect(one.address).toMatch(/^10\.16\.32\./);
    await proveBoth(one, other);
    await prove(one, two);
    const { containers } = JSON.parse((await a.root.inlay('containers', '--json')).stdout);
    expect(containers.map(({ address }: { address: string }) => address).sort()).toEqual(
      [one.address, two.address].sort(),
    );
    await a.root.sh('echo 0 >/proc/sys/net/ipv4/conf/all/arp_ignore');
    for (const [docker, ...names] of [
      [a, 'one', 'two'],
      [b, 'other'],
    ] as const) {
      await docker.must('rm', '--force', ...names);
      await docker.must('network', 'rm', 'mesh');
    }
    expect(await states()).toEqual(before);
  });

  test('an address by --ip is kept, over restarts of the container, of the plugin and of dockerd', async () => {
    await a.must('network', 'create', ...OURS, '--subnet', '10.16.32.0/24', 'mesh');
    await b.must('network', 'create', ...OURS, 'mesh');
    const other = await b.container('other');
    const pinned = await a.container('pinned', '--ip', '10.16.32.91', '--restart', 'always');
    expect(pinned.address).toBe('10.16.32.91');
    const again = await a.run('run', '--rm', '--network', 'mesh', '--ip', '10.16.32.91', 'busybox', 'true');
    expect(again.stderr).toContain('container 90 (10.16.32.91) is in use');
    await proveBoth(pinned, other);

    await a.root.end('plugin', 'KILL');
    await prove(other, pinned);
    await a.startPlugin();
    await a.must('restart', '--time', '0', 'pinned');
    const restarted = await a.running('pinned');
    expect(restarted.address).toBe('10.16.32.91');
    await proveBoth(restarted, other);

    // dockerd asks the plugin when it starts. If nobody listens, it waits for 30 s, and its containers stay down.
    await a.root.end('dockerd');
    await a.root.end('plugin');
    await a.listenForPlugin();
    await a.start();
    await vi.waitFor(async () => expect(await a.must('ps')).toContain('pinned'), PATIENCE);
    const started = await a.running('pinned');
    expect(started.address).toBe('10.16.32.91');
    await proveBoth(started, other);

    await a.must('rm', '--force', 'pinned');
    await b.must('rm', '--force', 'other');
    await Promise.all([a, b].map((docker) => docker.must('network', 'rm', 'mesh')));
    expect(await states()).toEqual(before);
  });

  test('a container of two networks, of which the other has the default route', async () => {
    await Promise.all([a, b].map((docker) => docker.must('network', 'create', ...OURS, 'mesh')));
    await a.must('network', 'create', '-d', 'bridge', '--subnet', '172.31.0.0/24', 'also');
    const run = ['run', '--detach', '--name', 'both', '--network', 'also', '--stop-timeout', '0'];
    await a.must(...run, 'busybox', 'sleep', '1000');
    await a.must('network', 'connect', 'mesh', 'both');
    const [both, other] = [await a.running('both'), await b.container('other')];
    const inside = (words: string) => a.root.sh(`nsenter --net=${both.netns} ${words}`);
    expect(await inside('ip route show default')).toContain('via 172.31.0.1 dev eth0');
    await proveBoth(both, other);
    await a.must('network', 'disconnect', 'mesh', 'both');
    expect(await inside('ip -br link')).not.toContain('eth1');
    await a.must('rm', '--force', 'both');
    await b.must('rm', '--force', 'other');
    await a.must('network', 'rm', 'also');
    await Promise.all([a, b].map((docker) => docker.must('network', 'rm', 'mesh')));
    expect(await states()).toEqual(before);
  });

  test('what cannot be is said by docker', async () => {
    const failure = async (...words: string[]) => {
      const { code, stderr } = await a.run(...words);
      expect(code).not.toBe(0);
      return stderr;
    };
    const create = ['network', 'create'];
    expect(await failure(...create, '-d', 'inlay', 'other')).toContain('add --ipam-driver inlay');
    expect(await failure(...create, ...OURS, '--subnet', '10.16.99.0/24', 'other')).toContain(
      'this VM has 10.16.32.0/24',
    );
    await a.must(...create, ...OURS, 'mesh');
    const run = ['run', '--rm', '--network', 'mesh'];
    expect(await failure(...run, '--publish', '80:80', 'busybox', 'true')).toContain('publishes no ports');
    await a.must('network', 'rm', 'mesh');
    expect((await states())[0]).toEqual(before[0]);
  });
});
