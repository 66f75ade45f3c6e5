/**
 * A batch: what the generator makes, the judge puts into both cores, and a case (the plain object that is written as JSON) brings
 * back. Made once and filled again and again.
 */
import { abi } from 'inlay/core';

/** Most bytes of a batch, room for what surrounds the packets included. */
export const CAPACITY = 1 << 20;

/** What a descriptor points to: a packet of its own; some bytes anywhere among those of the batch; or no valid place. */
export const [PACKET, ALIAS, NOWHERE] = [0, 1, 2];

/** JSON knows no other numbers. */
const writable = (number) => (Number.isFinite(number) ? number : String(number));

export class Batch {
  direction = 'outbound';
  /** What the call is told. */
  first = 0;
  count = 0;
  now = 0;
  /** Tunnels last used before this are closed afterwards; negative: none. */
  expire = -1;
  /** What the host says of a tunnel then: `vm` and `mtu`, or null. */
  narrow = null;
  /** Which messages it could not write: every so many of them, and the `code` that it gives for them; or null. */
  refuse = null;
  /** What lies around the packets, and how far apart they are. */
  surroundings = 0;
  /** The same in both cores, not different. ALIAS is only possible then. */
  identical = false;

  /** Packets, in `data`. */
  size = 0;
  used = 0;
  data = new Uint8Array(CAPACITY);
  view = new DataView(this.data.buffer);
  kinds = new Uint8Array(abi.BATCH_SIZE);
  /** In `data`; of an ALIAS, from the first byte of the batch on; of NOWHERE, the address. */
  starts = new Uint32Array(abi.BATCH_SIZE);
  lengths = new Uint32Array(abi.BATCH_SIZE);
  /** Bytes of `data` behind a packet that are not part of it, but lie behind it in memory too: what it was cut off. */
  beyonds = new Uint32Array(abi.BATCH_SIZE);
  segments = new Uint32Array(abi.BATCH_SIZE);
  /** Addresses as numbers. */
  peers = new Uint32Array(abi.BATCH_SIZE);
  /** Outer types of service. */
  services = new Uint32Array(abi.BATCH_SIZE);
  /** What the host knows of merging. */
  merged = new Uint32Array(abi.BATCH_SIZE);

  clear() {
    this.size = 0;
    this.used = 0;
    this.first = 0;
    this.expire = -1;
    this.narrow = null;
    this.refuse = null;
    this.identical = false;
  }

  /** Adds what `data` has at `start`. */
  add(start, length, beyond, segment, peer, tos, merged) {
    const i = this.#next(PACKET, start, length, segment, peer, tos, merged);
    this.beyonds[i] = beyond;
    this.used = start + length + beyond;
  }

  /** Adds a descriptor that has no packet of its own. */
  addDescriptor(kind, start, length, segment, peer, tos, merged) {
    this.beyonds[this.#next(kind, start, length, segment, peer, tos, merged)] = 0;
  }

  #next(kind, start, length, segment, peer, tos, merged) {
    const i = this.size++;
    this.kinds[i] = kind;
    this.starts[i] = start;
    this.lengths[i] = length;
    this.segments[i] = segment;
    this.peers[i] = peer;
    this.services[i] = tos;
    this.merged[i] = merged;
    return i;
  }

  /** Packets as they are counted here: a datagram counts as one, if the core may take so many at once, and so does a super-packet. */
  get packets() {
    let packets = this.size;
    for (let i = 0; i < this.size; i++) {
      if (this.direction !== 'inbound' || this.kinds[i] !== PACKET || this.segments[i] === 0) continue;
      const datagrams = Math.ceil(this.lengths[i] / this.segments[i]);
      if (datagrams > 1 && datagrams <= abi.MESSAGES) packets += datagrams - 1;
    }
    return packets;
  }

  /** As a plain object. */
  toStep() {
    const { direction, first, count, narrow, refuse, surroundings, identical } = this;
    const [now, expire] = [this.now, this.expire].map(writable);
    const hex = (start, end) => Buffer.from(this.data.subarray(start, end)).toString('hex');
    const inputs = Array.from({ length: this.size }, (_, i) => {
      const [start, end] = [this.starts[i], this.starts[i] + this.lengths[i]];
      const input =
        this.kinds[i] === PACKET
          ? { bytes: hex(start, end), beyond: hex(end, end + this.beyonds[i]) }
          : { [this.kinds[i] === ALIAS ? 'alias' : 'nowhere']: start, length: this.lengths[i] };
      return {
        ...input,
        segment: this.segments[i],
        peer: this.peers[i],
        tos: this.services[i],
        merged: this.merged[i],
      };
    });
    return { direction, first, count, now, expire, narrow, refuse, surroundings, identical, inputs };
  }

  fromStep({ inputs, ...rest }) {
    this.clear();
    Object.assign(this, rest, { now: Number(rest.now), expire: Number(rest.expire) });
    for (const input of inputs) {
      const { bytes, beyond = '', alias, nowhere, length, segment = 0, peer = 0, tos = 0, merged = 0 } = input;
      if (bytes === undefined) {
        const kind = alias === undefined ? NOWHERE : ALIAS;
        this.addDescriptor(kind, alias ?? nowhere, length, segment, peer, tos, merged);
      } else {
        const start = this.used;
        this.data.set(Buffer.from(bytes + beyond, 'hex'), start);
        this.add(start, bytes.length / 2, beyond.length / 2, segment, peer, tos, merged);
      }
    }
    return this;
  }
}
