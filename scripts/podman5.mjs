/**
 * podman 5 with netavark, which Debian 12 does not have: containers on two VMs of a lab, in a Debian 13 that
 * mmdebstrap(1) makes. It takes a minute, root, and 600 MB in FOLDER, which is kept for the next time.
 *
 *   apt-get install mmdebstrap && node scripts/podman5.mjs FOLDER
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Lab, requireCommands } from '../dist/demo/lab.js';
import { Mesh } from '../dist/demo/mesh.js';
import { parsePrefix } from '../dist/mesh/address.js';
import { Mapping } from '../dist/mesh/mapping.js';

const PROJECT = fileURLToPath(new URL('..', import.meta.url)).replace(/\/$/, '');
const TCP = `${PROJECT}/test/runtimes/tcp.mjs`;
const PACKAGES = 'podman,netavark,crun,nodejs,busybox-static,iproute2,iputils-ping';
const BYTES = 1 << 20;

/** Without systemd, on memory, and where no limit can be raised. */
const FILES = {
  '/etc/containers/containers.conf': `[network]
network_backend = "netavark"
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
`,
  '/etc/containers/storage.conf': `[storage]
driver = "vfs"
runroot = "/run/containers/storage"
graphroot = "/var/lib/containers/storage"
`,
};

/**
 * A VM's root: Debian 13, whose changes go to memory, with this tree where it is, and its programs where npm
 * puts them. $1 is the folder of Debian 13, $2 the VM's run directory, $3 this tree.
 */
const OPEN = `set -e
read -r pid rest </proc/self/stat
mount --make-rprivate /
W=$(mktemp -d /run/writes.XXXX)
mount -t tmpfs tmpfs $W
mkdir $W/upper $W/work $W/root
mount -t overlay overlay -o "lowerdir=$1,upperdir=$W/upper,workdir=$W/work" $W/root
cd $W/root
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mkdir -p run/netns run/inlay ".$3"
mount --bind "$2" run/inlay
mount --bind "$3" ".$3"
ln -s "$3/dist/cli.js" usr/local/bin/inlay
ln -s "$3/dist/netavark.js" usr/local/bin/inlay-netavark
echo $pid $W/root
exec cat`;

class Root {
  constructor(lab, pid, folder) {
    Object.assign(this, { lab, pid, folder });
  }

  static async open(lab, { name, runDir }, debian) {
    const words = ['unshare', '--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', OPEN, 'sh'];
    const child = lab.start(
      undefined,
      ['nsenter', `--net=/run/netns/${name}`, ...words, path.resolve(debian), runDir, PROJECT],
      { stdio: ['pipe', 'pipe', 'inherit'] },
    );
    const root = new Root(lab, ...(await firstLine(child)).split(' '));
    for (const [file, content] of Object.entries(FILES)) await root.sh(`cat >${file}`, content);
    return root;
  }

  words(script) {
    const env = ['env', '-i', 'PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'];
    return ['nsenter', '-t', this.pid, '-m', '-p', '-n', '--', ...env, 'chroot', this.folder, 'sh', '-ec', script];
  }

  async sh(script, input) {
    return (await this.lab.must(undefined, this.words(script), input)).trim();
  }

  /** What a script that is to fail says. */
  async failure(script) {
    const { code, stderr } = await this.lab.run(undefined, this.words(script));
    assert.notEqual(code, 0, script);
    return stderr;
  }

  async container(name, ...words) {
    await this.sh(`podman run -d --name ${name} --network mesh ${words.join(' ')} busybox busybox sleep 1000`);
    return this.running(name);
  }

  async running(name) {
    const format = '{{.State.Pid}} {{.NetworkSettings.Networks.mesh.IPAddress}}';
    const [pid, address] = (await this.sh(`podman inspect --format '${format}' ${name}`)).split(' ');
    return { root: this, address, inside: `nsenter --net=/proc/${pid}/ns/net` };
  }

  state() {
    return this.sh('ip -br link; ip route show type unicast; ip neighbour show nud permanent');
  }
}

function firstLine(child) {
  return new Promise((resolve, reject) => {
    child.stdout.once('data', (data) => resolve(String(data).split('\n')[0]));
    child.once('exit', () => reject(new Error('it ended without a word')));
  });
}

async function prove(from, to) {
  await from.root.sh(`${from.inside} ping -n -q -c 3 -i 0.2 -W 5 ${to.address}`);
  const server = to.root.lab.start(undefined, to.root.words(`${to.inside} node ${TCP} serve`), {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await firstLine(server);
  assert.equal(await from.root.sh(`${from.inside} node ${TCP} send ${to.address} ${BYTES}`), String(BYTES));
  server.stdin.end();
  process.stdout.write(`${from.address} reaches ${to.address}\n`);
}

const debian = process.argv[2];
if (!debian) throw new Error('usage: node scripts/podman5.mjs FOLDER');
requireCommands('ping', 'nsenter', 'unshare');
if (!existsSync(debian)) {
  requireCommands('mmdebstrap');
  const words = ['--variant=minbase', `--include=${PACKAGES}`, 'trixie', debian];
  const { status } = spawnSync('mmdebstrap', words, { stdio: 'inherit' });
  assert.equal(status, 0, 'mmdebstrap');
}
const lab = await Lab.open();
try {
  const mapping = new Mapping(parsePrefix('10.0.0.0/8'), parsePrefix('192.168.0.0/16'));
  const { vms } = await Mesh.start(lab, { mapping, vms: 2, containersPerVm: 0, flags: [] });
  const roots = await Promise.all(vms.map((vm) => Root.open(lab, vm, debian)));
  const [a, b] = roots;
  const versions =
    'echo "podman $(podman version --format {{.Version}})"; /usr/lib/podman/netavark --version; node --version';
  process.stdout.write(`${await a.sh(versions)}\n`);
  for (const root of roots) {
    await root.sh('mkdir -p /usr/local/libexec/netavark');
    await root.sh('ln -s "$(command -v inlay-netavark)" /usr/local/libexec/netavark/inlay');
    await root.sh(
      'cd /tmp; mkdir bin; cp /bin/busybox bin/; ln -s busybox bin/sh; tar cf - bin | podman import - busybox',
    );
    await root.sh('podman network create --driver inlay mesh');
    await root.sh('ip netns add first; inlay attach first; inlay detach first; ip netns delete first');
  }
  const before = await Promise.all(roots.map((root) => root.state()));
  const [one, other] = [await a.container('one', '--ip 10.16.32.91'), await b.container('other')];
  assert.equal(one.address, '10.16.32.91');
  await prove(one, other);
  await prove(other, one);
  assert.match(
    await a.failure('podman run --rm --network mesh --ip 10.16.32.91 busybox true'),
    /container 90 .* is in use/,
  );
  await a.sh('podman restart -t 0 one');
  await prove(other, await a.running('one'));
  await a.sh('podman rm -f -t 0 one; podman network rm mesh');
  await b.sh('podman rm -f -t 0 other; podman network rm mesh');
  assert.deepEqual(await Promise.all(roots.map((root) => root.state())), before);
  assert.match(
    await a.failure('podman network create --driver inlay --subnet 10.16.32.0/24 mesh'),
    /leave out --subnet/,
  );
  process.stdout.write('all is gone\n');
} finally {
  await lab.close();
}
