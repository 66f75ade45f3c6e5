/**
 * Where attacks happen: two VMs with a daemon each, in a lab of its own, and a host on the underlay that is
 * no VM. T is the tenant, root in a container of the first VM; beside it lives its neighbour, on the other VM
 * another container. Whoever attacks sends frames as they please.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { namesOf } from '../../dist/containers/alias.js';
import { Lab } from '../../dist/demo/lab.js';
import { Mesh } from '../../dist/demo/mesh.js';
import { parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';
import { told } from '../net/faults/told.mjs';
import { PLANES } from '../net/planes.mjs';
import { address, ethernet, TUNNELS, udp } from './packets.mjs';

const AGENT = fileURLToPath(new URL('agent.mjs', import.meta.url));
/**
 * Addresses of those who take part. `other` lives on the second VM. V is a VM that was taken over; U may send
 * from there, too.
 */
export const HOSTS = {
  tenant: '10.16.32.91',
  neighbour: '10.16.32.92',
  other: '10.16.33.91',
  vm: { underlay: '192.168.16.32', overlay: '10.16.32.1', other: '203.0.113.5' },
  otherVm: { underlay: '192.168.16.33', overlay: '10.16.33.1' },
  v: { underlay: '192.168.16.40', overlay: '10.16.40.1', container: '10.16.40.91' },
  u: '192.168.66.6',
  outsider: '172.16.66.6',
};
/**
 * UDP and TCP port that the VMs and the host on the underlay serve; and one of those that their own
 * connections have.
 */
export const [PORT, EPHEMERAL_PORT] = [7777, 50_123];
/** Where a packet counts as delivered; wires are what a VM sends on the underlay. */
const VICTIMS = ['neighbour', 'other', 'vm', 'otherVm', 'u served'];
/** Which kinds of tunnels a VM of the plane takes. */
const TAKEN = { wasm: ['gre', 'gre-udp'], 'wasm-udp': ['gre', 'gre-udp'], kernel: ['vxlan'] };
export const MARK = 'attacked';
/** The VM's end of a container's veth. */
export const linkOf = (container) => namesOf({ id: container, ifname: 'eth0' }).hostInterface;
/** ms: what honest packets may take, and after how long they are sent again. */
const [PATIENCE, AGAIN] = [5000, 250];

/** IP options: what has one goes its ordinary way. */
const [NO_OPTIONS, NO_OPERATION] = [[], [1, 1, 1, 0]];

/** How often a new world is looked at until honest packets get through. */
const SETTLES = 5;

/** Honest packets do not get through any more. */
export class Broken extends Error {
  constructor(ways) {
    super(`honest packets do not arrive: ${ways.join(', ')}`);
  }
}

export class World {
  lab;
  mesh;
  plane;
  /** MAC addresses: of each sender, and of what it sends to. */
  #macs = {};
  #agent;
  #marks = 0;

  /** Without the kernel's own filter, and with no setting that helps. */
  static async make(plane, ...flags) {
    const world = new World();
    world.plane = plane;
    world.lab = await Lab.open();
    try {
      await world.#build(flags);
    } catch (error) {
      await world.close();
      throw error;
    }
    return world;
  }

