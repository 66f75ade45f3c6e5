/**
 * What a container runtime finds on a VM: the machine's programs, in the VM's network namespace, with mounts
 * and processes of its own. What it writes is gone when the lab is; nothing of the machine changes.
 */
import type { ChildProcess, SpawnOptions } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { vi } from 'vitest';
import type { Output } from '../../src/demo/lab.ts';
import { CLI, shellLine } from '../net/mesh.ts';
import { PATIENCE, type Plane, Vms } from '../net/vms.ts';

const TCP = fileURLToPath(new URL('tcp.mjs', import.meta.url));
/** Bytes that a TCP connection carries there and back. */
const BYTES = 1 << 20;
/** Pings of a proof. */
const PINGS = 3;

/** A root filesystem with nothing but busybox(1), and a tar file of it, in a VM's root. */
export const ROOTFS = '/run/rootfs';
export const ROOTFS_TAR = '/run/rootfs.tar';

/**
 * The VM's run directories are those of the daemon, under the names that they have by default: /run/inlay.
 * /etc, /opt, /usr and /var are the machine's, but what is written there goes to memory. $pid is the first process
 * as the lab numbers it.
 */
const OPEN = `set -e
read -r pid rest </proc/self/stat
mount --make-rprivate /
mount --bind /run/$1.d /run
mkdir -p /run/netns /run/lock /run/writes
mount -t tmpfs tmpfs /run/writes
for d in etc opt usr var; do
  mkdir /run/writes/$d /run/writes/$d.work
  mount -t overlay overlay -o lowerdir=/$d,upperdir=/run/writes/$d,workdir=/run/writes/$d.work /$d
done
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p ${ROOTFS}
cd ${ROOTFS}
mkdir bin dev etc proc run sbin sys tmp usr
cp "$(command -v busybox)" bin/busybox
for applet in sh sleep true; do ln -s busybox bin/$applet; done
ln -s ../bin/busybox sbin/init
echo ID=busybox >etc/os-release
tar -cf ${ROOTFS_TAR} .
cd /
echo $pid
exec cat`;

/** Needed for a VM's root, besides what a lab needs. */
export const COMMANDS = ['ping', 'busybox', 'tar', 'unshare', 'nsenter'] as const;

export class Root {
  readonly vms: Vms;
  /** The VM's. */
  readonly name: string;
  readonly #pid: number;
  readonly #daemons = new Map<string, ChildProcess>();

  private constructor(vms: Vms, name: string, pid: number) {
    this.vms = vms;
    this.name = name;
    this.#pid = pid;
  }

  /** Where in the tree of cgroups this VM's containers belong: the tree is the whole machine's. */
  get cgroup(): string {
    return `/inlay-test-${this.vms.lab.pid}-${this.name}`;
  }

  static async open(vms: Vms, name: string): Promise<Root> {
    const { lab } = vms;
    const words = ['unshare', '--mount', '--pid', '--fork', '--kill-child', 'sh', '-c', OPEN, 'sh', name];
    // Not `ip netns exec`, which mounts /sys of its own.
    const child = lab.start(undefined, ['nsenter', `--net=/run/netns/${name}`, ...words], { stdio: 'pipe' });
    let errors = '';
    child.stderr?.on('data', (chunk) => {
      errors += chunk;
    });
    const line = await firstLine(child);
    if (line === undefined) throw new Error(`no root for ${name}: ${errors}`);
    const root = new Root(vms, name, Number(line));
    await root.write('/run/bin/inlay', `#!/bin/sh\nexec ${shellLine([process.execPath, CLI])} "$@"\n`, '755');
    return root;
  }

