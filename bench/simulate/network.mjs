/**
 * The underlay between the VMs: it carries packets from one round to the next, loses some, copies some, brings some late, and tells the sender in ICMP messages of
 * those that are too long for the path or for nobody (RFC 792, RFC 1191). What it did is counted, to be compared with what the VMs say.
 */
import { Random } from '../../test/fuzz/random.mjs';
import { LOST, NOBODY, TOO_LONG, VANISHED } from './ledger.mjs';
import { addressOf, UNDERLAY_MTU, vmAt } from './mesh.mjs';
import { checksumOf, swapped } from './traffic.mjs';

/** Rounds that a packet is late, at most. */
const LATE = 3;
const SLOTS = LATE + 2;
/** What is known about a message that waits: its place, bytes, packet, sender, kind, and the next one for the same VM. */
const [PLACE, LENGTH, NUMBER, SENDER, KIND, NEXT] = [0, 1, 2, 3, 4, 5];
const ENTRY = 6;
/** Bytes of an outer packet that a router quotes behind the IPv4 header: what RFC 792 asks for, or enough to find the container. */
const [LEAST_QUOTE, QUOTE] = [8, 128];
/** Has no place in any mapping, as the address of a router. */
const ROUTER = 0xac100001;
const [HOST_UNREACHABLE, FRAGMENTATION_NEEDED] = [1, 4];

/** Kinds of messages: a VM's, GRE in IPv4 or GRE as the payload of a UDP datagram; forged, likewise; ICMP, which the VM should believe, or not. */
export const [GRE, GRE_UDP, FORGED_GRE, FORGED_UDP, ICMP, FORGED_ICMP] = [0, 1, 2, 3, 4, 5];
const isData = (kind) => kind < ICMP;
export const isUdp = (kind) => kind === GRE_UDP || kind === FORGED_UDP;

/** Messages that arrive in one round: their bytes, and by VM a list. */
class Arrivals {
  words = new Int32Array(1 << 16);
  end = 0;
  entries = new Int32Array(ENTRY << 10);
  count = 0;

  constructor(vms) {
    this.first = new Int32Array(vms).fill(-1);
    this.last = new Int32Array(vms).fill(-1);
  }

  /** Makes room for `length` bytes for a VM; returns their place, in words. */
  add(vm, length, number, sender, kind, isFirst) {
    const place = this.end;
    this.end += (length + 3) >> 2;
    if (this.end > this.words.length) this.words = grown(this.words);
    const at = this.count++ * ENTRY;
    if (at === this.entries.length) this.entries = grown(this.entries);
    this.entries[at + PLACE] = place;
    this.entries[at + LENGTH] = length;
    this.entries[at + NUMBER] = number;
    this.entries[at + SENDER] = sender;
    this.entries[at + KIND] = kind;
    const goesFirst = isFirst || this.first[vm] < 0;
    this.entries[at + NEXT] = goesFirst ? this.first[vm] : -1;
    if (!goesFirst) this.entries[this.last[vm] + NEXT] = at;
    if (goesFirst) this.first[vm] = at;
    if (!isFirst || this.last[vm] < 0) this.last[vm] = at;
    return place;
  }

  clear() {
    this.first.fill(-1);
    this.last.fill(-1);
    this.end = 0;
    this.count = 0;
  }
}

function grown(words) {
  const larger = new Int32Array(2 * words.length);
  larger.set(words);
  return larger;
}

export class Network {
  /** Packets with their outer header: put there by VMs, copied, forged, and how they ended; and ICMP messages likewise. */
  packets = { put: 0, copied: 0, forged: 0, lost: 0, tooLong: 0, nobody: 0, vanished: 0, arrived: 0 };
  icmp = { made: 0, forged: 0, lost: 0, vanished: 0, arrived: 0 };
  /** Messages on their way. */
  waiting = 0;
  round = 0;
  /** Per cent of packets that are lost, late or early, and brought twice. */
  loss = 0;
  reorder = 0;
  copies = 0;
  #arrivals;
  #random;
  #message = new Int32Array(UNDERLAY_MTU / 4 + 8);

  constructor(mesh, ledger, { seed, loss, reorder, copy }) {
    Object.assign(this, { mesh, ledger, loss, reorder, copies: copy });
    this.#random = new Random(seed);
    this.#arrivals = Array.from({ length: SLOTS }, () => new Arrivals(mesh.vms));
  }

