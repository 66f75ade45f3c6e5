/** Two connected devices in memory: what is written to one is read from the other. For tests, simulations and benchmarks. */
import { BATCH_SIZE } from '../../core/abi.ts';
import type { PacketCore } from '../../core/core.ts';
import type { PacketDevice } from './device.ts';

/** Most messages that wait in one direction; more are refused, as a full socket buffer would. */
const QUEUE_LENGTH = 1024;

interface Waiting {
  bytes: Uint8Array;
  /** Of GRE-in-UDP: bytes of each datagram, and who sent it. */
  datagrams?: { segment: number; peer: number };
}

export class LoopbackDevice implements PacketDevice {
  /** Messages that wait to be read. */
  readonly queue: Waiting[] = [];
  readonly #address: number | undefined;
  #peer: LoopbackDevice | undefined;
  more = false;

  /** With addresses what is written are datagrams of GRE-in-UDP, else whole packets. */
  static pair(addresses: readonly number[] = []): [LoopbackDevice, LoopbackDevice] {
    const [a, b] = [new LoopbackDevice(addresses[0]), new LoopbackDevice(addresses[1])];
    a.#peer = b;
    b.#peer = a;
    return [a, b];
  }

  private constructor(address: number | undefined) {
    this.#address = address;
  }

  read(core: PacketCore): number {
    const waiting = this.queue.splice(0, BATCH_SIZE);
    for (const [i, { bytes, datagrams }] of waiting.entries()) {
      core.put(i, bytes);
      if (datagrams) core.describeDatagrams(i, bytes.length, datagrams.segment, datagrams.peer);
    }
    this.more = this.queue.length > 0;
    return waiting.length;
  }

  write(core: PacketCore, first: number, end: number): void {
    for (let message = first; message < end; message++) {
      const bytes = core.messages.bytes(message);
      const datagrams =
        this.#address === undefined
          ? {}
          : { datagrams: { segment: core.messages.segment(message), peer: this.#address } };
      if (!this.#take({ bytes, ...datagrams })) core.refuse(message);
    }
  }

  /** Hands a copy of one packet to the other end; false if that is full. */
  send(packet: Uint8Array): boolean {
    return this.#take({ bytes: packet.slice() });
  }

  #take(waiting: Waiting): boolean {
    if (!this.#peer || this.#peer.queue.length >= QUEUE_LENGTH) return false;
    this.#peer.queue.push(waiting);
    return true;
  }
}
