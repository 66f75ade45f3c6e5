/**
 * Packets of one VM, made from a seed: what its containers and other VMs send, and what attackers would. The packets are the
 * fuzzer's, but only what a host without offloads can be given, in one configuration.
 */
import { put16, put32 } from '../fuzz/bytes.mjs';
import { Flow, putPacket } from '../fuzz/flow.mjs';
import { mutatePacket } from '../fuzz/mutate.mjs';
import { putGre, putOuter } from '../fuzz/outer.mjs';
import { GRE, insertOptions, leaveOpen, putRight, TCP } from '../fuzz/packets.mjs';
import { container, oddAddress } from '../fuzz/setup.mjs';

/** What each host is told: VM 192.168.16.32. */
export const MESH = { local: '192.168.16.32', overlay: '10.0.0.0/8', underlay: '192.168.0.0/16' };
const UNDERLAY = 0xc0a80000;
const LOCAL = UNDERLAY + 0x1020;
const MAPPING = { overlay: 0x0a000000, overlayLength: 8, underlay: UNDERLAY, underlayLength: 16 };
const PEERS = Array.from({ length: 200 }, (_, i) => UNDERLAY + 0x1021 + 37 * i);
const SETUP = { config: { local: LOCAL, mappings: [MAPPING] }, local: LOCAL, peers: PEERS };

/** Of a VM, as many as it has numbers for. */
const CONTAINERS = 252;
/** Conversations that go on side by side. */
const FLOWS = 64;
/** Where packets begin in the buffer: what is put before them fits there. */
const ROOM = 256;
/** Bytes of an IPv4 packet, and of one that is carried in another. */
const LONGEST = 65535;
const LONGEST_INNER = LONGEST - 100;
const MTU = 1500;
/** So many packets in so many are long, one after the other: what they become is more than one call has room for. */
const [BURST, BURST_EVERY] = [120, 10_000];
const BURST_BYTES = [8000, 20_000];
/** And so many, in the middle between those, are of somebody who looks for VMs: more than one may at once. */
const SCAN = 400;

export class Traffic {
  /** The last packet is in here. */
  data = new Uint8Array(2 * LONGEST);
  #random;
  #isOutbound;
  #flows = Array.from({ length: FLOWS }, () => new Flow());
  #flow = new Flow();
  /** The VM that the last packet is from, or goes to. */
  #peer = 0;
  /** Of those who look for VMs: the next one that is tried. */
  #scanned = 0;
  #made = 0;

  constructor(random, isOutbound) {
    this.#random = random;
    this.#isOutbound = isOutbound;
    for (const flow of this.#flows) this.#draw(flow);
  }

  /** Makes the next packet: the bytes from `start` up to `end`, in `data`, until the next one is made. */
  next() {
    const random = this.#random;
    let end = this.#put(this.#made++ % BURST_EVERY);
    const start = this.#isOutbound ? ROOM : this.#wrap(end);
    if (random.chance(1)) end = start + random.below(end - start + 1);
    return { start, end };
  }

  /** An inner packet, or what should be one: that of a burst or, mostly, of any kind. Returns its end, as all of these. */
  #put(place) {
    if (place < BURST) return this.#burst();
    if (place >= BURST_EVERY / 2 && place < BURST_EVERY / 2 + SCAN) return this.#scan();
    const kind = this.#random.below(100);
    if (kind < 70) return this.#nextOfFlow();
    if (kind < 72) return this.#long();
    return kind < 78 ? this.#scan() : this.#hostile();
  }

