/**
 * What containers send. Everything about a packet follows from its number and the VM that sends it, so that whoever receives it can say what it has to be, byte
 * for byte.
 *
 * A packet is UDP without a checksum (RFC 768), which nothing on the way has a reason to change. Of its payload every other word is the packet's number, so each
 * fragment tells whose it is; the words between depend on where they are.
 */
import { addressOf, MOST_VMS, mix, overlayOf } from './mesh.mjs';

/** What a packet is meant for. */
export const KINDS = ['mesh', 'local', 'foreign-source', 'no-mapping', 'own-slice', 'reserved-address'];
export const [MESH, LOCAL, FOREIGN_SOURCE, NO_MAPPING, OWN_SLICE, RESERVED] = KINDS.keys();
const LONGEST = 1500;
/** Words before the number: IPv4 and UDP header. */
const HEADER_WORDS = 7;
/** Flows of one VM that last. One of them is as heavy as all others together. */
const FLOWS = 8;

/** Parts of 1000. */
const KIND_LIMITS = [
  [LOCAL, 50],
  [NO_MAPPING, 54],
  [OWN_SLICE, 58],
  [RESERVED, 62],
];
const [HEAVY, FLOWING, NOBODY] = [350, 700, 710];

/** A word with its bytes in the other order. */
export const swapped = (n) => (n >>> 24) | ((n >>> 8) & 0xff00) | ((n & 0xff00) << 8) | (n << 24);

/** The word at `i` of packet `number`, behind the UDP header. */
const payloadWord = (number, i) =>
  i & 1 ? number : Math.imul((number ^ Math.imul(i, 0x9e3779b1)) + 0x2545f491, 0x85ebca6b);

/** Sum of 16-bit words, folded and complemented (RFC 1071): of bytes as they lie, so its own bytes lie right, too. */
export function checksumOf(words, at, count) {
  let sum = 0;
  for (let i = at; i < at + count; i++) sum += (words[i] & 0xffff) + (words[i] >>> 16);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

export class Traffic {
  /** Of the packet looked at last: addresses (u32), the VM that it is for, bytes, and whether it may not be fragmented. */
  kind = MESH;
  source = 0;
  destination = 0;
  vm = 0;
  length = 0;
  isWhole = true;

  constructor(mesh) {
    this.mesh = mesh;
  }

  /** Looks at packet `number` of VM `sender`. */
  look(number, sender) {
    const { mesh } = this;
    const h = mesh.hash(10, number, sender);
    const g = mix(h + 0x9e3779b1);
    const container = (g >>> 8) % mesh.containers;
    this.source = overlayOf(sender, 2 + container);
    this.#choose(sender, h % 1000, (h >>> 10) % 100, g);
    // What may be fragmented has whole words, so that the number is in its last fragment, too.
    this.isWhole = (h >>> 17) % 10 !== 0;
    this.length = lengthOf(mix(g + 1));
    if (!this.isWhole) this.length &= ~3;
  }

  #choose(sender, part, lie, g) {
    const { mesh } = this;
    const somebody = 2 + (mix(g) % mesh.containers);
    this.vm = sender;
    this.kind = MESH;
    if (lie < 10 && mesh.isSpoofer(sender)) this.kind = FOREIGN_SOURCE;
    else for (const [kind, limit] of KIND_LIMITS) if (this.kind === MESH && part < limit) this.kind = kind;
    switch (this.kind) {
      case LOCAL:
        this.destination = overlayOf(sender, somebody);
        return;
      case NO_MAPPING:
        this.destination = (0x0b000000 | (g & 0xffffff)) >>> 0;
        return;
      case OWN_SLICE:
        this.destination = overlayOf(sender, 2 + mesh.containers);
        return;
    }
    this.vm = this.#receiver(sender, part, g);
    this.destination = overlayOf(this.vm, this.kind === RESERVED ? (g & 1) * 255 : somebody);
    if (this.kind === FOREIGN_SOURCE) this.source = overlayOf((sender + 1 + (g % 1000)) % MOST_VMS, 2);
    else if (this.kind === MESH && part < FLOWING) {
      // Flows last: the same two containers every time.
      const flow = part < HEAVY ? 0 : 1 + (g % (FLOWS - 1));
      const pair = mesh.hash(11, sender, flow);
      this.source = overlayOf(sender, 2 + (pair % mesh.containers));
      this.destination = overlayOf(this.vm, 2 + ((pair >>> 8) % mesh.containers));
    }
  }

  /** Another VM, or an address where none is. */
  #receiver(sender, part, g) {
    const { vms } = this.mesh;
    const flow = part < HEAVY ? 0 : 1 + (g % (FLOWS - 1));
    const h = part < FLOWING ? this.mesh.hash(12, sender, flow) : mix(g + 2);
    const isNobody = vms === 1 || (part >= FLOWING && part < NOBODY && vms < MOST_VMS);
    return isNobody ? vms + (h % (MOST_VMS - vms)) : (sender + 1 + (h % (vms - 1))) % vms;
  }

  /** Writes the packet looked at into `words` from `at` on. */
  write(words, at, number) {
    const { length } = this;
    words[at] = 0x45 | ((length >> 8) << 16) | (length << 24);
    words[at + 1] = ((number >>> 8) & 0xff) | ((number & 0xff) << 8) | (this.isWhole ? 0x40 << 16 : 0);
    words[at + 2] = 64 | (17 << 8);
    words[at + 3] = swapped(this.source);
    words[at + 4] = swapped(this.destination);
    words[at + 2] |= checksumOf(words, at, 5) << 16;
    words[at + 5] = 0x9c4 | (((this.destination & 0xff) + 0x1000) << 16);
    words[at + 6] = ((length - 20) >> 8) | (((length - 20) & 0xff) << 8);
    const end = (length + 3) >> 2;
    for (let i = HEADER_WORDS; i < end; i++) words[at + i] = payloadWord(number, i);
  }

  /** Where the packet that lies in `words` from `at` on, `length` bytes, is not the one looked at: a byte, or -1. */
  difference(words, at, length, number) {
    if (length !== this.length) return Math.min(length, this.length);
    this.write(EXPECTED, 0, number);
    const whole = length >> 2;
    for (let i = 0; i < whole; i++) if (words[at + i] !== EXPECTED[i]) return 4 * i;
    const mask = (1 << (8 * (length & 3))) - 1;
    return (words[at + whole] ^ EXPECTED[whole]) & mask ? 4 * whole : -1;
  }

  /** Whether `count` words from `at` on are the beginning of the packet looked at, from its addresses on: a fragment is part of it, too. */
  begins(words, at, count, number) {
    this.write(EXPECTED, 0, number);
    for (let i = 3; i < count; i++) if (words[at + i] !== EXPECTED[i]) return false;
    return true;
  }

  /** The underlay address of the VM that it is for. */
  get receiver() {
    return addressOf(this.vm);
  }
}

const EXPECTED = new Int32Array(LONGEST / 4 + 1);

/** Half of the packets are small, a fifth as long as they can be, a few longer than any VM can send in one piece. */
function lengthOf(h) {
  const [part, n] = [h % 20, h >>> 8];
  if (part < 10) return 64;
  if (part < 15) return 64 + (n % 512);
  if (part < 18) return 1400 + (n % 69);
  return part < 19 ? LONGEST - (n % 40) : 576 + (n % 800);
}
