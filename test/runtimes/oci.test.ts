/** runc and crun: containers whose config.json has Inlay's hooks, as `inlay oci-hook config` prints them. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { missing, skip } from '../net/require.ts';
import { COMMANDS, proveBoth, ROOTFS, type Root, type Running, Runtimes } from './runtime.ts';

const BUNDLE = '/run/bundle';

describe.skipIf(skip('oci', await missing(...COMMANDS, 'runc', 'crun')))('hooks', () => {
  let runtimes: Runtimes;
  beforeAll(async () => {
    runtimes = await Runtimes.open();
  });
  afterAll(() => runtimes?.close());

  /** A bundle whose container sleeps. */
  async function bundle(root: Root, id: string, annotations: Record<string, string> = {}): Promise<void> {
    await root.sh(`mkdir -p ${BUNDLE}; cd ${BUNDLE}; rm -f config.json; runc spec`);
    const config = JSON.parse(await root.must(['cat', `${BUNDLE}/config.json`]));
    const { hooks } = JSON.parse((await root.inlay('oci-hook', 'config')).stdout);
    config.process.terminal = false;
    config.process.args = ['/bin/busybox', 'sleep', '1000'];
    // In the machine's own cgroups nothing may be limited, and no limit raised.
    delete config.process.rlimits;
    config.linux.cgroupsPath = `${root.cgroup}/${id}`;
    config.root = { path: ROOTFS, readonly: false };
    await root.write(`${BUNDLE}/config.json`, JSON.stringify({ ...config, hooks, annotations }));
  }

  async function start(runtime: string, root: Root, id: string): Promise<Running> {
    const { code } = await root.run([
      'sh',
      '-c',
      `cd ${BUNDLE} && ${runtime} run -d ${id} </dev/null >/run/${id}.log 2>&1`,
    ]);
    if (code !== 0) throw new Error(`${runtime}: ${await root.log(id)}`);
    const { pid } = JSON.parse(await root.sh(`${runtime} state ${id}`));
    const { containers } = JSON.parse((await root.inlay('containers', '--json')).stdout);
    const { address } = containers.find((each: { id: string }) => each.id === id);
    return { root, netns: `/proc/${pid}/ns/net`, address };
  }

  /** Some raise a limit to have a cgroup, which needs CAP_SYS_RESOURCE. */
  test.each([
    ['runc', 'runc'],
    ['crun', 'crun --cgroup-manager=disabled'],
  ])('%s', async (_, runtime) => {
    const { a, b } = runtimes;
    const before = await Promise.all([a.state(), b.state()]);
    await bundle(a, 'one', { 'inlay.container': '90' });
    await bundle(b, 'two');
    const [one, two] = [await start(runtime, a, 'one'), await start(runtime, b, 'two')];
    expect(one.address).toBe('10.16.32.91');
    await proveBoth(one, two);
    // Started again, a container may have its number at once: it is the same one that cools down.
    await a.sh(`${runtime} delete -f one`);
    expect((await start(runtime, a, 'one')).address).toBe('10.16.32.91');
    await a.sh(`${runtime} delete -f one`);
    await b.sh(`${runtime} delete -f two`);
    expect(await Promise.all([a.state(), b.state()])).toEqual(before);
  });

  test('a container that cannot be attached does not start, and says why', async () => {
    const { a } = runtimes;
    const before = await a.state();
    await bundle(a, 'three', { 'inlay.container': '300' });
    await expect(start('runc', a, 'three')).rejects.toThrow('container 300: expected 1 to 253 on this VM');
    expect(await a.state()).toEqual(before);
  });
});
