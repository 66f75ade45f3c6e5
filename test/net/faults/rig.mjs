/**
 * A lab to make faults in: the VM under test `a`, another VM `b`, one container on each, and a gateway. The container of `a` sends to that of `b` all the time.
 * The gateway is the default route of `a`, by a device of its own, so that faults of the underlay do not remove that route. The gateway counts packets in plain.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ask } from '../../../dist/daemon/control.js';
import { Lab } from '../../../dist/demo/lab.js';
import { difference } from '../difference.mjs';
import { PLANES } from '../planes.mjs';
import { foreignObjects, makeForeign } from './foreign.mjs';
import { PUT_BACK } from './table.mjs';
import { told } from './told.mjs';

const file = (name) => fileURLToPath(new URL(name, import.meta.url));
const CLI = file('../../../dist/cli.js');
const UP = ['up', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16', '--idle-timeout', '1h'];
const VMS = { a: 32, b: 33 };
const RUN_DIR = '/run/a/inlay';
const VETH_MAC = '02:00:00:00:00:90';
const TARGET = '10.16.33.91';
/** ms between two packets of the container. */
const INTERVAL = 2;
/** ms that a start may take. */
const READY = 20_000;
/** ms between two questions. */
const PAUSE = 20;

/**
 * Prints the names of all devices, and everything that the daemon made. Device numbers, programs' ids and VMs' metrics are left out: they change. So is the
 * fast path's program at the underlay device: what others have there keeps it away, but once that was missing for a moment, it is there and stays.
 */
const stateOf = (plane) => `
  ls /sys/class/net
  ip -d link show inlay0 | sed 's/^[0-9]*: //'
  ip -o address show dev inlay0 | sed 's/^[0-9]*: //'
  ip -4 -N route show table all | grep -E 'dev inlay0|proto 7[35]' | sed 's/ metric [0-9]* onlink/ onlink/' | sort
  grep -s '' /proc/sys/net/ipv4/conf/inlay0/*
  for d in inlay0 ${plane === 'kernel' ? 'eth0' : ''}; do for w in ingress egress; do tc filter show dev $d $w 2>/dev/null | grep bpf; done; done |
    sed 's/ id [0-9]*//; s/ tag [0-9a-f]*//'
`;
const MTU = 'cat /sys/class/net/inlay0/mtu';

export class Rig {
  #lab;
  #plane;
  #inject;
  #beat;
  #sniff;
  #children = [];
  #plain = 0;
  #daemon;
  #mtu;
  /** What `stateOf` prints when all is right. */
  #right;
  /** What others have. */
  foreign;

  /** `minutes` is how long the container sends at most. */
  static async open(plane, minutes = 10) {
    const rig = new Rig();
    rig.#plane = plane;
    rig.#lab = await Lab.open();
    try {
      await rig.#build(minutes);
    } catch (error) {
      await rig.close();
      throw error;
    }
    return rig;
  }