  /** What arrives in this round: `first` and `entries` of a list. */
  get #now() {
    return this.#arrivals[this.round % SLOTS];
  }

  /** All messages of the round have been taken. */
  endRound() {
    this.#now.clear();
    this.round++;
  }

  /**
   * Takes a packet with its outer header, `length` bytes without a UDP socket's headers, from VM `sender` to an address. Its bytes are in `words` from `at` on. `number` is
   * the container's packet in it.
   */
  send(sender, address, kind, number, words, at, length) {
    const isForged = kind === FORGED_GRE || kind === FORGED_UDP;
    this.packets[isForged ? 'forged' : 'put']++;
    this.#carry(sender, address, kind, number, words, at, length);
    if (!this.#random.chance(this.copies)) return;
    this.packets.copied++;
    if (!isForged) this.ledger.copy(number);
    this.#carry(sender, address, kind, number, words, at, length);
  }

  #carry(sender, address, kind, number, words, at, length) {
    if (this.#random.chance(this.loss)) {
      this.packets.lost++;
      return this.#end(kind, number, LOST);
    }
    const [receiver, outer] = [vmAt(address), length + (isUdp(kind) ? 28 : 0)];
    const most = this.mesh.pathMtu(sender, receiver, this.mesh.epochOf(this.round));
    if (outer > most) {
      this.packets.tooLong++;
      this.#end(kind, number, TOO_LONG);
      return this.#tell(sender, address, kind, FRAGMENTATION_NEEDED, most, words, at, length);
    }
    if (receiver < 0 || receiver >= this.mesh.vms) {
      this.packets.nobody++;
      this.#end(kind, number, NOBODY);
      return this.#tell(sender, address, kind, HOST_UNREACHABLE, 0, words, at, length);
    }
    this.#deliver(receiver, length, number, sender, kind, words, at);
  }

  #deliver(vm, length, number, sender, kind, words, at) {
    const isOdd = this.#random.chance(this.reorder);
    const late = isOdd ? this.#random.below(LATE + 1) : 0;
    const arrivals = this.#arrivals[(this.round + 1 + late) % SLOTS];
    const place = arrivals.add(vm, length, number, sender, kind, isOdd);
    const to = arrivals.words;
    const count = (length + 3) >> 2;
    for (let i = 0; i < count; i++) to[place + i] = words[at + i];
    this.waiting++;
  }

  #end(kind, number, how) {
    if (kind === GRE || kind === GRE_UDP) this.ledger.end(number, how);
  }

  /** A VM that runs takes what has arrived for it: `take(kind, number, sender, words, place, length)` is called for each message, those of ICMP last. */
  receive(vm, take) {
    const { words } = this.#now;
    for (const wanted of [true, false]) {
      this.#each(vm, (kind, number, sender, place, length) => {
        if (isData(kind) !== wanted) return;
        this.waiting--;
        (wanted ? this.packets : this.icmp).arrived++;
        take(kind, number, sender, words, place, length);
      });
    }
  }

  /** Nobody takes what has arrived for a VM that does not run; senders are told so. */
  discard(vm) {
    const { words } = this.#now;
    this.#each(vm, (kind, number, sender, place, length) => {
      this.waiting--;
      if (!isData(kind)) {
        this.icmp.vanished++;
        return;
      }
      this.packets.vanished++;
      this.#end(kind, number, VANISHED);
      this.#tell(sender, addressOf(vm), kind, HOST_UNREACHABLE, 0, words, place, length);
    });
  }

  #each(vm, visit) {
    const { entries, first } = this.#now;
    for (let at = first[vm]; at >= 0; at = entries[at + NEXT]) {
      visit(entries[at + KIND], entries[at + NUMBER], entries[at + SENDER], entries[at + PLACE], entries[at + LENGTH]);
    }
  }

  /** Sends an ICMP message about a packet to the VM that sent it. Some routers quote as little as they may. */
  #tell(sender, address, kind, code, mtu, words, at, length) {
    if (kind !== GRE && kind !== GRE_UDP) return;
    const m = this.#message;
    let end = 7;
    if (kind === GRE_UDP) {
      putOuter(m, end, sender, address, 17, length + 28);
      m[end + 5] = 0x00c0 | (0x9212 << 16); // from port 49152 to 4754
      m[end + 6] = ((length + 8) >> 8) | (((length + 8) & 0xff) << 8);
      end += 7;
    }
    const isBrief = this.#random.chance(12);
    const quote = isBrief ? 20 + LEAST_QUOTE : Math.min(length + (kind === GRE_UDP ? 28 : 0), QUOTE);
    for (let i = 0; end < 7 + (quote >> 2); i++) m[end++] = words[at + i];
    this.sendIcmp(sender, ICMP, code, mtu, quote & ~3);
  }

  /** Sends an ICMP message, destination unreachable, that quotes so many bytes from word 7 of `quoted` on. */
  sendIcmp(vm, kind, code, mtu, quote) {
    const m = this.#message;
    putHeader(m, 0, swapped(ROUTER), swapped(addressOf(vm)), 1, 28 + quote, 0);
    m[5] = 3 | (code << 8);
    m[6] = swapped(mtu);
    m[5] |= checksumOf(m, 5, 2 + (quote >> 2)) << 16;
    this.icmp[kind === ICMP ? 'made' : 'forged']++;
    if (this.#random.chance(this.loss)) this.icmp.lost++;
    else this.#deliver(vm, 28 + quote, -1, vm, kind, m, 0);
  }

  /** Where somebody who forges ICMP messages puts what they quote, from word 7 on. */
  get quoted() {
    return this.#message;
  }
}

/** The outer IPv4 header that a VM's UDP socket writes. */
function putOuter(words, at, sender, address, protocol, length) {
  putHeader(words, at, swapped(addressOf(sender)), swapped(address), protocol, length, 0x40);
}

/** An IPv4 header; addresses as they lie in memory, `flags` the byte with them. */
export function putHeader(words, at, source, destination, protocol, length, flags) {
  words[at] = 0x45 | ((length >> 8) << 16) | (length << 24);
  words[at + 1] = flags << 16;
  words[at + 2] = 64 | (protocol << 8);
  words[at + 3] = source;
  words[at + 4] = destination;
  words[at + 2] |= checksumOf(words, at, 5) << 16;
}
