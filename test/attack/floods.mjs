/**
 * What one tenant could take from the others: work per packet, ICMP messages, entries of the machine's table
 * of neighbours. Load itself is load.mjs's.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ACK, ICMP, superPacket, TCP, tcp, UDP, udp } from './packets.mjs';
import { HOSTS, MARK, mentions, PORT } from './world.mjs';

const { tenant, neighbour, other, v } = HOSTS;

/** Bytes out for each byte in, at most. */
const FACTOR = 2;
/** Super-packets of each kind. */
const SUPER_PACKETS = 3;
/** What is in all other packets of the tenant. */
const HONEST = Buffer.from(MARK).toString('hex');
/** Segment sizes that nobody sends, and one that everybody may. */
const [TINY, USUAL] = [[1, 2, 8, 32], 536];

/** Bytes that the VM sends for each byte of the tenant's super-packets. */
async function factor(w, protocol, payload, size) {
  const ip = { from: tenant, to: other, port: PORT };
  const bytes = Buffer.alloc(payload, 'x');
  const frames = Array.from({ length: SUPER_PACKETS }, () => {
    const packet = protocol === TCP ? tcp({ ...ip, flags: ACK, id: w.id() }, bytes) : udp({ ...ip, id: w.id() }, bytes);
    return w.raw('tenant super-packets', superPacket(Buffer.from(w.frame('tenant', packet).hex, 'hex'), size));
  });
  const seen = await w.shoot(frames);
  // Fences are the tenant's too: they carry a mark.
  const sent = seen.filter((each) => each.at === 'wire' && mentions(each, tenant, other) && !each.hex.includes(HONEST));
  const sum = (lengths) => lengths.reduce((all, length) => all + length, 0);
  return sum(sent.map(({ length }) => length)) / sum(frames.map(({ hex }) => hex.length / 2));
}

const tiny = (name, protocol) => ({
  who: 'T',
  title: `${name} super-packets of tiny segments`,
  async run(w) {
    const usual = await factor(w, protocol, 4 * USUAL, USUAL);
    if (usual < 1) throw new Error(`super-packets of ${USUAL} bytes a segment do not pass: ${usual}`);
    const open = [];
    for (const payload of [120, 1200])
      for (const size of TINY) {
        const many = await factor(w, protocol, payload, size);
        if (many > FACTOR)
          open.push(`${payload} bytes in segments of ${size}: ${many.toFixed(1)} bytes out for each in`);
      }
    return open;
  },
});

/** Packets that are answered by ICMP; one source, or a forged one. */
const [BUDGET, ICMP_HEADER] = [4000, 8];
/** So many at once, for which the overlay's device has room; and how often all is tried while it has none. */
const [AT_ONCE, ROUNDS] = [100, 8];
/** How many packets the overlay's device had no room for. */
async function crowdedOut(w) {
  const [{ stats64 }] = JSON.parse(await w.sh('vm1', 'ip -j -s link show inlay0'));
  return stats64.tx.dropped;
}
const budget = (title, packetTo, planes) => ({
  who: 'T',
  title,
  planes,
  isSlow: true,
  async run(w) {
    /** Whether the neighbour is told of its packet, which comes right after these frames. */
    const hears = async (frames) => {
      const packet = packetTo(w, neighbour);
      const seen = await w.shoot([...frames, w.frame('neighbour', packet)]);
      const messages = seen.filter(
        ({ at, protocol, body }) => at === 'neighbour' && protocol === ICMP && body[0] !== 0,
      );
      // The message quotes the header, whose identification is the packet's alone.
      return messages.some(({ body }) => body.readUInt16BE(ICMP_HEADER + 4) === packet.readUInt16BE(4));
    };
    if (!(await hears([]))) return ['nobody is ever told'];
    const open = [];
    for (const [which, from] of [
      ['its own source', tenant],
      ["its neighbour's source", neighbour],
    ]) {
      if (!(await survives(from))) open.push(`after ${BUDGET} packets with ${which} the neighbour hears nothing`);
    }
    return open;

    async function survives(from) {
      for (let i = 0; i < ROUNDS; i++) {
        // Long enough that buckets are full again.
        await sleep(1500);
        const before = await crowdedOut(w);
        const frames = () => Array.from({ length: AT_ONCE }, () => w.frame('tenant', packetTo(w, from)));
        for (let sent = AT_ONCE; sent < BUDGET; sent += AT_ONCE) await w.send(frames());
        if (await hears(frames())) return true;
        // A packet that was lost before anybody could answer it says nothing.
        if ((await crowdedOut(w)) === before) return false;
      }
      throw new Error(`the device had no room for packets, ${ROUNDS} times`);
    }
  },
});

/** VMs that do not exist. */
const VMS = 3000;
/** Of the 1,024 entries that the machine's table of neighbours has room for by default (gc_thresh3). */
const HALF = 600;

const scan = {
  who: 'T',
  title: `packets to ${VMS.toLocaleString('en')} VMs that do not exist: the table of neighbours`,
  limit: { kernel: 'VMs that are not known yet may have to wait' },
  isLasting: true,
  async run(w) {
    const frames = Array.from({ length: VMS }, (_, i) =>
      w.frame('tenant', w.probe(tenant, `10.${100 + (i >> 8)}.${i & 255}.7`).packet),
    );
    await w.shoot(frames);
    // Those that a full table may lose: the others do not count (neigh_alloc in net/core/neighbour.c).
    const lines = (await w.sh('vm1', 'ip neigh show nud all')).split('\n');
    const entries = lines.filter((line) => line !== '' && !/extern_learn|PERMANENT|NOARP/.test(line)).length;
    const open = entries > HALF ? [`${entries} entries`] : [];
    // A VM that the machine does not know yet, and that is there.
    await w.sh('vm1', `ip neigh del ${v.underlay} dev eth0`);
    const { mark, packet } = w.probe(neighbour, v.container);
    for (const end = performance.now() + 3000; ; await sleep(100)) {
      const seen = await w.shoot([w.frame('neighbour', packet)]);
      if (w.saw(seen, mark, ['u'])) return open;
      if (performance.now() > end) return [...open, 'a VM that is there cannot be reached'];
    }
  },
};

export const floodAttacks = [
  tiny('TCP', TCP),
  tiny('UDP', UDP),
  // The kernel data plane tells nobody.
  budget("the VM's ICMP: packets that nobody gets", (w, from) => w.probe(from, '10.16.33.0', { id: w.id() }).packet, [
    'wasm',
    'wasm-udp',
  ]),
  budget(
    "the kernel's ICMP: packets whose time is up",
    (w, from) => w.probe(from, other, { id: w.id(), ttl: 1 }).packet,
  ),
  scan,
];
