/** Two VMs on a wire whose ends merge and cut as they are told, with containers of several MTUs, and traffic between those of the same number. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { Lab } from '../../src/demo/lab.ts';
import type { Status } from '../../src/observe/status.ts';
import { CLI } from './mesh.ts';

const BULK = fileURLToPath(new URL('bulk.mjs', import.meta.url));
const VMS = { a: 32, b: 33 };
type Name = keyof typeof VMS;
const NAMES = Object.keys(VMS) as Name[];

/**
 * Container `number` of each VM: the MTU of its interface, and of the VM's end of the pair. The end of A, which sends, has no less than the interface:
 * the kernel drops there, without a word, whatever is longer and no super-packet.
 */
const CONTAINERS = [
  { number: 1, mtu: 1280, host: 1500 },
  { number: 2, mtu: 1400, host: 1500 },
  { number: 3, mtu: 1476, host: 1500 },
  { number: 4, mtu: 8950, host: 8950 },
  { number: 5, mtu: 8950, host: 1500 },
];

/** How the receiving VM merges, as ethtool(8) says it, and how long it waits for more, in ms. */
export interface Merging {
  merging: string;
  features: string;
  wait: number;
}
const [WIRE, NO_WIRE] = ['tso off gso off', 'tso on gso on'];
const PLAIN = 'rx-udp-gro-forwarding off rx-gro-list off';
/** Where there is no wire, super-packets arrive that nobody has cut. */
export const ON: Merging = { merging: 'on', features: `gro on ${NO_WIRE} ${PLAIN}`, wait: 0 };
export const OFF: Merging = { merging: 'off', features: `gro off ${NO_WIRE} ${PLAIN}`, wait: 0 };
export const NIC_LIKE: Merging = { merging: 'NIC-like', features: `gro on ${WIRE} ${PLAIN}`, wait: 0.2 };
export const IN_LISTS: Merging = {
  merging: 'NIC-like, in lists',
  features: `gro on ${WIRE} rx-udp-gro-forwarding off rx-gro-list on`,
  wait: 0.2,
};
export const UDP_TOO: Merging = {
  merging: 'NIC-like, UDP too',
  features: `gro on ${WIRE} rx-udp-gro-forwarding on rx-gro-list off`,
  wait: 0.2,
};

/** Mbit/s: what tells a collapse (0.2) from a slow machine. */
const FLOOR = 100;
const BYTES = 4_000_000;
/** ms; at the floor it takes a fifth of that. */
const TIMEOUT = 1500;
/** So started, a daemon may not ask the kernel how long merged packets were. */
export const WITHOUT_BPF = ['setpriv', '--bounding-set', '-bpf,-sys_admin', '--inh-caps', '-bpf,-sys_admin'];
/** Commands that a machine needs. */
export const NEEDED = ['ethtool', 'nstat', 'setpriv'];

interface Peer {
  child: ChildProcess;
  lines: AsyncIterator<string>;
}

export class MergingVms {
  readonly lab: Lab;
  readonly #senders = new Map<number, Peer>();
  #daemons: Promise<unknown>[] = [];

  private constructor(lab: Lab) {
    this.lab = lab;
  }

  static async open(): Promise<MergingVms> {
    const vms = new MergingVms(await Lab.open());
    try {
      await vms.#make();
    } catch (error) {
      await vms.close();
      throw error;
    }
    return vms;
  }

