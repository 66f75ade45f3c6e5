/** runc and crun: containers whose config.json has Inlay's hooks, as `inlay oci-hook config` prints them. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { missing, skip } from '../net/require.ts';
import { COMMANDS, proveBoth, ROOTFS, ROOTFS_TAR, type Root, type Running, Runtimes } from './runtime.ts';

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
    const { address } = containers.find((each: { id: string }) => each.id.startsWith(`oci:${id}:`));
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

describe.skipIf(skip('podman with hooks', await missing(...COMMANDS, 'podman', 'crun')))(
  "podman's folder of hooks",
  () => {
    let runtimes: Runtimes;
    beforeAll(async () => {
      runtimes = await Runtimes.open();
    });
    afterAll(() => runtimes?.close());

    const PODMAN = 'podman --root /run/storage --runroot /run/storage-run --storage-driver vfs';
    /** Without cgroups, which would be the machine's, and where no limit can be raised. */
    const CONFIGURATION = `[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
`;

    async function prepare(root: Root): Promise<void> {
      await root.write('/etc/containers/containers.conf', CONFIGURATION);
      await root.sh(`mkdir -p /usr/share/containers/oci/hooks.d
      inlay oci-hook config --podman create >/usr/share/containers/oci/hooks.d/inlay-create.json
      inlay oci-hook config --podman remove >/usr/share/containers/oci/hooks.d/inlay-remove.json
      ${PODMAN} import ${ROOTFS_TAR} busybox:latest`);
    }

    async function running(root: Root): Promise<Running> {
      const pid = (await root.sh(`${PODMAN} inspect --format '{{.State.Pid}}' web`)).trim();
      const { containers } = JSON.parse((await root.inlay('containers', '--json')).stdout);
      return { root, netns: `/proc/${pid}/ns/net`, address: containers[0].address };
    }

    test('a container with the annotation is on the mesh, over a restart; others are not', async () => {
      const { a, b } = runtimes;
      const before = await Promise.all([a.state(), b.state()]);
      for (const [root, number] of [
        [a, '90'],
        [b, 'auto'],
      ] as const) {
        await prepare(root);
        await root.sh(
          `${PODMAN} run -d --name web --network none --annotation inlay.container=${number} busybox busybox sleep 1000`,
        );
        await root.sh(`${PODMAN} run --rm --network none busybox busybox true`);
      }
      const [one, other] = [await running(a), await running(b)];
      expect(one.address).toBe('10.16.32.91');
      await proveBoth(one, other);
      await a.sh(`${PODMAN} restart -t 0 web`);
      const restarted = await running(a);
      expect(restarted.address).toBe('10.16.32.91');
      await proveBoth(restarted, other);
      for (const root of [a, b]) await root.sh(`${PODMAN} rm -f -t 0 web`);
      expect(await Promise.all([a.state(), b.state()])).toEqual(before);
    });
  },
);
