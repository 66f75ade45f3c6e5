/** What a core has sent of late, as routers see it: ICMP messages quote from there. */
import { abi } from 'inlay/core';
import { putIpv4, putUdp } from './outer.mjs';
import { UDP } from './packets.mjs';

const ENTRIES = 16;
/** Bytes that are kept of a packet; more than any ICMP message quotes. */
const KEPT = 700;
/** Bytes of IPv4 and UDP, which are the kernel's. */
const KERNELS = 28;

export class Sent {
  #entries = Array.from({ length: ENTRIES }, () => ({ bytes: new Uint8Array(KEPT), length: 0 }));
  #next = 0;
  size = 0;

  clear() {
    this.#next = 0;
    this.size = 0;
  }

  /** One of the packets: its beginning. */
  pick(random) {
    const { bytes, length } = this.#entries[random.below(this.size)];
    return bytes.subarray(0, length);
  }

  /** Keeps one message of each port of the view's last call. */
  note(view) {
    for (let port = 0; port < abi.MAX_PORTS; port++) {
      const count = view.core.messages.count(port);
      if (count > 0) this.#keep(view, port * abi.MESSAGES_PER_PORT + ((this.#next * 7) % count), port);
    }
  }

  #keep(view, message, port) {
    const { core, bytes, config } = view;
    const entry = this.#entries[this.#next % ENTRIES];
    let skip = core.messages.isWhole(message) ? abi.VIRTIO_SIZE : 0;
    let most = KEPT;
    entry.length = 0;
    if (config.isUdp) {
      const length = core.messages.segment(message);
      const gre = putUdp(entry.bytes, KERNELS, length, port);
      const fields = { source: config.local, destination: view.remote(message), protocol: UDP };
      putIpv4(entry.bytes, gre, KERNELS - gre + length, { ...fields, tos: core.messages.tos(message) });
      entry.length = KERNELS;
      most = Math.min(KERNELS + length, KEPT);
    }
    for (let i = 0, pieces = core.messages.pieces(message); i < pieces && entry.length < most; i++) {
      const start = view.pieceStart(message, i) + skip;
      const length = Math.min(view.pieceLength(message, i) - skip, most - entry.length);
      entry.bytes.set(bytes.subarray(start, start + length), entry.length);
      entry.length += length;
      skip = 0;
    }
    this.#next++;
    this.size = Math.min(this.size + 1, ENTRIES);
  }
}
