/** Captures: their packets go through a core one after the other, with pauses in which a page answers whoever uses it. */
import type { CoreConfig, PacketCore } from '../../src/core/index.ts';
import type { Captured } from './pcap.ts';
import { type Outcome, Vm, type Way } from './run.ts';

/** A few milliseconds of work: so many packets, */
const MOST_PACKETS = 256;
/** or so many bytes, of which the core may make fragments and copies. */
const MOST_BYTES = 128 << 10;

export class Replay {
  readonly #core: PacketCore;
  #run = 0;

  /** Takes the core for itself: between two packets of a capture nothing else may happen to it. */
  constructor(core: PacketCore) {
    this.#core = core;
  }

  /**
   * Hands the packets to a new VM, at their time stamps, and what becomes of each to `take`. False if it was stopped
   * before the end; another run stops it.
   */
  async run(
    config: CoreConfig,
    way: Way,
    packets: readonly Captured[],
    take: (outcome: Outcome, packet: Captured, i: number) => void,
  ): Promise<boolean> {
    this.stop();
    const run = this.#run;
    const vm = new Vm(this.#core, config);
    for (const { first, slice } of slicesOf(packets)) {
      if (first > 0) await pause();
      if (run !== this.#run) return false;
      for (const [i, packet] of slice.entries()) {
        const now = packet.seconds * 1000 + packet.microseconds / 1000;
        take(vm.handle(way, packet.bytes, now), packet, first + i);
      }
    }
    return true;
  }

  stop(): void {
    this.#run++;
  }
}

/** The packets in slices, each in order and with the number that its first packet has. */
export function* slicesOf(packets: readonly Captured[]): Generator<{ first: number; slice: readonly Captured[] }> {
  let first = 0;
  let bytes = 0;
  for (const [i, packet] of packets.entries()) {
    bytes += packet.bytes.length;
    const end = i + 1;
    if (end - first < MOST_PACKETS && bytes < MOST_BYTES && end < packets.length) continue;
    yield { first, slice: packets.slice(first, end) };
    first = end;
    bytes = 0;
  }
}

/** Lets whatever waits happen first. A timer would wait for a second where the page is in a tab behind. */
function pause(): Promise<void> {
  return new Promise((resolve) => {
    const { port1, port2 } = new MessageChannel();
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(undefined);
  });
}
