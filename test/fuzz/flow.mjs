/** Flows, and the packets of which they are made. */
import { put16, put32 } from './bytes.mjs';
import { putOptions } from './options.mjs';
import { GRE, ICMP, putRight, TCP, UDP } from './packets.mjs';

const PROTOCOLS = [...Array(30).fill(TCP), ...Array(20).fill(UDP), ...Array(10).fill(ICMP), GRE];
/** Flags and offset; those of fragments now and then. */
const WHOLE = [0, 0x4000, 0x4000];
const FRAGMENTS = [0x2000, 0x2001, 0x0005, 0x3ff0, 0x1fff, 0x6000, 0x8000, 0xa003];
/** Echo, which is answered, and such as are not. */
const ICMP_TYPES = [8, 8, 8, 0, 2, 3, 4, 5, 11, 12, 13, 35];
/** TCP flags: ACK, that and ECE, and those that open a connection. */
const FLAGS = [0x10, 0x10, 0x10, 0x10, 0x50, 0x02, 0x12];
/** The longest that IPv4 and TCP have together. */
const MOST_OPTIONS = 40;

/** What a flow of packets is made of. One that is drawn anew is as good as a new one. */
export class Flow {
  options = new Uint8Array(2 * MOST_OPTIONS);

  draw(random, source, destination) {
    this.source = source;
    this.destination = destination;
    this.protocol = random.pick(PROTOCOLS);
    this.sourcePort = random.pick([1, 2, 40000, 65535, random.below(65536)]);
    this.destinationPort = random.pick([80, 443, 4754]);
    this.type = random.pick(ICMP_TYPES);
    this.id = random.pick([0, 1, 65500, 65534, random.below(65536)]);
    this.fragment = random.pick(random.chance(92) ? WHOLE : FRAGMENTS);
    this.tos = random.chance(60) ? 0 : random.chance(50) ? random.below(4) : random.below(256);
    this.ttl = random.chance(80) ? 64 : random.pick([0, 1, 255]);
    this.sequence = random.pick([1, 0xffffff00, 0xffffffff, 0x7ffffffe, random.u32()]);
    this.acknowledgement = random.u32();
    this.flags = random.pick(FLAGS);
    this.ipOptions = random.chance(92) ? 0 : 4 * random.between(1, MOST_OPTIONS / 4);
    const hasOptions = random.chance((this.flags & 2) === 0 ? 30 : 90);
    this.tcpOptions = !hasOptions ? 0 : random.chance(60) ? 12 : 4 * random.between(1, MOST_OPTIONS / 4);
    putOptions(this.options, 0, this.ipOptions, random);
    putOptions(this.options, MOST_OPTIONS, MOST_OPTIONS + this.tcpOptions, random);
    this.window = random.below(65536);
    this.size = random.pick([1, 2, 7, 8, 40, 40, 60, 99, 100, 100, 333, 333, 537, 1000, 1400, 1436, 1437]);
    return this;
  }

  get headers() {
    return 20 + this.ipOptions + (this.protocol === TCP ? 20 + this.tcpOptions : 8);
  }
}

/** Puts the flow's next packet, with `size` bytes of payload, at `at`; all of it right. Returns its end. */
export function putPacket(bytes, at, flow, size, random) {
  const transport = at + 20 + flow.ipOptions;
  const payload = at + flow.headers;
  const end = payload + size;
  bytes[at] = 0x40 | (5 + flow.ipOptions / 4);
  bytes[at + 1] = flow.tos;
  put16(bytes, at + 2, end - at);
  put16(bytes, at + 4, flow.id);
  put16(bytes, at + 6, flow.fragment);
  bytes[at + 8] = flow.ttl;
  bytes[at + 9] = flow.protocol;
  put32(bytes, at + 12, flow.source);
  put32(bytes, at + 16, flow.destination);
  for (let i = 0; i < flow.ipOptions; i++) bytes[at + 20 + i] = flow.options[i];
  if (flow.protocol === ICMP) {
    put16(bytes, transport, flow.type << 8);
    put32(bytes, transport + 4, flow.sequence);
  } else {
    put16(bytes, transport, flow.sourcePort);
    put16(bytes, transport + 2, flow.destinationPort);
    put16(bytes, transport + 4, 8 + size);
  }
  if (flow.protocol === TCP) {
    put32(bytes, transport + 4, flow.sequence);
    put32(bytes, transport + 8, flow.acknowledgement);
    bytes[transport + 12] = (5 + flow.tcpOptions / 4) << 4;
    bytes[transport + 13] = flow.flags;
    put16(bytes, transport + 14, flow.window);
    put32(bytes, transport + 16, 0);
    for (let i = 0; i < flow.tcpOptions; i++) bytes[transport + 20 + i] = flow.options[MOST_OPTIONS + i];
  }
  random.fill(bytes, payload, end);
  flow.id = (flow.id + 1) & 0xffff;
  flow.sequence = (flow.sequence + size) >>> 0;
  putRight(bytes, at, end);
  return end;
}