  /** A flow between a container of this VM and one of another. */
  #draw(flow) {
    const random = this.#random;
    flow.peer = random.pick(PEERS);
    const [from, to] = this.#isOutbound ? [LOCAL, flow.peer] : [flow.peer, LOCAL];
    flow.draw(random, container(random, SETUP, from, CONTAINERS), container(random, SETUP, to, CONTAINERS));
    if (random.chance(50)) flow.size = random.below(MTU - flow.headers);
    return flow;
  }

  #nextOfFlow() {
    const random = this.#random;
    const flow = random.pick(this.#flows);
    if (random.chance(2)) this.#draw(flow);
    this.#peer = flow.peer;
    return putPacket(this.data, ROOM, flow, random.chance(80) ? flow.size : random.below(flow.size + 1), random);
  }

  /** One that is to be fragmented, or may not be; inbound, one that the kernel has merged (GRO), or that nobody can have sent. */
  #long() {
    const random = this.#random;
    const flow = this.#draw(this.#flow);
    this.#peer = flow.peer;
    if (random.chance(60)) flow.fragment = 0;
    if (!this.#isOutbound && random.chance(60)) flow.protocol = TCP;
    const most = random.chance(70) ? 4 * MTU : this.#isOutbound ? LONGEST : LONGEST_INNER;
    const end = putPacket(this.data, ROOM, flow, random.between(MTU, most) - flow.headers, random);
    if (!this.#isOutbound && random.chance(60)) leaveOpen(this.data, ROOM, end);
    return end;
  }

  /** One that becomes many: fragments, or inbound the segments that it was merged from. */
  #burst() {
    const random = this.#random;
    const flow = this.#draw(this.#flow);
    this.#peer = flow.peer;
    flow.protocol = TCP;
    flow.fragment = 0;
    const end = putPacket(this.data, ROOM, flow, random.between(...BURST_BYTES), random);
    if (!this.#isOutbound) leaveOpen(this.data, ROOM, end);
    return end;
  }

  /** One container, or outbound one of a few, looks for VMs one after the other. */
  #scan() {
    const random = this.#random;
    const flow = this.#draw(this.#flow);
    this.#peer = UNDERLAY + 0x2000 + (this.#scanned++ % 0x4000);
    const container = MAPPING.overlay + ((this.#peer - UNDERLAY) << 8) + 1 + random.below(3);
    const own = MAPPING.overlay + ((LOCAL - UNDERLAY) << 8) + 2;
    [flow.source, flow.destination] = this.#isOutbound ? [own, container] : [container, own];
    return putPacket(this.data, ROOM, flow, random.below(60), random);
  }

  /** Nearly right: one thing of a packet is not as it should be. */
  #hostile() {
    const random = this.#random;
    const { data } = this;
    const flow = this.#draw(this.#flow);
    this.#peer = flow.peer;
    let end = putPacket(data, ROOM, flow, flow.size, random);
    switch (random.below(8)) {
      case 0:
        put32(data, ROOM + 12, oddAddress(random, SETUP));
        break;
      case 1:
      case 2:
        put32(data, ROOM + 16, oddAddress(random, SETUP));
        break;
      case 3:
        data[ROOM + 9] = GRE;
        break;
      case 4:
        mutatePacket(data, ROOM, end, random);
        if (random.chance(50)) return end;
        break;
      case 5: // what is announced is not there, or there is more
        put16(data, ROOM + 2, end - ROOM + random.between(-20, 20));
        break;
      case 6:
        end = insertOptions(data, ROOM, end, random);
        break;
      default: // a bit of a header, or of anything
        data[ROOM + random.below(random.chance(50) ? 20 : end - ROOM)] ^= 1 << random.below(8);
        return end;
    }
    putRight(data, ROOM, end);
    return end;
  }

  /** Puts outer headers before a packet, now and then not quite right. Returns where they start. */
  #wrap(end) {
    const random = this.#random;
    const { data } = this;
    const gre = putGre(data, ROOM, end, random, SETUP.config, random.u32());
    const source = random.chance(97) ? this.#peer : oddAddress(random, SETUP);
    const destination = random.chance(99) ? LOCAL : oddAddress(random, SETUP);
    const tos = random.chance(60) ? data[ROOM + 1] : random.below(256);
    return putOuter(data, gre, end, random, { source, destination, tos });
  }
}