  /** The words that run a command in this root, as its lab runs them. `inlay` is among its programs. */
  command(words: readonly string[]): string[] {
    const path = `PATH=/run/bin:${process.env['PATH']}:/usr/sbin:/sbin`;
    return ['nsenter', '-t', String(this.#pid), '-m', '-p', '-n', '--', 'env', path, ...words];
  }

  run(words: readonly string[], input = ''): Promise<Output> {
    return this.vms.lab.run(undefined, this.command(words), input);
  }

  must(words: readonly string[], input = ''): Promise<string> {
    return this.vms.lab.must(undefined, this.command(words), input);
  }

  sh(script: string): Promise<string> {
    return this.must(['sh', '-ec', script]);
  }

  start(words: readonly string[], options: SpawnOptions): ChildProcess {
    return this.vms.lab.start(undefined, this.command(words), options);
  }

  /** Starts a command that goes on; what it prints goes to /run/NAME.log of this root. */
  daemon(name: string, words: readonly string[]): void {
    const script = `echo $$ >/run/${name}.pid; exec ${shellLine(words)} >>/run/${name}.log 2>&1`;
    const child = this.start(['sh', '-c', script], { stdio: 'ignore' });
    this.#daemons.set(name, child);
    child.unref();
  }

  /** Ends what `daemon` started. */
  async end(name: string, signal = 'TERM'): Promise<void> {
    const child = this.#daemons.get(name) as ChildProcess;
    const ended = new Promise((resolve) => child.once('exit', resolve));
    await this.sh(`kill -${signal} $(cat /run/${name}.pid)`);
    await ended;
  }

  async log(name: string): Promise<string> {
    return (await this.run(['cat', `/run/${name}.log`])).stdout;
  }

  /** The command line, as an operator types it on this VM. */
  inlay(...words: string[]): Promise<Output> {
    return this.run(['inlay', ...words]);
  }

  /** A file of this root, with what is to be in it. */
  async write(file: string, content: string, mode = '644'): Promise<void> {
    await this.must(['sh', '-ec', 'mkdir -p "$(dirname "$1")"; cat >"$1"; chmod "$2" "$1"', 'sh', file, mode], content);
  }

  /**
   * All that containers could leave on the VM, as lines. A tombstone is none: an address cools down after its container, and
   * the kernel forgets it by itself when the address is needed.
   */
  async state(): Promise<string[]> {
    const list = async (...words: string[]) =>
      JSON.parse((await this.must(['ip', '-j', '-d', ...words])) || '[]') as Record<string, unknown>[];
    const isTombstone = (route: Record<string, unknown>) =>
      route['type'] === 'unreachable' && String(route['protocol']) === '74';
    const lines = [
      ...(await list('address')),
      ...(await list('route', 'show', 'table', 'all')).filter((route) => !isTombstone(route)),
      ...(await list('rule')),
      ...(await list('neighbour', 'show', 'nud', 'permanent')),
    ].map((each) => JSON.stringify(each));
    return [...lines, ...(await this.sh('ls -A /run/inlay')).split('\n')].sort();
  }
}

/** Two VMs with daemons, and a root for each. */
export class Runtimes {
  readonly vms: Vms;
  readonly a: Root;
  readonly b: Root;

  private constructor(vms: Vms, a: Root, b: Root) {
    this.vms = vms;
    this.a = a;
    this.b = b;
  }

  /** The first VM is 192.168.16.32. */
  static async open(plane: Plane = 'wasm'): Promise<Runtimes> {
    const vms = await Vms.of(plane, 'a', 'b');
    try {
      await Promise.all([vms.up('a'), vms.up('b')]);
      const [a, b] = await Promise.all([Root.open(vms, 'a'), Root.open(vms, 'b')]);
      // The first container brings the VM's own address to lo, where it stays.
      const first = 'ip netns add first; inlay attach first; inlay detach first; ip netns delete first';
      await Promise.all([a.sh(first), b.sh(first)]);
      return new Runtimes(vms, a, b);
    } catch (error) {
      await vms.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    const cgroups = [this.a.cgroup, this.b.cgroup];
    await this.vms.close();
    // They outlive the lab, and are busy for a moment after it.
    for (const cgroup of cgroups) await vi.waitFor(() => removeCgroup(`${cgroupMount()}${cgroup}`), PATIENCE);
  }
}

/** A running container. */
export interface Running {
  root: Root;
  /** Path of its network namespace in the root, such as /proc/12/ns/net. */
  netns: string;
  address: string;
}

/** Pings and a TCP connection from one container to another: throws if anything is lost. */
export async function prove(from: Running, to: Running): Promise<void> {
  const inside = ({ root, netns }: Running, words: readonly string[]) =>
    root.command(['nsenter', `--net=${netns}`, ...words]);
  const { lab } = from.root.vms;
  const pings = ['ping', '-n', '-q', '-c', String(PINGS), '-i', '0.2', '-W', '5', to.address];
  const { stdout } = await lab.run(undefined, inside(from, pings));
  if (!stdout.includes(` ${PINGS} received`)) throw new Error(`${from.address} pings ${to.address}: ${stdout}`);
  const server = lab.start(undefined, inside(to, [process.execPath, TCP, 'serve']), {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = new Promise((resolve) => server.once('exit', resolve));
  try {
    if ((await firstLine(server)) === undefined) throw new Error(`nothing can listen at ${to.address}`);
    const words = [process.execPath, TCP, 'send', to.address, String(BYTES)];
    const came = Number(await lab.must(undefined, inside(from, words)));
    if (came !== BYTES) throw new Error(`${from.address} to ${to.address}: ${came} of ${BYTES} bytes came back`);
  } finally {
    server.stdin?.end();
    await ended;
  }
}

/** Both ways. */
export async function proveBoth(one: Running, other: Running): Promise<void> {
  await prove(one, other);
  await prove(other, one);
}

/** Where this machine has its one tree of cgroups (cgroups(7)). */
function cgroupMount(): string {
  const line = readFileSync('/proc/self/mounts', 'utf8')
    .split('\n')
    .find((each) => each.split(' ')[2] === 'cgroup2');
  return line?.split(' ')[1] ?? '/sys/fs/cgroup';
}

/** From the leaves on. */
function removeCgroup(folder: string): void {
  if (!existsSync(folder)) return;
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory()) removeCgroup(`${folder}/${entry.name}`);
  rmdirSync(folder);
}

/** The first line that a command prints; undefined if it ends without one. */
function firstLine(child: ChildProcess): Promise<string | undefined> {
  return new Promise((resolve) => {
    let text = '';
    child.stdout?.on('data', (chunk) => {
      text += chunk;
      if (text.includes('\n')) resolve(text.slice(0, text.indexOf('\n')));
    });
    child.once('exit', () => resolve(undefined));
  });
}
