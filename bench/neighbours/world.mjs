/** A VM with a real daemon, and a world in which every other VM's underlay address is there: a network namespace that takes all of them for its own. */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ask } from '../../dist/daemon/control.js';
import { Lab } from '../../dist/demo/lab.js';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
const AGENT = fileURLToPath(new URL('agent.mjs', import.meta.url));
const UNDERLAY = '192.168.0.0/16';
const OVERLAY = '10.0.0.0/8';
export const LOCAL = 0xc0a81020; // 192.168.16.32
const GATEWAY = '192.168.255.254';
const RUN_DIR = '/run/vm';
/** UDP port of VXLAN, and the bytes before the payload: VXLAN, Ethernet, IPv4 and UDP headers. */
const VXLAN = { port: 4789, header: 8 + 14 + 20 + 8 };
const PLAIN = { port: 9, header: 0 };

export class World {
  #lab;
  #encapsulation;
  #daemon;

  static async make(encapsulation) {
    const world = new World();
    world.#encapsulation = encapsulation;
    world.#lab = await Lab.open();
    const isVxlan = encapsulation === 'vxlan';
    await world.#lab.ip(undefined, [
      'netns add vm',
      'netns add world',
      'link add eth0 netns vm type veth peer name eth0 netns world',
      'link add other0 netns vm type veth peer name other0 netns world',
    ]);
    // The underlay is routed: a neighbour table of 65,534 VMs would be too much for any kernel as it is.
    await world.#lab.ip('vm', [
      ...['link set lo up', 'address add 192.168.16.32/32 dev eth0', 'link set eth0 up', 'link set other0 up'],
      ...[`route add ${GATEWAY} dev eth0`, `route add ${UNDERLAY} via ${GATEWAY}`],
    ]);
    await world.#lab.ip('world', [
      ...['link set lo up', `address add ${GATEWAY}/32 dev eth0`, 'link set eth0 up', 'link set other0 up'],
      ...['route add 192.168.16.32 dev eth0', `route add local ${UNDERLAY} dev lo table main`],
      // With GRE the kernel itself takes everything out. What is not from us is ours: by the longest prefix, as both are in one table.
      ...(isVxlan
        ? []
        : [
            ...[`route add local ${OVERLAY} dev lo table main`, 'link add gre1 type gre external', 'link set gre1 up'],
            'route add 10.16.32.0/24 dev gre1',
          ]),
    ]);
    world.receiver = await world.agent('world');
    await world.receiver('receive', isVxlan ? VXLAN : PLAIN);
    world.sender = await world.agent('vm');
    return world;
  }

  /** A process in a namespace; a function that has it do something. */
  async agent(where) {
    const child = this.#lab.start(where, [process.execPath, AGENT], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    await once(child, 'message');
    return async (...words) => {
      const answer = once(child, 'message');
      child.send(words);
      return (await answer)[0];
    };
  }

  /** Starts the daemon; resolves, when it is ready, to how long that took, in ms, and what it logged of its comparison with the kernel. */
  async startDaemon() {
    const words = ['up', '--overlay', OVERLAY, '--underlay', UNDERLAY, '--dataplane', 'kernel', '--run-dir', RUN_DIR];
    const flags = ['--encapsulation', this.#encapsulation, '--idle-timeout', '1h', '--log-level', 'info'];
    // A log line for each VM would be measured, too.
    const start = performance.now();
    const child = this.#lab.start('vm', [process.execPath, CLI, ...words, ...flags], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let compared;
    let rest = '';
    child.stderr.on('data', (chunk) => {
      const lines = (rest + chunk).split('\n');
      rest = lines.pop();
      compared ??= lines.filter((line) => line.includes('compared with the kernel')).map((line) => JSON.parse(line))[0];
    });
    for (;;) {
      const status = await this.status().catch(() => undefined);
      if (status?.state === 'running') {
        this.#daemon = status.pid;
        return { ms: performance.now() - start, compared };
      }
      if (child.exitCode !== null) throw new Error('the daemon ended');
      await sleep(5);
    }
  }

  /** Adds a route. */
  leadToDevice(prefix) {
    return this.#lab.ip('vm', [`route add ${prefix} dev inlay0`]);
  }

  async killDaemon() {
    await this.#lab.must(undefined, ['kill', '-9', String(this.#daemon)]);
    await sleep(100);
  }

  status() {
    return ask(this.#lab.path(RUN_DIR), 'status');
  }

  /** Bytes of the daemon's memory. */
  async memory() {
    const text = readFileSync(this.#lab.path(`/proc/${this.#daemon}/status`), 'utf8');
    return Number(/^VmRSS:\s+(\d+)/m.exec(text)[1]) * 1024;
  }

  close() {
    return this.#lab.close();
  }
}

/** Bytes that the kernel has in its own objects. */
export function kernelMemory() {
  return Number(/^Slab:\s+(\d+)/m.exec(readFileSync('/proc/meminfo', 'utf8'))[1]) * 1024;
}