  async #build(minutes) {
    const lab = this.#lab;
    await lab.ip(undefined, [
      'link add underlay type bridge',
      'link set underlay up',
      ...['a', 'b', 'ca', 'cb', 'gw'].map((name) => `netns add ${name}`),
      ...['a', 'b'].map((vm) => `link add port-${vm} type veth peer name eth0 netns ${vm}`),
      'link add port-a1 type veth peer name eth1 netns a',
      ...['a', 'b', 'a1'].map((port) => `link set port-${port} master underlay up`),
      'link add wan0 netns a type veth peer name wan0 netns gw',
    ]);
    for (const [vm, number] of Object.entries(VMS)) {
      const address = `10.16.${number}.91`;
      await lab.ip(undefined, [
        `link add veth90 address ${VETH_MAC} netns ${vm} type veth peer name eth0 netns c${vm}`,
      ]);
      await lab.ip(vm, [
        ...['link set lo up', 'link set eth0 addrgenmode none up', 'link set veth90 addrgenmode none up'],
        `address add 192.168.16.${number}/16 dev eth0`,
        `route add ${address} dev veth90`,
      ]);
      const gateway = `10.16.${number}.1`;
      await lab.ip(`c${vm}`, [
        ...['link set lo up', `address add ${address}/32 dev eth0`, 'link set eth0 mtu 1280 up'],
        // The container sends even while nobody answers ARP requests for its gateway.
        `neighbour add ${gateway} lladdr ${VETH_MAC} dev eth0 nud permanent`,
        ...[`route add ${gateway} dev eth0`, `route add default via ${gateway}`],
      ]);
      await lab.must(vm, ['mkdir', `/run/${vm}`]);
      await lab.must(vm, ['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/conf/veth90/forwarding']);
    }
    await lab.ip('a', [
      ...['link set eth1 addrgenmode none up', 'link set wan0 addrgenmode none up'],
      ...['address add 198.51.100.2/24 dev wan0', 'route add default via 198.51.100.1'],
    ]);
    await lab.ip('gw', ['link set lo up', 'address add 198.51.100.1/24 dev wan0', 'link set wan0 up']);
    // When an address moves, `b` believes it at once, and only the device that has the address answers for it.
    await lab.must('b', ['sh', '-c', 'echo 0 >/proc/sys/net/ipv4/neigh/eth0/locktime']);
    await lab.must('a', ['sh', '-c', 'for d in eth0 eth1; do echo 1 >/proc/sys/net/ipv4/conf/$d/arp_ignore; done']);
    await makeForeign(lab, 'a');
    this.foreign = await foreignObjects(lab, 'a');