  async #build(flags) {
    const mapping = new Mapping(parsePrefix('10.0.0.0/8'), parsePrefix('192.168.0.0/16'));
    const plan = { mapping, vms: 2, containersPerVm: 2, flags: [...PLANES[this.plane], ...flags] };
    this.mesh = await Mesh.start(this.lab, plan);
    await this.lab.ip(undefined, [
      'netns add u',
      'link add port-u type veth peer name eth0 netns u',
      'link set port-u master underlay up',
    ]);
    await this.lab.ip('u', [
      'link set lo up',
      ...[HOSTS.u, HOSTS.v.underlay].map((each) => `address add ${each}/16 dev eth0`),
      `address add ${HOSTS.outsider}/32 dev eth0`,
      'link set eth0 up',
    ]);
    await this.lab.ip('vm1', [`address add ${HOSTS.vm.other}/32 dev lo`]);
    await this.lab.linksUp(undefined, ['port-u']);
    await this.#learnMacs();
    this.#agent = await told(this.lab, undefined, AGENT);
    for (const [at, namespace, device] of [
      ['tenant', 'c1-1', 'eth0'],
      ['neighbour', 'c1-2', 'eth0'],
      ['other', 'c2-1', 'eth0'],
      ['u', 'u', 'eth0'],
      ['wire', undefined, 'port-vm1'],
      ['otherWire', undefined, 'port-vm2'],
    ])
      await this.#agent('watch', { at, namespace, device });
    for (const [at, namespace, port] of [
      ['vm', 'vm1', PORT],
      ['vm ephemeral', 'vm1', EPHEMERAL_PORT],
      ['otherVm', 'vm2', PORT],
      ['u served', 'u', PORT],
    ])
      await this.#agent('serve', { at, namespace, port });
    await this.#settle();
  }

  /** An attack in a world before this one may have filled the machine's tables: they empty themselves. */
  async #settle() {
    for (let left = SETTLES; ; left--) {
      try {
        await this.shoot([]);
        return;
      } catch (error) {
        if (left === 0) throw error;
      }
    }
  }

  async #learnMacs() {
    const macOf = async (where, device) =>
      JSON.parse(await this.lab.must(where, ['ip', '-j', 'link', 'show', device]))[0].address;
    const vm = await macOf('vm1', 'eth0');
    this.#macs = {
      tenant: { from: await macOf('c1-1', 'eth0'), to: await macOf('vm1', linkOf('c1-1')) },
      neighbour: { from: await macOf('c1-2', 'eth0'), to: await macOf('vm1', linkOf('c1-2')) },
      other: { from: await macOf('c2-1', 'eth0'), to: await macOf('vm2', linkOf('c2-1')) },
      u: { from: await macOf('u', 'eth0'), to: vm, toOther: await macOf('vm2', 'eth0') },
    };
  }

  macOf(at) {
    return this.#macs[at].from;
  }

  /** What one of them sends by its device, to its VM unless said otherwise. */
  frame(at, packet, { to, ...rest } = {}) {
    const { from, to: usual, toOther } = this.#macs[at];
    return this.raw(at, ethernet({ from, to: to === 'other VM' ? toOther : (to ?? usual), ...rest }, packet));
  }

  raw(at, bytes) {
    return { at, hex: bytes.toString('hex') };
  }

  /** Payload that no other packet has. */
  mark() {
    const bytes = Buffer.alloc(12);
    bytes.write(MARK);
    bytes.writeUInt32BE(++this.#marks, 8);
    return bytes;
  }

  /** A UDP packet to the served port, and its mark. */
  probe(from, to, more = {}) {
    const mark = this.mark();
    return { mark, packet: udp({ from, to, port: PORT, id: this.#marks & 0xffff, ...more }, mark) };
  }

  /** A fragment's identification that nobody else uses. */
  id() {
    return ++this.#marks & 0xffff;
  }

  /** Sends frames without waiting for anything. */
  send(frames) {
    return this.#agent('send', frames);
  }

  /**
   * Sends frames, does what `also` says, and then sends honest packets over every way that there is, all of
   * which take them in order: when those have come, what has not come never will. Those with an IP option go
   * past no data plane. Resolves to what was seen meanwhile. Throws if honest packets do not get through.
   */
  async shoot(frames, also = async () => {}) {
    await this.#agent('collect');
    await this.send(frames);
    await also();
    const seen = [];
    const fences = this.#fences();
    let missing = fences;
    for (const end = performance.now() + PATIENCE; missing.length > 0; ) {
      await this.send(missing.map(({ frame }) => frame));
      for (const again = performance.now() + AGAIN; missing.length > 0 && performance.now() < again; await sleep(2)) {
        seen.push(...(await this.#agent('collect')));
        missing = fences.filter(({ mark, at }) => !this.saw(seen, mark, [at]));
      }
      if (performance.now() > end) throw new Broken(missing.map(({ name }) => name));
    }
    return seen.map((each) => ({ ...each, ...sourceOf(each) }));
  }

  #fences() {
    const fence = (name, at, from, to, sender, wrap = (packet) => this.frame(sender, packet)) =>
      [NO_OPTIONS, NO_OPERATION].map((options) => {
        const { mark, packet } = this.probe(from, to, { options });
        return { name: options.length > 0 ? `${name}, with an option` : name, at, mark, frame: wrap(packet) };
      });
    const { tenant, neighbour, other, v, vm, otherVm } = HOSTS;
    const fromV =
      (kind, { underlay }, to) =>
      (packet) =>
        this.frame('u', TUNNELS[kind]({ from: v.underlay, to: underlay }, packet), { to });
    return [
      ...fence('tenant to other', 'other', tenant, other, 'tenant'),
      ...fence('neighbour to other', 'other', neighbour, other, 'neighbour'),
      ...fence('other to neighbour', 'neighbour', other, neighbour, 'other'),
      ...TAKEN[this.plane].flatMap((kind) => [
        ...fence(`V to neighbour by ${kind}`, 'neighbour', v.container, neighbour, 'u', fromV(kind, vm)),
        ...fence(`V to other by ${kind}`, 'other', v.container, other, 'u', fromV(kind, otherVm, 'other VM')),
      ]),
    ];
  }

  /** Whether a mark came to one of these places. */
  saw(seen, mark, places = VICTIMS) {
    const hex = mark.toString('hex');
    return seen.some((each) => places.includes(each.at) && each.hex.includes(hex));
  }

  status(vm = this.mesh.vms[0]) {
    return this.mesh.status(vm);
  }

  async sh(where, script) {
    return (await this.lab.run(where, ['sh', '-c', script])).stdout;
  }

  /** Starts daemons anew, and makes the kernel forget what it has learnt. */
  async renew() {
    for (const vm of this.mesh.vms) {
      const { pid } = await this.status(vm);
      await this.sh(undefined, `kill -TERM ${pid}; while kill -0 ${pid} 2>/dev/null; do sleep 0.02; done`);
      await this.sh(
        vm.name,
        `ip route flush cache; for n in eth0 ${vm.containers.map(({ hostInterface }) => hostInterface).join(' ')}; do ip neigh flush dev $n; done; ip -6 route flush proto ra`,
      );
      await this.mesh.startDaemon(vm);
    }
  }

  async close() {
    await this.lab.close();
  }
}

/** The IPv4 source and destination of a frame that was seen. */
function sourceOf({ hex, datagramFrom }) {
  if (datagramFrom !== undefined) return { source: datagramFrom };
  const bytes = Buffer.from(hex, 'hex');
  const at = bytes.readUInt16BE(12) === 0x8100 ? 18 : 14;
  if (bytes.length < at + 20 || bytes.readUInt16BE(at - 2) !== 0x0800) return {};
  return {
    id: bytes.readUInt16BE(at + 4),
    isFragment: (bytes.readUInt16BE(at + 6) & 0x3fff) !== 0,
    protocol: bytes[at + 9],
    source: bytes.subarray(at + 12, at + 16).join('.'),
    destination: bytes.subarray(at + 16, at + 20).join('.'),
    body: bytes.subarray(at + (bytes[at] & 15) * 4),
    to: bytes.subarray(0, 6).toString('hex'),
  };
}

/** True if an address is in the bytes of a frame that was seen. */
export const mentions = ({ hex }, ...addresses) =>
  addresses.every((each) => hex.includes(address(each).toString('hex')));
