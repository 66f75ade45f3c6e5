/** What may become of a frame, as the core and the kernel around it would have it. */
import { abi } from 'inlay/core';
import { u16, u32 } from '../fuzz/bytes.mjs';
import { bytesDifference, datagramIn, forwarded, udpDifference } from './kernel-oracle.mjs';
import { macOf, mtuOf, peerMacOf } from './namespace.mjs';

const ETHERNET = 14;
const IPV4_TYPE = 0x0800;
const [TCP, UDP, GRE] = [6, 17, 47];
const SYN = 2;
const CE = 3;
/** A VM that sends one understands the other, too. */
export const FORMATS = ['gre', 'gre-udp'];
/** Why a frame may not be taken. */
const no = (why) => ({ may: false, why });

/**
 * An answer has `may` and `must`: whether the frame may be taken, and has to be. Then there are `difference`, which compares
 * what it has become; `kind` and `content`, as what it is counted; and `renews`: it goes its ordinary way, and is noted.
 * `isForwarded`: the core would have forwarded it, so that something may be noted of its VM.
 */
export class Expectation {
  settings = { enabled: true, limit: 0 };
  /** Whether there is a daemon that packets may go to now and then. */
  hasDaemon = true;
  /** The links of containers by address. */
  links = new Map();
  /** Source ports by flow, of GRE-in-UDP. */
  #ports = new Map();
  #config;
  #oracle;
  #placeOf;

  /** `placeOf` tells where the record of a VM is, undefined if there is none. */
  constructor(config, oracle, placeOf) {
    this.#config = config;
    this.#oracle = oracle;
    this.#placeOf = placeOf;
  }

  /** What may become of a container's frame. */
  outbound(frame, ifindex, record = {}, gsoSize = 0) {
    const why = this.#whyNotRead(frame, ifindex);
    if (why) return no(why);
    const packet = frame.slice(ETHERNET);
    if (packet[8] <= 1) return no('time to live');
    const [source, destination] = [u32(packet, 12), u32(packet, 16)];
    if (this.links.get(source) !== ifindex) return no('not this container');
    const routed = forwarded(packet);
    const { limit, enabled } = this.settings;
    const vm = this.#oracle.vmOf(destination);
    const known = { heard: 1, outbound: 1, limit: 0, ...record };
    const most = known.limit === 0 ? limit : Math.min(limit, known.limit);
    const sent = this.#oracle.outbound(routed, most, gsoSize);
    const isPlain = packet[0] === 0x45 && (u16(packet, 6) & 0xbfff) === 0 && packet.length === u16(packet, 2);
    if (sent.verdict === abi.DROP_OWN_SLICE) return this.#local(packet, routed, gsoSize, isPlain, enabled);
    const place = this.#placeOf(vm);
    if (sent.verdict !== abi.FORWARD) return no(`verdict ${sent.verdict}`);
    if (sent.messages !== 1) {
      // The kernel cuts as the core does; here it has no super-packets that could be sent.
      const isSuper = gsoSize !== 0 && packet[9] === TCP && headersOf(packet) + gsoSize <= most;
      return { ...no('cut'), isForwarded: isSuper && enabled && known.heard !== 0 };
    }
    const isOpening = this.#config.clampMss && packet[9] === TCP && u16(packet, 2) >= 40 && (packet[33] & SYN) !== 0;
    const isMuch = isPlain && !isOpening && gsoSize === 0 && place !== undefined;
    const isReady = enabled && known.heard !== 0;
    const isFresh = known.outbound !== 0 || !this.hasDaemon;
    return {
      may: isReady && isFresh && place !== undefined,
      must: isReady && isFresh && isMuch,
      renews: isReady && !isFresh && isMuch,
      isForwarded: isReady,
      why: isReady ? undefined : 'off or unheard',
      ...{ kind: 'outbound', content: sent.content },
      difference: (got) => this.#sentDifference(got, sent, vm, packet),
    };
  }

