/** Messages that a device did not take: they are counted by what the kernel said, and where there is no way to a VM, the core is told. */
import { DROP_NOT_WRITTEN, UNREACHABLE_LIFETIME } from '../../core/abi.ts';
import type { PacketCore } from '../../core/core.ts';
import type { Refused } from '../dataplane.ts';
import type { DeviceName, DropSample } from '../drop-log.ts';
import { refusalCause } from '../refusal-causes.ts';
import { innerFacts, SAMPLE_INTERVAL } from './samples.ts';

/** VMs without a way that are kept in mind: where there are more, the core forgets about the others after a while. */
const MAX_CUT_OFF = 4096;

/** What is known about a message that is sent after the core has gone on: one packet, whose bytes are `packet`. */
export interface SentPacket {
  /** As in `PacketCore.peer`. */
  peer: number;
  packet: Uint8Array;
}

export class Refusals {
  readonly counts: Refused = { underlay: {}, overlay: {} };
  readonly #core: PacketCore;
  readonly #onDropped: (sample: DropSample) => void;
  /** When, in ms, there was no way to these VMs; nothing was sent to them since. The oldest come first. */
  readonly #cutOff = new Map<number, number>();
  /** By device and error number: when there may be an example again, in ms, and packets since the last. */
  readonly #kinds = new Map<string, { next: number; waiting: number }>();

  constructor(core: PacketCore, onDropped: (sample: DropSample) => void) {
    this.#core = core;
    this.#onDropped = onDropped;
  }

  /** A message of the core's last call was not taken. */
  refuse(message: number, device: DeviceName, errno: string): void {
    const core = this.#core;
    const { packets } = core.messages.content(message);
    if (packets === 0) return; // A reply: nothing is counted.
    const now = performance.now();
    const peer = core.messages.peer(message);
    const place = core.messages.packet(message);
    const code = device === 'underlay' ? refusalCause(device, errno).code : undefined;
    const counts = this.counts[device];
    counts[errno] = (counts[errno] ?? 0) + packets;
    if (code !== undefined) this.#cut(peer, now);
    core.refuse(message, code, now);
    const sofar = this.#dueExample(`${device} ${errno}`, packets, now);
    if (sofar === 0) return;
    const refused = { verdict: DROP_NOT_WRITTEN, packets: sofar, refusal: { errno, device } };
    if (place === 0) this.#onDropped({ direction: 'inbound', ...refused });
    else {
      const addresses = { outerDestination: peer, ...innerFacts(core.bytes.subarray(place)) };
      this.#onDropped({ direction: 'outbound', ...refused, ...addresses });
    }
  }

  /** A packet that a socket had taken could not be sent. As after a call of the core, there may be replies to write then. */
  refuseSent({ peer, packet }: SentPacket, errno: string): void {
    this.#core.messages.recall(peer, packet);
    this.refuse(0, 'underlay', errno);
  }

  /** Messages `first` to `end` - 1 were sent: their VMs can be reached. */
  sent(first: number, end: number): void {
    if (!this.#isAnyCutOff()) return;
    for (let message = first; message < end; message++) this.#reach(this.#core.messages.peer(message));
  }

  /** Something was sent to this VM. */
  reached(peer: number): void {
    if (this.#isAnyCutOff()) this.#reach(peer);
  }

  #reach(peer: number): void {
    if (this.#cutOff.delete(peer)) this.#core.reach(peer, performance.now());
  }

  #cut(peer: number, now: number): void {
    if (this.#cutOff.size >= MAX_CUT_OFF) this.#cutOff.clear();
    this.#cutOff.delete(peer);
    this.#cutOff.set(peer, now);
  }

  /** Whether there is a VM that the core still takes for unreachable; forgets about the others. */
  #isAnyCutOff(): boolean {
    if (this.#cutOff.size === 0) return false;
    const now = performance.now();
    for (const [peer, since] of this.#cutOff) {
      if (now - since < UNREACHABLE_LIFETIME * 1000) return true;
      this.#cutOff.delete(peer);
    }
    return false;
  }

  /** All packets of a kind since its last example, if it is time for another; else 0. */
  #dueExample(kind: string, packets: number, now: number): number {
    const { next, waiting } = this.#kinds.get(kind) ?? { next: now, waiting: 0 };
    const isDue = now >= next;
    this.#kinds.set(kind, isDue ? { next: now + SAMPLE_INTERVAL, waiting: 0 } : { next, waiting: waiting + packets });
    return isDue ? waiting + packets : 0;
  }
}
