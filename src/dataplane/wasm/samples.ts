/** Examples of dropped packets, read from where they lie in the core's slots: a few a second, however many are dropped. */
import { FORWARD, VERDICTS, VIRTIO_SIZE } from '../../core/abi.ts';
import type { PacketCore } from '../../core/core.ts';
import type { Direction } from '../../core/counters.ts';
import type { DropSample } from '../drop-log.ts';

/** ms from one example of a reason to the next. */
export const SAMPLE_INTERVAL = 250;

const IPV4_HEADER = 20;
const GRE_HEADER = 4;
/** What else a GRE header has, 4 bytes each: checksum, key, sequence number (RFC 2784 §2.1, RFC 2890 §2). */
const GRE_OPTIONS = [0x80, 0x20, 0x10];
const GRE_IPV4 = 0x0800;
const PROTOCOL_GRE = 47;

const DIRECTIONS = { outbound: 0, inbound: 1, icmp: 2 } as const;

export class Samples {
  readonly #core: PacketCore;
  readonly #onDropped: (sample: DropSample) => void;
  /** By direction and reason: when there may be an example again, in ms, and how many packets had been dropped at the last. */
  readonly #next = new Float64Array(3 * VERDICTS);
  readonly #counted = new Float64Array(3 * VERDICTS);

  constructor(core: PacketCore, onDropped: (sample: DropSample) => void) {
    this.#core = core;
    this.#onDropped = onDropped;
  }

  /** Looks at descriptors `first` to `end` - 1 of the core's last call, some of which were dropped. `now` is in ms. */
  look(direction: Direction, first: number, end: number, now: number): void {
    const core = this.#core;
    for (let i = first; i < end; i++) {
      const verdict = core.verdict(i);
      if (verdict >= FORWARD) continue;
      const kind = DIRECTIONS[direction] * VERDICTS - verdict;
      if (now < (this.#next[kind] as number)) continue;
      this.#next[kind] = now + SAMPLE_INTERVAL;
      const counted = core.dropsFor(direction, verdict);
      const packets = counted - (this.#counted[kind] as number);
      this.#counted[kind] = counted;
      this.#onDropped({ direction, verdict, packets, ...this.#facts(direction, i) });
    }
  }

  #facts(direction: Direction, i: number): object {
    const core = this.#core;
    const packet = core.packet(i);
    if (direction === 'outbound') return innerFacts(core.hasVirtio ? packet.subarray(VIRTIO_SIZE) : packet);
    if (core.isDatagrams(i)) return { outerSource: core.peer(i), ...behindGre(packet) };
    return outerFacts(packet);
  }
}

type Facts = Omit<DropSample, 'direction' | 'verdict' | 'packets' | 'refusal'>;

/** What can be read of a container's packet, of which these bytes are there or more. */
export function innerFacts(packet: Uint8Array): Facts {
  if (!isIpv4(packet)) return {};
  return {
    innerSource: word(packet, 12),
    innerDestination: word(packet, 16),
    protocol: packet[9] as number,
    length: half(packet, 2),
  };
}

function outerFacts(packet: Uint8Array): Facts {
  if (!isIpv4(packet)) return {};
  const header = ((packet[0] as number) & 15) * 4;
  const inner = packet[9] === PROTOCOL_GRE ? behindGre(packet.subarray(header)) : {};
  return { outerSource: word(packet, 12), outerDestination: word(packet, 16), ...inner };
}

/** What can be read of the packet behind a GRE header. */
function behindGre(gre: Uint8Array): Facts {
  if (gre.length < GRE_HEADER || half(gre, 2) !== GRE_IPV4) return {};
  const options = GRE_OPTIONS.filter((bit) => ((gre[0] as number) & bit) !== 0).length;
  return innerFacts(gre.subarray(GRE_HEADER + 4 * options));
}

function isIpv4(packet: Uint8Array): boolean {
  return packet.length >= IPV4_HEADER && (packet[0] as number) >> 4 === 4;
}

function half(bytes: Uint8Array, at: number): number {
  return ((bytes[at] as number) << 8) | (bytes[at + 1] as number);
}

function word(bytes: Uint8Array, at: number): number {
  return ((half(bytes, at) << 16) | half(bytes, at + 2)) >>> 0;
}