    this.#inject = await told(lab, 'a', file('agent.mjs'));
    this.#sniff = await told(lab, 'gw', file('sniff.mjs'));
    const server = lab.start('cb', [process.execPath, file('../pulse.mjs'), 'serve'], { stdio: ['ignore', 'pipe', 2] });
    await once(server.stdout, 'data');
    this.#children.push(server);
    const words = [file('beat.mjs'), TARGET, String(INTERVAL), String(minutes)];
    this.#beat = await told(lab, 'ca', ...words);
  }

  async close() {
    await this.#lab.close();
    for (const child of this.#children) child.unref();
  }

  /** Starts both daemons and waits until packets flow. What there is then counts as right. */
  async start() {
    await this.#up('b');
    await this.#leak();
    await this.up();
    await this.flows();
    this.#right = await this.#inject('look', { script: stateOf(this.#plane) });
    this.#mtu = Number(await this.#inject('look', { script: MTU }));
  }

  /** Waits until the gateway sees a packet in plain, as it has to without a daemon: this shows that the counter works. */
  async #leak() {
    for (const deadline = performance.now() + READY; performance.now() < deadline; await sleep(PAUSE))
      if ((await this.plain()).packets > 0) return;
    throw new Error('nothing comes to the gateway');
  }

  /** Starts the daemon of `a`. */
  async up() {
    this.#daemon = await this.#up('a');
  }

  async #up(vm) {
    const [script, ...rest] = ['exec "$@" 2>>"$0"', `/run/${vm}.log`, process.execPath, CLI, ...UP];
    const words = ['sh', '-c', script, ...rest, ...PLANES[this.#plane], '--run-dir', `/run/${vm}/inlay`];
    const child = this.#lab.start(vm, words, { stdio: 'ignore' });
    this.#children.push(child);
    const ended = new Promise((resolve) => child.once('exit', resolve));
    for (const deadline = performance.now() + READY; ; await sleep(PAUSE)) {
      const status = await this.status(vm).catch(() => undefined);
      if (status?.state === 'running') return { child, ended, pid: status.pid };
      if (child.exitCode !== null || performance.now() > deadline)
        throw new Error(`the daemon of ${vm} is not ready:\n${this.#lastWords(vm)}`);
    }
  }

  /** Sends a signal to the daemon of `a`. */
  async signal(name) {
    await this.#lab.must(undefined, ['kill', `-${name}`, String(this.#daemon.pid)]);
    // nsenter stops with its child.
    if (name === 'CONT') this.#daemon.child.kill('SIGCONT');
  }

  /** Sends a signal to the daemon of `a`, and waits for its end; resolves to its exit code. */
  async end(name) {
    await this.signal(name);
    return await this.#daemon.ended;
  }

  down() {
    return this.#lab.run('a', [process.execPath, CLI, 'down', '--run-dir', RUN_DIR]);
  }

  /** After a fault that was not put right: removes what is left by force, and starts another daemon. */
  async reset() {
    const kill = `kill -CONT ${this.#daemon.pid}; kill -KILL ${this.#daemon.pid}`;
    await this.#lab.run(undefined, ['sh', '-c', kill]);
    this.#daemon.child.kill('SIGCONT');
    await this.#daemon.ended;
    await this.down();
    const rest = `ip link del inlay0; ip link del x0; ip route flush proto 73; ip route flush proto 75; rm -rf ${RUN_DIR}`;
    await this.#lab.run('a', ['sh', '-c', `${rest}\n${PUT_BACK}`]);
    await this.up();
    await this.flows();
    this.#right = await this.#inject('look', { script: stateOf(this.#plane) });
  }

  status(vm = 'a') {
    return ask(this.#lab.path(`/run/${vm}/inlay`), 'status');
  }

  log(vm = 'a') {
    return readFileSync(this.#lab.path(`/run/${vm}.log`), 'utf8');
  }

  #lastWords(vm) {
    return this.log(vm).trim().split('\n').slice(-5).join('\n');
  }

  /** Lines of the log of `a` at this level. */
  logged(level) {
    return this.log()
      .split('\n')
      .filter((line) => line.includes(`"level":"${level}"`));
  }

  /** Runs a shell script in `a`. */
  shell(script) {
    return this.#lab.must('a', ['sh', '-ec', script]);
  }

  /** Everything that the daemon made, as text. */
  state() {
    return this.#inject('look', { script: stateOf(this.#plane) });
  }

  get right() {
    return this.#right;
  }

  /** How many packets came to the gateway in plain, and the last of them. */
  plain() {
    return this.#sniff('count');
  }

  /** How many packets came in plain since this was last asked. */
  async newPlain() {
    const before = this.#plain;
    this.#plain = (await this.plain()).packets;
    return this.#plain - before;
  }

  /** Foreign objects that changed or went. */
  async changed() {
    const now = new Set(await foreignObjects(this.#lab, 'a'));
    return this.foreign.filter((line) => !now.has(line));
  }

  /** Waits for an answer to a packet that is sent from now on. */
  async flows(limit = READY) {
    const after = await this.#inject('now');
    const at = await this.#beat('flows', { after, limit });
    if (at === undefined) throw new Error(`no answer for ${limit} ms:\n${this.#lastWords('a')}`);
  }

  /**
   * Makes a fault and waits until it is put right; throws if that takes longer than `limit` ms. Resolves to one row for each step. `state` is the time from the
   * end of the command until a look at the VM found everything right: at most a look (some 30 ms) too much. `traffic` is the time from the end of the command
   * until the last packet without an answer was sent: 0 if there was none. `lost` counts these packets.
   */
  async inject({ name, steps }, limit) {
    const times = [];
    for (const { command, seen } of steps) {
      // `true` prints nothing: then an answer is all that is waited for.
      const looks = {
        state: { script: stateOf(this.#plane), expected: this.#right },
        mtu: { script: MTU, expected: `${this.#mtu - 100}\n` },
        traffic: { script: 'true', expected: '' },
      };
      const { error, start, end, right, last } = await this.#inject('inject', { command, ...looks[seen], limit });
      if (error) throw new Error(`${name}: ${error}`);
      if (right === undefined)
        throw new Error(`${name}: not right after ${limit} ms:\n${wrong(looks[seen].expected, last)}`);
      const flowing = await this.#beat('flows', { after: right, limit });
      if (flowing === undefined) throw new Error(`${name}: no answer for ${limit} ms`);
      // The last packets before that answer may still be under way.
      const to = Math.max(right, flowing - 10 * INTERVAL);
      const { count, last: lastLost } = await this.#beat('missed', { from: start, to });
      times.push({ state: right - end, traffic: Math.max(0, (lastLost ?? end) - end), lost: count });
      if (seen === 'traffic') times[times.length - 1].state = flowing - end;
    }
    return times;
  }
}

/** Lines that are missing and those that are too many. */
const wrong = (expected, actual) => difference(expected.split('\n'), actual.split('\n')).join('\n');
