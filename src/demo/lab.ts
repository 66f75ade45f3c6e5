/**
 * A lab: network, mount and process namespaces of its own, in which whole meshes live. Nothing outside is
 * touched, and when the lab's first process ends, the kernel removes all of it: processes, links, namespaces,
 * files.
 */
import { type ChildProcess, execFile, type SpawnOptions, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { InlayError } from '../errors.ts';

export interface Output {
  code: number;
  stdout: string;
  stderr: string;
}

/** ms that links may take to come up, and between two looks. */
const LINK_TIMEOUT = 5000;
const LINK_INTERVAL = 10;

/** Debian packages of commands with other names, the tests' among them. */
const PACKAGES: Record<string, string> = {
  bridge: 'iproute2',
  busybox: 'busybox-static',
  cc: 'gcc',
  ip: 'iproute2',
  dockerd: 'docker.io',
  'iptables-legacy': 'iptables',
  'lxc-start': 'lxc',
  'linux.uml': 'user-mode-linux',
  modprobe: 'kmod',
  nft: 'nftables',
  nsenter: 'util-linux',
  nstat: 'iproute2',
  ping: 'iputils-ping',
  setcap: 'libcap2-bin',
  setpriv: 'util-linux',
  ss: 'iproute2',
  tc: 'iproute2',
  sysctl: 'procps',
  'systemd-nspawn': 'systemd-container',
  'systemd-socket-activate': 'systemd',
  unshare: 'util-linux',
};

/** Throws ERR_FAILED that names the missing commands and the Debian packages that have them. */
export function requireCommands(...commands: string[]): void {
  const folders = [...(process.env['PATH'] ?? '').split(':'), '/usr/sbin', '/sbin'];
  const missing = commands.filter((command) => !folders.some((folder) => isExecutable(path.join(folder, command))));
  if (missing.length === 0) return;
  const packages = [...new Set(missing.map((command) => PACKAGES[command] ?? command))];
  throw new InlayError('ERR_FAILED', `missing on this machine: ${missing.join(', ')}`, {
    hint: `apt-get install ${packages.join(' ')}`,
  });
}

function isExecutable(file: string): boolean {
  try {
    accessSync(file, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

export class Lab {
  readonly #holder: ChildProcess;
  readonly #enter: string[];
  /** Commands that go on. */
  readonly #started = new Set<ChildProcess>();

  private constructor(holder: ChildProcess, asUser: boolean) {
    this.#holder = holder;
    const ns = `/proc/${holder.pid}/ns`;
    this.#enter = [
      ...(asUser ? [`--user=${ns}/user`, '--preserve-credentials'] : []),
      ...[`--net=${ns}/net`, `--mount=${ns}/mnt`, `--pid=${ns}/pid_for_children`],
    ];
  }

  /** Makes the namespaces; without root, in a user namespace. `keep` lets the lab outlive this process. */
  static async open(options: { keep?: boolean } = {}): Promise<Lab> {
    requireCommands('ip', 'unshare', 'nsenter');
    const asUser = process.getuid?.() !== 0;
    const user = asUser ? ['--user', '--map-root-user'] : [];
    // A fresh /run takes the names of network namespaces and the run directories. `cat` ends when this
    // process does: it holds its standard input.
    const hold = options.keep ? 'exec sleep infinity' : 'exec cat';
    const script = `mount -t tmpfs tmpfs /run && mkdir /run/netns && ip link set lo up && echo ready && ${hold}`;
    const holder = spawn(
      'unshare',
      [...user, '--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-c', script],
      { stdio: ['pipe', 'pipe', 'pipe'], detached: true },
    );
    let errors = '';
    holder.stderr?.on('data', (chunk) => {
      errors += chunk;
    });
    const ready = await new Promise<boolean>((resolve) => {
      holder.stdout?.once('data', () => resolve(true));
      holder.once('exit', () => resolve(false));
      holder.once('error', () => resolve(false));
    });
    if (!ready) {
      throw new InlayError('ERR_PERMISSION', `no namespaces for the mesh: ${errors.trim() || 'unshare failed'}`, {
        hint: asUser
          ? 'run it as root, or allow user namespaces: sysctl kernel.unprivileged_userns_clone=1'
          : 'run it with CAP_SYS_ADMIN',
      });
    }
    holder.unref();
    for (const stream of [holder.stdin, holder.stdout, holder.stderr])
      (stream as unknown as { unref?: () => void })?.unref?.();
    return new Lab(holder, asUser);
  }

  /** The process whose end is the lab's. */
  get pid(): number {
    return this.#holder.pid as number;
  }

  /** A path inside the lab as it is seen from outside. */
  path(inside: string): string {
    return `/proc/${this.pid}/root${inside}`;
  }

  /** The words that run `command` inside: in the network namespace `where`, or in the lab's own. */
  command(where: string | undefined, command: readonly string[]): [string, ...string[]] {
    return ['nsenter', ...this.#enter, '--', ...(where ? ['ip', 'netns', 'exec', where] : []), ...command];
  }

  /** Runs a command to its end. */
  run(where: string | undefined, command: readonly string[], input = ''): Promise<Output> {
    const [file, ...args] = this.command(where, command);
    return new Promise((resolve) => {
      const child = execFile(file, args, { maxBuffer: 64 << 20 }, (error, stdout, stderr) => {
        resolve({ code: error ? (typeof error.code === 'number' ? error.code : 255) : 0, stdout, stderr });
      });
      child.stdin?.on('error', () => {}); // The command may end without reading it.
      child.stdin?.end(input);
    });
  }

  /** Runs a command to its end and returns what it printed. Throws if it fails. */
  async must(where: string | undefined, command: readonly string[], input = ''): Promise<string> {
    const { code, stdout, stderr } = await this.run(where, command, input);
    if (code === 0) return stdout;
    throw new InlayError(
      'ERR_FAILED',
      `${command.join(' ')}${where ? ` in ${where}` : ''}: ${stderr.trim() || `exit ${code}`}`,
    );
  }

  /** Runs many `ip` commands, one a line. */
  async ip(where: string | undefined, lines: readonly string[]): Promise<void> {
    await this.must(where, ['ip', '-batch', '-'], `${lines.join('\n')}\n`);
  }

  /**
   * Waits until these links can send. Of the two ends of a veth, that which came up first drops what it is to
   * send until the kernel has heard of the other (net/core/link_watch.c). On a busy machine this takes a
   * while; if the packet is an ARP request, the next comes a second later.
   */
  async linksUp(where: string | undefined, names: readonly string[]): Promise<void> {
    for (const deadline = performance.now() + LINK_TIMEOUT; ; await sleep(LINK_INTERVAL)) {
      const links: { ifname: string; operstate: string }[] = JSON.parse(await this.must(where, ['ip', '-j', 'link']));
      const down = names.filter((name) => links.find(({ ifname }) => ifname === name)?.operstate !== 'UP');
      if (down.length === 0) return;
      if (performance.now() > deadline) throw new InlayError('ERR_FAILED', `links are not up: ${down.join(', ')}`);
    }
  }

  /** Starts a command that goes on. */
  start(where: string | undefined, command: readonly string[], options: SpawnOptions): ChildProcess {
    const [file, ...args] = this.command(where, command);
    const child = spawn(file, args, options);
    this.#started.add(child);
    child.once('exit', () => this.#started.delete(child));
    return child;
  }

  /** Ends everything in the lab. */
  async close(): Promise<void> {
    if (this.#holder.exitCode !== null || this.#holder.signalCode !== null) return;
    this.#holder.ref();
    const ended = new Promise((resolve) => this.#holder.once('exit', resolve));
    this.#holder.kill('SIGKILL');
    // nsenter(1) stops itself when its command is stopped, and then does not hear of the command's end.
    for (const child of this.#started) child.kill('SIGKILL');
    await ended;
  }
}
