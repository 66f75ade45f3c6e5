/** containerd by CRI, which is how Kubernetes attaches pods, and by ctr run --cni. */
import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { missing, skip } from '../net/require.ts';
import { type Cri, CTR, IMAGE, openCri, startContainerd } from './containerd.ts';
import { COMMANDS, proveBoth, type Root, type Running, Runtimes } from './runtime.ts';

/** Of Debian's containernetworking-plugins: containerd has `lo` set up by it. */
const LOOPBACK = '/usr/lib/cni/loopback';
const why =
  (await missing(...COMMANDS, 'containerd', 'ctr', 'runc', 'curl')) ??
  (existsSync(LOOPBACK) ? undefined : `${LOOPBACK} is missing (apt-get install containernetworking-plugins)`);

describe.skipIf(skip('test/runtimes/containerd', why))('containerd', () => {
  let runtimes: Runtimes;
  let cris: Cri[];
  let before: string[][];
  const roots = () => [runtimes.a, runtimes.b];

  beforeAll(async () => {
    runtimes = await Runtimes.open();
    await Promise.all(
      roots().map(async (root) => {
        // Without the networks that other packages of the machine brought.
        await root.sh(`mkdir -p /opt/cni/bin /etc/cni/net.d; cp ${LOOPBACK} /opt/cni/bin; rm -f /etc/cni/net.d/*`);
        await startContainerd(root);
      }),
    );
    cris = roots().map(openCri);
    before = await Promise.all(roots().map((root) => root.state()));
  });
  afterAll(async () => {
    for (const cri of cris ?? []) cri.close();
    await runtimes?.close();
  });

  /** Of both VMs' states. */
  async function expectGone(): Promise<void> {
    for (const [i, root] of roots().entries()) await expect.poll(() => root.state()).toEqual(before[i]);
  }

  test('CRI: the network is ready once the plugin is installed', async () => {
    expect(await cris[0]?.obstacle()).toContain('cni');
    for (const root of roots()) expect(await root.inlay('cni', 'install')).toMatchObject({ code: 0 });
    for (const cri of cris) await expect.poll(() => cri.obstacle()).toBeUndefined();
  });

  test('CRI: pods reach each other, and leave nothing', async () => {
    const [a, b] = cris as [Cri, Cri];
    const pods = [
      await a.run('web', { dns_config: { servers: ['10.16.32.1'], searches: ['mesh'] } }),
      await b.run('db'),
    ];
    const running = await Promise.all(
      pods.map(async (id, i): Promise<Running> => {
        const { address, pid } = await (cris[i] as Cri).look(id);
        return { root: roots()[i] as Root, netns: `/proc/${pid}/ns/net`, address };
      }),
    );
    await proveBoth(running[0] as Running, running[1] as Running);
    const { stdout } = await runtimes.a.inlay('containers', '--json');
    expect(JSON.parse(stdout)).toMatchObject({
      inUse: 1,
      containers: [{ id: `cni:mesh:${pods[0]}`, address: running[0]?.address }],
    });
    for (const [i, id] of pods.entries()) {
      const cri = cris[i] as Cri;
      // Each stop is a DEL, the later ones without a namespace.
      await cri.stop(id);
      await cri.stop(id);
      await cri.remove(id);
    }
    await expectGone();
  });

  test('CRI: a pod whose sandbox process was killed leaves nothing either', async () => {
    const [a] = cris as [Cri, Cri];
    const id = await a.run('killed');
    const { pid } = await a.look(id);
    await runtimes.a.must(['kill', '-9', String(pid)]);
    await a.stop(id);
    await a.remove(id);
    await expectGone();
  });

  test('CRI: eight pods at once have addresses of their own', async () => {
    const [a] = cris as [Cri, Cri];
    const ids = await Promise.all(Array.from({ length: 8 }, (_, i) => a.run(`pod-${i}`)));
    const addresses = await Promise.all(ids.map(async (id) => (await a.look(id)).address));
    expect(new Set(addresses).size).toBe(8);
    await Promise.all(ids.map((id) => a.stop(id)));
    await Promise.all(ids.map((id) => a.remove(id)));
    await expectGone();
  });

  test('ctr run --cni', async () => {
    // Without a cgroup's share, which would be the machine's.
    const words = [...CTR, 'run', '--snapshotter', 'native', '--cpu-shares', '0', '--rm', '--cni', IMAGE, 'web'];
    const running = await Promise.all(
      roots().map(async (root): Promise<Running> => {
        root.daemon('ctr', [...words, '/bin/busybox', 'sleep', '1000']);
        const task = async () => /^web +(\d+) +RUNNING/m.exec(await root.must([...CTR, 'task', 'ls']))?.[1];
        await expect.poll(task).toBeDefined();
        const netns = `/proc/${await task()}/ns/net`;
        const shown = await root.must(['nsenter', `--net=${netns}`, 'ip', '-j', '-4', 'address', 'show', 'eth0']);
        return { root, netns, address: JSON.parse(shown)[0].addr_info[0].local };
      }),
    );
    await proveBoth(running[0] as Running, running[1] as Running);
    for (const root of roots()) await root.must([...CTR, 'task', 'kill', '-s', 'KILL', 'web']);
    for (const root of roots()) await expect.poll(() => root.must([...CTR, 'container', 'ls', '-q'])).toBe('');
    await expectGone();
  });
});