  async #make(): Promise<void> {
    const { lab } = this;
    await lab.ip(undefined, ['netns add a', 'netns add b', 'link add eth0 netns a type veth peer name eth0 netns b']);
    for (const name of NAMES) {
      const vm = VMS[name];
      await lab.ip(name, ['link set lo up', `address add 192.168.16.${vm}/16 dev eth0`, 'link set eth0 up']);
      for (const { number, mtu, host } of CONTAINERS) {
        const [container, address] = [`${name}${number}`, addressOf(name, number)];
        await lab.ip(undefined, [`netns add ${container}`]);
        await lab.ip(name, [
          `link add v${number} type veth peer name eth0 netns ${container}`,
          `link set v${number} mtu ${name === 'a' ? Math.max(host, mtu) : host} up`,
          `route add ${address}/32 dev v${number}`,
        ]);
        await lab.must(name, ['sh', '-c', `echo 1 >/proc/sys/net/ipv4/conf/v${number}/forwarding`]);
        await lab.ip(container, [
          `address add ${address}/32 dev eth0`,
          `link set eth0 mtu ${mtu} up`,
          `route add 10.16.${vm}.1 dev eth0`,
          `route add default via 10.16.${vm}.1`,
        ]);
      }
    }
    for (const { number } of CONTAINERS) {
      await this.#start('b', number, 'serve');
      this.#senders.set(number, await this.#start('a', number, 'send', addressOf('b', number)));
    }
  }

  close(): Promise<void> {
    return this.lab.close();
  }

  /** One end of the traffic; resolves when it is ready. */
  async #start(name: Name, number: number, ...words: string[]): Promise<Peer> {
    const child = this.lab.start(`${name}${number}`, [process.execPath, BULK, ...words], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    child.unref();
    const lines = createInterface({ input: child.stdout as never })[Symbol.asyncIterator]();
    await lines.next();
    return { child, lines };
  }

  /** Starts a daemon on each VM, over an underlay with this MTU; `wrapper` are the words before. Returns what they say. */
  async up(underlay: number, flags: readonly string[], wrapper: readonly string[] = []): Promise<Status[]> {
    for (const name of NAMES) await this.lab.ip(name, [`link set eth0 mtu ${underlay}`]);
    for (const { number } of CONTAINERS) {
      // What it has learnt of another underlay.
      for (const name of NAMES) await this.lab.ip(`${name}${number}`, ['route flush cache', 'tcp_metrics flush all']);
    }
    const up = [process.execPath, CLI, 'up', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16', ...flags];
    this.#daemons = NAMES.map((name) => {
      const daemon = this.lab.start(name, [...wrapper, ...up, '--run-dir', `/run/${name}`], { stdio: 'ignore' });
      return new Promise((resolve) => daemon.once('exit', resolve));
    });
    return await Promise.all(NAMES.map((name) => this.status(name)));
  }

  async down(): Promise<void> {
    for (const name of NAMES) {
      const pid = (await this.status(name).catch(() => undefined))?.pid;
      if (pid) await this.lab.run(name, ['kill', String(pid)]);
    }
    await Promise.all(this.#daemons);
    for (const name of NAMES) await this.lab.run(name, [process.execPath, CLI, 'down', '--run-dir', `/run/${name}`]);
  }

  async status(name: Name): Promise<Status> {
    const words = ['status', '--wait', '15', '--json', '--run-dir', `/run/${name}`];
    return JSON.parse(await this.lab.must(name, [process.execPath, CLI, ...words]));
  }

  async merge({ features, wait }: Merging): Promise<void> {
    const script = `ethtool -K eth0 ${features} && cd /sys/class/net/eth0 &&
      echo ${wait * 1e6} >gro_flush_timeout && echo ${wait > 0 ? 2 : 0} >napi_defer_hard_irqs`;
    for (const name of NAMES) await this.lab.must(name, ['sh', '-c', script]);
  }

  async #ask(number: number, request: string): Promise<string> {
    const sender = this.#senders.get(number) as Peer;
    sender.child.stdin?.write(`${request}\n`);
    return (await sender.lines.next()).value;
  }

  /** How often B could not forward what was too long for a container. */
  async #failures(): Promise<number> {
    return Number(/IpFragFails\s+(\d+)/.exec(await this.lab.must('b', ['nstat', '-asz', 'IpFragFails']))?.[1]);
  }

  /**
   * TCP between the containers of every number: what collapses, the better of two times, and what makes B's kernel complain though nothing need be fragmented
   * where containers have packets of at most `fits` bytes.
   */
  async collapses(how: Merging, fits: number): Promise<unknown[]> {
    await this.merge(how);
    const found: unknown[] = [];
    let before = await this.#failures();
    for (const { number, mtu, host } of CONTAINERS) {
      const rate = async () => Number(await this.#ask(number, `tcp ${BYTES} ${TIMEOUT}`));
      let best = await rate();
      if (best < FLOOR) best = Math.max(best, await rate());
      const after = await this.#failures();
      const isAtFault = mtu <= Math.min(fits, host) && after > before;
      if (best < FLOOR || isAtFault) found.push({ how: how.merging, mtu, host, best, failures: after - before });
      before = after;
    }
    return found;
  }

  /** Datagrams of so many bytes between the containers of a number, `bursts` bursts of `count`: how many arrived of each length. */
  async datagrams(number: number, length: number, count: number, bursts: number): Promise<Record<string, number>> {
    return JSON.parse(await this.#ask(number, `udp ${length} ${count} ${bursts}`));
  }
}

function addressOf(name: Name, number: number): string {
  return `10.16.${VMS[name]}.${number + 1}`;
}
