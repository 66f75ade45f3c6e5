/**
 * Room in a socket's send buffer for the VMs that answer. Packets to a VM that is not there wait in the queue of its neighbour entry, each up to
 * net.ipv4.neigh.*.unres_qlen_bytes, until nobody has answered ARP for seconds (__neigh_event_send, net/core/neighbour.c). As long as they do, they count as
 * the socket's (sk_wmem_alloc, sock_wfree): a few hundred such VMs fill the buffer, and then the socket takes nothing for anybody.
 */
import * as native from '../../../linux/native.ts';

/** The part of the buffer that may be taken while packets go to VMs never heard from. */
const PART = 1 / 4;
/** The part that they take until it is looked at again, even if it is not time for it. */
const STEP = 1 / 16;
/** ms from one look to the next */
const INTERVAL = 5;

export class SendRoom {
  readonly #fd: number;
  readonly #size: number;
  readonly #word = new Int32Array(1);
  readonly #bytes = new Uint8Array(this.#word.buffer);
  #nextLook = 0;
  /** Bytes since the last look. */
  #since = 0;
  #isTaken = false;

  constructor(fd: number) {
    this.#fd = fd;
    native.must(
      native.getsockopt(fd, native.SOL_SOCKET, native.SO_SNDBUF, this.#bytes, native.int(4)),
      'getsockopt',
      'SO_SNDBUF',
    );
    this.#size = this.#word[0] as number;
  }

  /** Whether messages to VMs never heard from, of about so many bytes, may be sent. `now` is in ms. */
  has(bytes: number, now: number): boolean {
    if (now >= this.#nextLook || this.#since > this.#size * STEP) {
      this.#nextLook = now + INTERVAL;
      this.#since = 0;
      // What is sent and not yet gone (raw_ioctl, net/ipv4/raw.c; udp_ioctl, net/ipv4/udp.c).
      const isKnown = native.ioctl(this.#fd, native.SIOCOUTQ, this.#bytes) === 0;
      this.#isTaken = isKnown && (this.#word[0] as number) > this.#size * PART;
    }
    if (!this.#isTaken) this.#since += bytes;
    return !this.#isTaken;
  }
}
