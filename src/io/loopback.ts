/** Two connected devices in memory: what is written to one is read from the other. For tests, simulations and benchmarks. */
import { BATCH_SIZE, FORWARD } from '../core/abi.ts';
import type { PacketCore } from '../core/core.ts';
import type { PacketDevice } from './device.ts';

/** Most packets that wait in one direction; more are refused, as a full socket buffer would. */
const QUEUE_LENGTH = 1024;

export class LoopbackDevice implements PacketDevice {
  /** Packets that wait to be read. */
  readonly queue: Uint8Array[] = [];
  #peer: LoopbackDevice | undefined;

  static pair(): [LoopbackDevice, LoopbackDevice] {
    const [a, b] = [new LoopbackDevice(), new LoopbackDevice()];
    a.#peer = b;
    b.#peer = a;
    return [a, b];
  }

  read(core: PacketCore): number {
    const packets = this.queue.splice(0, BATCH_SIZE);
    for (const [i, packet] of packets.entries()) core.put(i, packet);
    return packets.length;
  }

  write(core: PacketCore, count: number): number {
    let taken = 0;
    for (let i = 0; i < count; i++) {
      if (core.verdict(i) !== FORWARD) continue;
      if (this.send(core.packet(i))) taken++;
      else core.refuse(i);
    }
    return taken;
  }

  /** Hands a copy of one packet to the other end; false if that is full or closed. */
  send(packet: Uint8Array): boolean {
    if (!this.#peer || this.#peer.queue.length >= QUEUE_LENGTH) return false;
    this.#peer.queue.push(packet.slice());
    return true;
  }

  close(): void {
    this.#peer = undefined;
    this.queue.length = 0;
  }
}
