/** The recipes of the documentation are typed as they are printed, on a VM whose daemon runs. */
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { blocksOf, DOCUMENTS } from '../documents.ts';
import { missing, skip } from '../net/require.ts';
import { PATIENCE } from '../net/vms.ts';
import { COMMANDS, ROOTFS, ROOTFS_TAR, type Root, Runtimes } from './runtime.ts';

/** Of each runtime, what is there before the recipe. A lab has no systemd, no cgroups of its own, and may raise no limit. */
const PREPARATIONS: Record<string, (root: Root) => Promise<void>> = {
  docker: async (root) => {
    await root.write(
      '/run/bin/docker',
      '#!/bin/sh\nexec env PATH=/usr/sbin:/usr/bin:/sbin:/bin docker --host unix:///run/docker.sock "$@"\n',
      '755',
    );
    root.daemon('plugin', ['inlay', 'docker-plugin']);
    const flags = '--bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false';
    const more = '--userland-proxy=false --storage-driver vfs --exec-opt native.cgroupdriver=cgroupfs';
    const words = `env PATH=/usr/sbin:/usr/bin:/sbin:/bin dockerd --host unix:///run/docker.sock ${flags} ${more}`;
    root.daemon('dockerd', [...words.split(' '), '--cgroup-parent', root.cgroup]);
    await vi.waitFor(() => root.must(['docker', 'version']), { timeout: 60_000, interval: 100 });
    await root.must(['docker', 'import', ROOTFS_TAR, 'busybox']);
  },
  podman: async (root) => {
    const configuration = `[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
`;
    const storage = '[storage]\ndriver = "vfs"\nrunroot = "/run/storage-run"\ngraphroot = "/run/storage"\n';
    await root.write('/etc/containers/containers.conf', configuration);
    await root.write('/etc/containers/storage.conf', storage);
    await root.must(['podman', 'import', ROOTFS_TAR, 'docker.io/library/busybox:latest']);
  },
  oci: async (root) => {
    await root.sh('mkdir /run/bundle');
  },
  lxc: async (root) => {
    const configuration = `lxc.uts.name = web
lxc.rootfs.path = dir:${ROOTFS}
lxc.init.cmd = /bin/busybox sleep 1000
lxc.apparmor.profile = unconfined
lxc.cgroup.dir = ${root.cgroup.slice(1)}
`;
    await root.write('/var/lib/lxc/web/config', configuration);
  },
  nspawn: async (root) => {
    await root.sh(`mkdir -p /var/lib/machines; cp -a ${ROOTFS} /var/lib/machines/web`);
    const nspawn = (await root.sh('command -v systemd-nspawn')).trim();
    const script = `#!/bin/sh\nexec ${nspawn} --register=no --keep-unit "$@"\n`;
    await root.write('/run/bin/systemd-nspawn', script, '755');
  },
};

const recipes = DOCUMENTS.flatMap((file) =>
  blocksOf(file).flatMap(({ words, text }, i) => {
    const [language, , runtime] = words;
    return language !== 'sh' || runtime === undefined
      ? []
      : [{ name: `${file}, block ${i + 1}, ${runtime}`, runtime, text }];
  }),
);

test('each recipe names a runtime that is tried here, and each runtime has one', () => {
  expect([...new Set(recipes.map(({ runtime }) => runtime))].sort()).toEqual(Object.keys(PREPARATIONS).sort());
});

const commands = ['dockerd', 'docker', 'podman', 'crun', 'runc', 'jq', 'lxc-start', 'systemd-nspawn'];

describe.skipIf(skip('recipes', await missing(...COMMANDS, ...commands)))('on the VM 192.168.16.32', () => {
  let runtimes: Runtimes;
  const prepared = new Set<string>();
  beforeAll(async () => {
    runtimes = await Runtimes.open();
  });
  afterAll(() => runtimes?.close());

  test.each(recipes)('$name', async ({ runtime, text }) => {
    const { a } = runtimes;
    if (!prepared.has(runtime)) await PREPARATIONS[runtime]?.(a);
    prepared.add(runtime);
    const before = await a.state();
    const { code, stdout, stderr } = await a.run(['bash', '-c', `set -e\n${text}`]);
    expect({ code, output: code === 0 ? '' : stdout + stderr }).toEqual({ code: 0, output: '' });
    await vi.waitFor(async () => expect(await a.state()).toEqual(before), PATIENCE);
  });
});