  /** Straight to another container of this VM. */
  #local(packet, routed, gsoSize, isPlain, enabled) {
    const link = this.links.get(u32(packet, 16));
    if (link === undefined) return no('no such container');
    const total = u16(packet, 2);
    const fits = (gsoSize === 0 ? total : Math.min(total, headersOf(packet) + gsoSize)) <= mtuOf(link);
    if (!fits) return no('longer than the link takes');
    const segments = gsoSize === 0 ? 1 : Math.ceil((total - headersOf(packet)) / gsoSize);
    const bytes = total + (segments - 1) * headersOf(packet);
    const isToItself = link === this.links.get(u32(packet, 12));
    return {
      may: enabled,
      must: enabled && isPlain && gsoSize === 0 && packet[9] !== GRE && !isToItself,
      kind: 'local',
      content: { packets: segments, bytes },
      difference: (got) => bytesDifference(got, delivered(link, routed)),
    };
  }

  #sentDifference(got, sent, vm, packet) {
    if (sent.vm !== vm) return `the core sends to ${sent.vm}`;
    if (u16(got, 12) !== IPV4_TYPE) return `Ethernet type ${u16(got, 12)}`;
    const outer = got.subarray(ETHERNET);
    const { local, encapsulation, ttl } = this.#config;
    if (encapsulation === 'gre') {
      // The kernel forwards a super-packet once more, which takes one off.
      return bytesDifference(outer, sent.isWhole ? forwarded(sent.bytes) : sent.bytes);
    }
    const configured = typeof ttl === 'number' ? ttl : 64;
    const fields = { source: local, destination: vm, tos: sent.tos ?? 0, ttl: sent.ttl ?? configured };
    return udpDifference(outer, sent.bytes, fields) ?? this.#portDifference(u16(outer, 20), packet);
  }

  /** A flow keeps its source port, fragments too. */
  #portDifference(port, packet) {
    const hasPorts = [TCP, UDP].includes(packet[9]) && packet[0] === 0x45 && (u16(packet, 6) & 0x3fff) === 0;
    const flow = Buffer.from([...packet.subarray(12, hasPorts ? 24 : 20), packet[9]]).toString('hex');
    const before = this.#ports.get(flow) ?? port;
    this.#ports.set(flow, before);
    return port === before ? null : `source port ${port} of a flow that had ${before}`;
  }

  /** What may become of a frame of the underlay. */
  inbound(frame, ifindex, record = {}, gsoSize = 0) {
    const why = this.#whyNotRead(frame, ifindex);
    if (why) return no(why);
    const { local, key, receives = FORMATS } = this.#config;
    const outer = frame.slice(ETHERNET);
    const datagram = datagramIn(outer, local);
    // Whether a checksum is right only the card has looked: it is enough to be heard.
    if (datagram?.isWrong) return { ...no('UDP checksum'), isForwarded: true };
    const from = datagram
      ? this.#oracle.datagram(datagram.payload, datagram.vm, datagram.tos)
      : this.#oracle.inbound(outer);
    const place = this.#placeOf(u32(outer, 12));
    if (from.verdict !== abi.FORWARD) return no(`verdict ${from.verdict}`);
    const inner = from.bytes;
    const { enabled } = this.settings;
    const forward = { isForwarded: true };
    if (inner[8] <= 1) return { ...no('time to live'), ...forward };
    if (from.isAnomaly) return { ...no('anomaly'), ...forward };
    const link = this.links.get(u32(inner, 16));
    if (link === undefined) return { ...no('no such container'), ...forward };
    if (inner.length > mtuOf(link) && gsoSize === 0) return { ...no('longer than the link takes'), ...forward };
    const header = datagram ? 28 : (outer[0] & 15) * 4;
    const gre = header + (key === undefined ? 4 : 8);
    const isExact =
      frame.length === ETHERNET + gre + inner.length &&
      outer[0] === 0x45 &&
      (datagram?.isPlain ?? true) &&
      [0, 0x20].includes(outer[header]) &&
      outer[header + 1] === 0;
    const isOpening = this.#config.clampMss && inner[9] === TCP && inner.length >= 40 && (inner[33] & SYN) !== 0;
    // As it came, or with a congestion mark.
    const sent = outer[gre + 1];
    const isMarked = inner[1] === sent || (inner[1] === (sent | CE) && (sent & CE) !== 0);
    const isPlain =
      isExact && isMarked && inner[0] === 0x45 && (u16(inner, 6) & 0xbfff) === 0 && !isOpening && gsoSize === 0;
    const isMuch = isPlain && place !== undefined && receives.includes(datagram ? 'gre-udp' : 'gre');
    const isFresh = record.inbound !== 0 || !this.hasDaemon;
    return {
      may: enabled && isFresh && place !== undefined,
      must: enabled && isFresh && isMuch && record.heard !== 0,
      renews: enabled && !isFresh && isMuch,
      ...{ ...forward, kind: datagram ? 'datagram' : 'inbound', content: from.content },
      difference: (got) => bytesDifference(got, delivered(link, forwarded(inner))),
    };
  }

  /** Why nobody on this machine reads the frame as a packet that is for it. */
  #whyNotRead(frame, ifindex) {
    if (!this.settings.enabled) return 'off';
    if (u16(frame, 12) !== IPV4_TYPE) return 'not IPv4';
    return macOf(ifindex).some((byte, i) => frame[i] !== byte) ? 'for another host' : undefined;
  }
}

/** The frame to a container. */
const delivered = (link, packet) => Uint8Array.from([...peerMacOf(link), ...macOf(link), 8, 0, ...packet]);

/** Bytes in the headers of a TCP or UDP packet. */
function headersOf(packet) {
  const header = (packet[0] & 15) * 4;
  return header + (packet[9] === TCP ? (packet[header + 12] >> 4) * 4 : 8);
}
