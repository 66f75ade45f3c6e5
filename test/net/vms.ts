/** VMs in a lab: network namespaces that a bridge joins, without containers. Each can be pinged by its own overlay address. */
import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { ask } from '../../src/daemon/control.ts';
import { Lab, type Output } from '../../src/demo/lab.ts';
import type { Status, TunnelStatus } from '../../src/observe/status.ts';
import { CLI, shellLine } from './mesh.ts';
import { PLANES } from './planes.mjs';

export type Plane = keyof typeof PLANES;
const PREFIXES = ['--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];
/** For what is waited for: until then it is asked again and again. */
export const PATIENCE = { timeout: 15_000, interval: 25 };

const PULSE = fileURLToPath(new URL('pulse.mjs', import.meta.url));

export interface Daemon {
  vm: string;
  /** In the lab. */
  pid: number;
  /** Its exit code; null if a signal ended it. */
  ended: Promise<number | null>;
  /** What started it: nsenter, which stops with its child. */
  child: ChildProcess;
}

export interface Pulse {
  sent: number;
  received: number;
  /** Numbers of the packets that were not answered. */
  lost: number[];
}

export class Vms {
  readonly lab: Lab;
  readonly names: readonly string[];
  readonly #plane: Plane;
  readonly #children: ChildProcess[] = [];
  readonly #daemons: Daemon[] = [];

  constructor(lab: Lab, plane: Plane, names: readonly string[]) {
    this.lab = lab;
    this.#plane = plane;
    this.names = names;
  }

  /** The first VM is 192.168.16.32. */
  static async of(plane: Plane, ...names: string[]): Promise<Vms> {
    return await new Vms(await Lab.open(), plane, names).joined();
  }

  /** Makes and joins them; closes the lab if that fails. */
  async joined(): Promise<this> {
    const { lab, names } = this;
    try {
      await lab.ip(undefined, [
        'link add underlay type bridge',
        'link set underlay up',
        ...names.flatMap((name) => [
          `netns add ${name}`,
          `link add port-${name} type veth peer name eth0 netns ${name}`,
          `link set port-${name} master underlay up`,
        ]),
      ]);
      for (const name of names) {
        // Without IPv6 addresses of its own, whose state changes by itself, a link looks the same before and after.
        await lab.ip(name, [
          'link set lo up',
          `address add ${this.underlay(name)}/16 dev eth0`,
          'link set eth0 addrgenmode none up',
        ]);
        await lab.must(name, ['mkdir', `/run/${name}.d`]);
      }
      // All know where the others are on the underlay: what is lost is lost by the overlay.
      for (const name of names) {
        for (const other of names.filter((each) => each !== name))
          await lab.must(name, ['ping', '-n', '-q', '-c', '1', '-W', '5', this.underlay(other)]);
      }
      return this;
    } catch (error) {
      await lab.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.lab.close();
    for (const child of this.#children) child.unref();
  }

  number(name: string): number {
    return 32 + this.names.indexOf(name);
  }

  underlay(name: string): string {
    return `192.168.16.${this.number(name)}`;
  }

  /** The VM's own overlay address. */
  overlay(name: string): string {
    return `10.16.${this.number(name)}.1`;
  }

  slice(name: string): string {
    return `10.16.${this.number(name)}.0/24`;
  }

  runDir(name: string): string {
    return `/run/${name}.d/inlay`;
  }

  words(name: string, ...flags: string[]): string[] {
    const planes = flags.includes('--dataplane') ? [] : PLANES[this.#plane];
    return [process.execPath, CLI, 'up', ...PREFIXES, ...planes, '--run-dir', this.runDir(name), ...flags];
  }

  /** Starts a daemon and waits until it is ready. */
  async up(name: string, ...flags: string[]): Promise<Daemon> {
    return await this.#start(name, this.words(name, ...flags));
  }

  /** The same by other words before the command. */
  async upAs(wrapper: readonly string[], name: string, ...flags: string[]): Promise<Daemon> {
    return await this.#start(name, [...wrapper, ...this.words(name, ...flags)]);
  }

  async #start(name: string, words: readonly string[]): Promise<Daemon> {
    const shell = ['sh', '-c', `exec ${shellLine(words)} 2>>/run/${name}.log`];
    const child = this.lab.start(name, shell, { stdio: 'ignore' });
    this.#children.push(child);
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
    const { pid } = await this.ready(name, ended);
    const daemon = { vm: name, pid, ended, child };
    this.#daemons.push(daemon);
    return daemon;
  }

  /** After a test, whatever became of it: kills the VM's daemons and removes what they left, by force. */
  async reset(name: string): Promise<void> {
    const mine = this.#daemons.filter(({ vm }) => vm === name);
    for (const daemon of mine) {
      await this.lab.run(undefined, ['sh', '-c', `kill -CONT ${daemon.pid}; kill -KILL ${daemon.pid}`]);
      daemon.child.kill('SIGCONT');
      await daemon.ended;
      this.#daemons.splice(this.#daemons.indexOf(daemon), 1);
    }
    if ((await this.lab.run(undefined, ['ls', this.runDir(name)])).code !== 0) return;
    await this.inlay(name, 'down');
    const script = `ip link del inlay0; ip link del other0; ip route flush proto 73; ip route flush proto 75; tc qdisc del dev eth0 clsact; rm -rf ${this.runDir(name)}`;
    await this.lab.run(name, ['sh', '-c', script]);
  }

  async ready(name: string, ended?: Promise<number | null>): Promise<Status> {
    let code: number | null | undefined;
    void ended?.then((value) => {
      code = value;
    });
    for (const deadline = performance.now() + PATIENCE.timeout; ; ) {
      const status = await this.status(name).catch(() => undefined);
      if (status?.state === 'running') return status;
      if (code !== undefined || performance.now() > deadline)
        throw new Error(`the daemon of ${name} is not ready (exit ${code}):\n${await this.log(name)}`);
      await new Promise((resolve) => setTimeout(resolve, PATIENCE.interval));
    }
  }

  inlayWords(name: string, command: string, ...words: string[]): string[] {
    return [process.execPath, CLI, command, ...words, '--run-dir', this.runDir(name)];
  }

  inlay(name: string, command: string, ...words: string[]): Promise<Output> {
    return this.lab.run(name, this.inlayWords(name, command, ...words));
  }

  status(name: string): Promise<Status> {
    return ask<Status>(this.lab.path(this.runDir(name)), 'status');
  }

  tunnels(name: string): Promise<TunnelStatus[]> {
    return ask<TunnelStatus[]>(this.lab.path(this.runDir(name)), 'tunnels');
  }

  async log(name: string): Promise<string> {
    return (await this.lab.run(undefined, ['cat', `/run/${name}.log`])).stdout;
  }

  async kill(signal: string, { pid, child }: Daemon): Promise<void> {
    await this.lab.must(undefined, ['kill', `-${signal}`, String(pid)]);
    if (signal === 'CONT') child.kill('SIGCONT');
  }

  /** Sends a signal and waits for its end. */
  async end(signal: string, daemon: Daemon): Promise<number | null> {
    await this.kill(signal, daemon);
    const code = await daemon.ended;
    this.#daemons.splice(this.#daemons.indexOf(daemon), 1);
    return code;
  }

  /** How many of `count` pings were answered. */
  async pings(from: string, to: string, count: number, ...words: string[]): Promise<string> {
    const { stdout } = await this.lab.run(from, pingWords(to, count, ...words));
    return /(\d+) received/.exec(stdout)?.[1] ?? stdout;
  }

  async ip(name: string, ...lines: string[]): Promise<void> {
    await this.lab.ip(name, lines);
  }

  /** What `ip -j` or another command says in JSON. */
  async json<T>(name: string, ...words: string[]): Promise<T> {
    return JSON.parse((await this.lab.must(name, words)) || '[]');
  }

  /** Everything of the network that a daemon could change, without what the kernel counts. */
  async network(name: string): Promise<unknown> {
    const shown = ['addr', 'link', 'route', 'rule'].map((what) => this.json(name, 'ip', '-j', what));
    const script = `tc qdisc show; for d in eth0 inlay0; do for w in ingress egress; do tc filter show dev $d $w; done; done
      ip -d route show table all; ip neighbour show nud all dev inlay0; bridge fdb
      grep -rs . /proc/sys/net/ipv4/conf /proc/sys/net/ipv4/neigh /proc/sys/net/ipv4/ip_forward | sort; ls -A /run/${name}.d`;
    const { stdout } = await this.lab.run(name, ['sh', '-c', `(${script}) 2>/dev/null`]);
    // Programs are loaded anew, and neighbours age.
    const rest = stdout.replace(/ id \d+ name /g, ' ').replace(/\b(STALE|DELAY|REACHABLE)\b/g, 'KNOWN');
    return [...(await Promise.all(shown)), rest.split('\n').sort()];
  }

  async index(name: string): Promise<number> {
    return Number(await this.lab.must(name, ['cat', '/sys/class/net/inlay0/ifindex']));
  }

  /** Answers UDP datagrams to port 7777 of a VM, until the lab ends. */
  async serve(name: string): Promise<void> {
    const child = this.lab.start(name, [process.execPath, PULSE, 'serve'], { stdio: ['ignore', 'pipe', 'inherit'] });
    this.#children.push(child);
    await new Promise<void>((resolve, reject) => {
      child.stdout?.once('data', () => resolve());
      child.once('exit', () => reject(new Error('the server ended')));
    });
  }

  /** Sends numbered packets all the time while `work` is under way, one every `interval` ms and no more than `most`; each has to be answered. */
  async during(
    from: string,
    to: string,
    work: () => Promise<void>,
    { interval = 5, most = 20_000 } = {},
  ): Promise<Pulse> {
    const words = [process.execPath, PULSE, 'send', to, String(interval), String(most)];
    const child = this.lab.start(from, words, { stdio: ['pipe', 'pipe', 'inherit'] });
    let output = '';
    const first = new Promise<void>((resolve) => {
      child.stdout?.on('data', (chunk) => {
        output += chunk;
        resolve();
      });
    });
    const ended = new Promise((resolve) => child.once('exit', resolve));
    try {
      await Promise.race([first, ended]);
      await work();
    } finally {
      child.stdin?.end();
      await ended;
    }
    return JSON.parse(output.trim().split('\n').at(-1) as string) as Pulse;
  }
}

/**
 * A ping(8) that sends all at once. Once an answer has come, it waits for the others only as long as its interval is, whatever
 * -W says.
 */
export function pingWords(to: string, count: number, ...words: string[]): string[] {
  return ['ping', '-n', '-c', String(count), '-l', String(count), '-i', '2', '-W', '2', ...words, to];
}

/** What `network` tells, but for the numbers of devices: one that is made anew has another. */
export function withoutIndexes(network: unknown): unknown {
  return JSON.parse(JSON.stringify(network, (key, value) => (key === 'ifindex' ? 0 : value)));
}

/** What `network` tells, as lines: one for each object. */
export function linesOf(network: unknown): string[] {
  return (network as unknown[][]).flat().map((each) => (typeof each === 'string' ? each : JSON.stringify(each)));
}
