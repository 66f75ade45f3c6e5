/** Hands packets to the core as a VM's host does, and shows what it makes of them. */

import { DEFAULT_TTL } from '../../src/core/config.ts';
import { abi, type CoreConfig, dropReason, ipv4Text, type PacketCore, verdictName } from '../../src/core/index.ts';
import { sum, verifies } from '../../src/core/typescript/checksum.ts';
import { dropHint } from '../../src/dataplane/drop-hints.ts';
import { udpDatagram } from './make.ts';

interface Verdict {
  /** 0, or the drop reason as the core has it; undefined where the packet never comes to the core. */
  number: number | undefined;
  name: string;
  meaning: string;
  hint?: string;
}

export interface Outcome {
  verdict: Verdict;
  /** The remote VM, of a packet that is forwarded. */
  peer: number | undefined;
  /** What is to be written: to the underlay if encapsulated, else to the overlay device. */
  messages: Uint8Array<ArrayBuffer>[];
  /** Bytes at the beginning of each message that the kernel's UDP socket makes, not the core. */
  byKernel: number;
  /** ICMP messages to the container that sent the packet. */
  replies: Uint8Array<ArrayBuffer>[];
}

export type Way = 'encapsulate' | 'decapsulate';

/** "it is RECOMMENDED that the source port be in the ephemeral port range" (RFC 8086 §3.2.1): the daemon's first. */
const SOURCE_PORT = 49152;
const OUTER_LENGTH = 28;
const PROTOCOL_UDP = 17;

/** A VM: a core, as it was told. What it keeps of tunnels lasts until it is configured anew. */
export class Vm {
  readonly #core: PacketCore;
  readonly #config: CoreConfig;

  /** Takes the core as if it had just been made. */
  constructor(core: PacketCore, config: CoreConfig) {
    // All that a core knows is in its memory; packets in their slots mean nothing without a descriptor.
    core.bytes.fill(0, 0, abi.SLOTS);
    core.attach({});
    core.configure(config);
    this.#core = core;
    this.#config = config;
  }

  /** One packet at `now`, in ms: the container's, or the underlay's with its outer IPv4 header. */
  handle(way: Way, packet: Uint8Array, now: number): Outcome {
    if (packet.length > abi.SLOT_SIZE - abi.HEADROOM) throw new RangeError(`${packet.length} bytes do not fit a slot`);
    return way === 'encapsulate' ? this.#encapsulate(packet, now) : this.#decapsulate(packet, now);
  }

  #encapsulate(packet: Uint8Array, now: number): Outcome {
    const core = this.#core;
    core.put(0, packet);
    core.encapsulate(0, 1, now);
    if (this.#config.encapsulation !== 'gre-udp') return this.#outcome(0);
    // The kernel's socket puts UDP and IPv4 around what the core makes.
    const messages = core.messages.all().map((message) => {
      const outer = {
        source: this.#config.local,
        destination: core.messages.peer(message),
        tos: core.messages.tos(message) ?? 0,
        ttl: core.messages.ttl(message) ?? DEFAULT_TTL,
        dontFragment: true,
      };
      return udpDatagram(outer, [SOURCE_PORT, abi.GRE_UDP_PORT], core.messages.bytes(message));
    });
    return { ...this.#outcome(OUTER_LENGTH), messages };
  }

  #decapsulate(packet: Uint8Array, now: number): Outcome {
    const core = this.#core;
    const datagram = received(packet, this.#config.local);
    if (typeof datagram === 'string') return notDelivered(datagram);
    if (datagram) {
      core.bytes.set(datagram.bytes, core.slot(0));
      core.describeDatagrams(0, datagram.bytes.length, datagram.bytes.length, datagram.source, datagram.tos);
    } else {
      // Nobody says whether GRO merged it before it was captured: `merged` is 0 (docs/abi.md, Descriptors).
      core.put(0, packet);
    }
    core.decapsulate(0, 1, now);
    return this.#outcome(0);
  }

  #outcome(byKernel: number): Outcome {
    const core = this.#core;
    const number = core.verdict(0);
    return {
      verdict: explain(number),
      peer: number === abi.FORWARD ? core.peer(0) : undefined,
      messages: core.messages.all().map((message) => core.messages.bytes(message)),
      byKernel,
      replies: core.messages.replies().map((message) => core.messages.bytes(message)),
    };
  }
}

/** What a verdict means, in the words of the command line and the log. */
function explain(number: number): Verdict {
  if (number === abi.FORWARD) return { number, name: verdictName(number), meaning: 'the packet is forwarded' };
  const { name, meaning } = dropReason(number);
  const hint = dropHint(number);
  return { number, name, meaning, ...(hint !== undefined && { hint }) };
}

/** What becomes of a packet that the kernel does not hand on. */
function notDelivered(why: string): Outcome {
  const meaning = `inbound: the kernel does not hand it to Inlay's UDP socket: ${why}`;
  const verdict = { number: undefined, name: 'not-delivered', meaning };
  return { verdict, peer: undefined, messages: [], byKernel: 0, replies: [] };
}

interface Datagram {
  bytes: Uint8Array;
  source: number;
  tos: number;
}

/**
 * What the kernel hands to the UDP socket of `local`: the payload of a datagram to its port, or else why it does not.
 * Undefined for any other packet: the core sees it as it is.
 */
function received(packet: Uint8Array, local: number): Datagram | string | undefined {
  const view = new DataView(Uint8Array.from(packet).buffer);
  if (packet.length < OUTER_LENGTH || view.getUint8(0) >> 4 !== 4 || view.getUint8(9) !== PROTOCOL_UDP)
    return undefined;
  const header = (view.getUint8(0) & 15) * 4;
  const total = view.getUint16(2);
  if (header < 20 || total > packet.length || total < header + 8 || !verifies(view, 0, header)) return undefined;
  if (view.getUint16(header + 2) !== abi.GRE_UDP_PORT) return undefined;
  if ((view.getUint16(6) & 0x3fff) !== 0) return 'it is a fragment, and waits for the others';
  if (view.getUint32(16) !== local) return `it is for ${ipv4Text(view.getUint32(16))}`;
  const length = view.getUint16(header + 4);
  if (length < 8 || header + length > total) return 'its UDP length does not fit the packet';
  if (!hasRightChecksum(view, header, length)) return 'its UDP checksum is wrong';
  return { bytes: packet.subarray(header + 8, header + length), source: view.getUint32(12), tos: view.getUint8(1) };
}

/** The UDP checksum, over addresses, protocol and length, too (RFC 768); 0 means that there is none. */
function hasRightChecksum(view: DataView<ArrayBuffer>, header: number, length: number): boolean {
  if (view.getUint16(header + 6) === 0) return true;
  // Its own checksum included, all of it adds up to all ones (RFC 1071 §1).
  return (sum(view, 12, 8) + sum(view, header, length) + PROTOCOL_UDP + length) % 0xffff === 0;
}
