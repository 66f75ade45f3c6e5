/** Frames on the edge of what the fast path takes, made by hand: each says whether it has to be taken, or has to pass. */
import { type CoreConfig, overhead } from '../../src/core/index.ts';
import * as wire from '../packet.ts';
import { lastIndex, mappingOf, overlayOf } from './configs.ts';
import { greAround } from './core-oracle.mjs';
import { GRE_UDP_PORT } from './kernel-oracle.mjs';
import { LINKS, macOf, STRANGER, UPLINK } from './namespace.mjs';

export interface Known {
  heard?: number;
  outbound?: number;
  inbound?: number;
  limit?: number;
}

export interface Edge {
  name: string;
  direction: 'outbound' | 'inbound';
  frame: Uint8Array;
  /** True: has to be taken. False: has to pass. Undefined: as the twin says. */
  must?: boolean | undefined;
  record?: Known;
  ifindex?: number;
  gsoSize?: number;
}

const [ICMP, TCP, UDP, GRE, SCTP] = [1, 6, 17, 47, 132] as const;
const FROM = [2, 0, 0, 0, 9, 9];

export const framed = (packet: ArrayLike<number>, to: readonly number[], type = 0x0800) =>
  Uint8Array.from([...to, ...FROM, type >> 8, type & 255, ...Array.from(packet)]);

const toHost = (packet: ArrayLike<number>, link = LINKS[0] as number) => framed(packet, macOf(link));
const toUplink = (packet: ArrayLike<number>) => framed(packet, macOf(UPLINK));

const view = (packet: Uint8Array) => new DataView(packet.buffer, packet.byteOffset);

/** A copy with other bytes, its IPv4 header checksum right unless told otherwise. */
function changed(packet: Uint8Array, bytes: Record<number, number>, fix = true): Uint8Array {
  const copy = packet.slice();
  for (const [at, value] of Object.entries(bytes)) copy[Number(at)] = value;
  if (!fix) return copy;
  view(copy).setUint16(10, 0);
  view(copy).setUint16(10, ~wire.sum(copy.subarray(0, Math.min(((copy[0] as number) & 15) * 4, copy.length))) & 0xffff);
  return copy;
}

const payload = (length: number) => ({ payload: wire.payloadOf(length) });

/** The addresses that edges are about: containers here and there, and the VM there. */
export function placesOf(config: CoreConfig) {
  const which = mappingOf(config, config.local);
  const there = config.local + 1;
  return {
    which,
    there,
    here: (index: number) => overlayOf(config, config.local, index, which),
    remote: (index: number) => overlayOf(config, there, index, which),
    last: lastIndex(config, which),
  };
}

/** A plain packet out. */
const out = (config: CoreConfig, parts: wire.Parts = {}) => {
  const { here, remote } = placesOf(config);
  return wire.packetOf({ source: here(2), destination: remote(2), protocol: UDP, ...parts });
};

/** A plain packet in. */
const back = (config: CoreConfig, parts: wire.Parts = {}) => {
  const { here, remote } = placesOf(config);
  return wire.packetOf({ source: remote(2), destination: here(2), protocol: UDP, ...parts });
};

/** As the other VM sends it, in the configuration's encapsulation. */
export function underlay(config: CoreConfig, inner: Uint8Array, parts: Partial<wire.Outer> = {}): Uint8Array {
  const { there } = placesOf(config);
  const { local, key, encapsulation } = config;
  const around = { source: there, destination: local, ...parts };
  if (encapsulation !== 'gre-udp') {
    return wire.ipv4Around(around, [...wire.greHeader({ key }, inner), ...inner]);
  }
  const gre = [...wire.greHeader({ key }, inner), ...inner];
  const length = 8 + gre.length;
  const udp = [0xc0, 0x01, GRE_UDP_PORT >> 8, GRE_UDP_PORT & 255, length >> 8, length & 255, 0, 0];
  return wire.ipv4Around({ protocol: UDP, ...around }, [...udp, ...gre]);
}

export function outboundEdges(config: CoreConfig): Edge[] {
  const { here, remote, last, there, which } = placesOf(config);
  const limit = config.mtu ?? 1500 - overhead(config.encapsulation ?? 'gre', config);
  const edges: Edge[] = [];
  const add = (name: string, packet: ArrayLike<number>, must?: boolean, more: Partial<Edge> = {}) =>
    edges.push({ name, direction: 'outbound', frame: toHost(packet), must, ifindex: LINKS[0] as number, ...more });
  const plain = out(config);

  for (const protocol of [TCP, UDP] as const) add(`protocol ${protocol}`, out(config, { protocol }), true);
  for (const protocol of [0, ICMP, 4, SCTP, 255]) add(`protocol ${protocol}`, changed(plain, { 9: protocol }), true);
  add('nested GRE', changed(plain, { 9: GRE }), false);
  for (const length of [0, 1, 2, 3, 101]) add(`payload of ${length} bytes`, out(config, payload(length)), true);
  for (const id of [0, 1, 0xffff]) add(`identification ${id}`, out(config, { id }), true);
  for (const ttl of [0, 1]) add(`TTL ${ttl}`, out(config, { ttl }), false);
  for (const ttl of [2, 3, 128, 255]) add(`TTL ${ttl}`, out(config, { ttl }), true);
  for (const ecn of [0, 1, 2, 3])
    for (const dscp of [0, 10, 46, 63]) add(`DSCP ${dscp}, ECN ${ecn}`, out(config, { tos: (dscp << 2) | ecn }), true);

  // The header.
  for (const first of [0x44, 0x40, 0x41, 0x55, 0x05, 0x65])
    add(`first byte ${first}`, changed(plain, { 0: first }), false);
  add('options', out(config, { ipOptions: [1, 1, 1, 1] }), false);
  add('as many options as there can be', out(config, { ipOptions: Array(40).fill(1) }), false);
  const checksum = view(plain).getUint16(10);
  for (const wrong of [0, 1, checksum ^ 1, checksum ^ 0x8000, ~checksum & 0xffff, (checksum + 1) & 0xffff])
    add(`checksum ${wrong}`, changed(plain, { 10: wrong >> 8, 11: wrong & 255 }, false), false);
  // The identification such that the checksum comes out as zero, which has two forms, or as what becomes zero when the TTL is taken down.
  for (const target of [0x0000, 0xffff, 0xfeff, 0xfefe, 0xff00, 0x00ff]) {
    const zero = changed(plain, { 4: 0, 5: 0 });
    const id = wire.sum(Uint8Array.of(...word(view(zero).getUint16(10)), ...word(~target & 0xffff)));
    const packet = changed(zero, { 4: id >> 8, 5: id & 255 });
    add(`checksum as it comes to ${target}`, packet, true);
    add(`checksum ${target} put`, changed(packet, { 10: target >> 8, 11: target & 255 }, false));
  }
  for (const [name, flags] of [
    ['reserved flag', 0x8000],
    ['no flag', 0],
  ] as const)
    add(name, out(config, { fragment: flags }), flags === 0 ? true : undefined);
  for (const flags of [0x2000, 0x2001, 0x0001, 0x1fff, 0x6000])
    add(`fragment ${flags}`, out(config, { fragment: flags }));

  // Lengths.
  for (const more of [1, 2, 20]) add(`${more} bytes behind`, [...plain, ...Array(more).fill(0)], false);
  for (let length = 20; length < plain.length; length++)
    add(`the first ${length} bytes`, plain.subarray(0, length), false);
  for (const total of [0, 19, 20, 21, plain.length - 1, plain.length + 1, 0xffff])
    add(`total length ${total}`, changed(plain, { 2: total >> 8, 3: total & 255 }), false);
  for (const fragment of [0, 0x4000]) {
    const of = (length: number) => out(config, { fragment, ...payload(length - 28) });
    add(`the limit, flags ${fragment}`, of(limit), true);
    add(`one byte more, flags ${fragment}`, of(limit + 1), false);
    add(`a VM's own limit, flags ${fragment}`, of(400), true, { record: { limit: 400 } });
    add(`one byte more than that, flags ${fragment}`, of(401), false, { record: { limit: 400 } });
    add(`the limit where the VM's is larger, flags ${fragment}`, of(limit), true, { record: { limit: 9000 } });
    add(`more where the VM's is larger, flags ${fragment}`, of(limit + 1), false, { record: { limit: 9000 } });
  }
  add('a fragment that is too long', out(config, { fragment: 0x2000, ...payload(limit) }), false);
  for (const gsoSize of [1, 128, 500, 1400]) {
    add(`a super-packet, ${gsoSize}`, out(config, { protocol: TCP, ...payload(3000) }), undefined, { gsoSize });
    add(`a super-packet of UDP, ${gsoSize}`, out(config, payload(3000)), undefined, { gsoSize });
  }

  // Ethernet.
  add('a frame for another host', [], false, { frame: framed(plain, [2, 0, 0, 0, 7, 7]) });
  add('a broadcast frame', [], false, { frame: framed(plain, Array(6).fill(255)) });
  add('a multicast frame', [], false, { frame: framed(plain, [1, 0, 0x5e, 0, 0, 1]) });
  for (const type of [0x86dd, 0x0806, 0x8100, 0x0801])
    add(`Ethernet type ${type}`, [], false, { frame: framed(plain, macOf(LINKS[0] as number), type) });

  // Sources.
  add('by the link of another container', plain, false, {
    ifindex: LINKS[1] as number,
    frame: toHost(plain, LINKS[1]),
  });
  add('by a link without a container', plain, false, { ifindex: STRANGER, frame: toHost(plain, STRANGER) });
  add('by the uplink', plain, false, { ifindex: UPLINK, frame: toUplink(plain) });
  const sources = {
    neighbour: here(3),
    'the slice': here(0),
    'the VM': here(1),
    nobody: here(last),
    'another VM': remote(2),
    'this VM itself': config.local,
    loopback: 0x7f000001,
    'no overlay': 0x08080808,
    zero: 0,
    multicast: 0xe0000001,
    broadcast: 0xffffffff,
  };
  for (const [name, source] of Object.entries(sources))
    if (source !== here(2)) add(`source: ${name}`, out(config, { source }), false);

  // Destinations.
  const destinations = {
    'the slice': remote(0),
    nobody: remote(last),
    'the slice here': here(0),
    'this VM': here(1),
    'nobody here': here(last),
    'the VM here': config.local,
    'no overlay': 0x08080808,
    loopback: 0x7f000001,
    zero: 0,
    multicast: 0xe0000001,
    broadcast: 0xffffffff,
  };
  for (const [name, destination] of Object.entries(destinations))
    add(`destination: ${name}`, out(config, { destination }), false);
  add('to the other VM', out(config, { destination: remote(1) }), true);
  for (const [i, of] of config.mappings.entries()) {
    const vms = 2 ** (32 - of.underlayLength);
    for (const [name, vm] of Object.entries({
      first: 0,
      second: 1,
      third: 2,
      'last but two': vms - 3,
      'last but one': vms - 2,
      last: vms - 1,
    }))
      for (const index of [0, 1, 2, lastIndex(config, i)])
        add(
          `mapping ${i}: index ${index} of the ${name} VM`,
          out(config, { destination: overlayOf(config, of.underlay + vm, index, i) }),
        );
    for (const offset of [-1, 2 ** (32 - of.overlayLength)])
      add(`mapping ${i}: beside it`, out(config, { destination: (of.overlay + offset) >>> 0 }), false);
  }

  // What is known of the VM.
  add('unheard', plain, false, { record: { heard: 0 } });
  add('not fresh', plain, false, { record: { outbound: 0 } });
  add('not fresh inbound', plain, true, { record: { inbound: 0 } });
  add('unheard and not fresh', plain, false, { record: { heard: 0, outbound: 0 } });
  add('spoofed and not fresh', out(config, { source: here(1) }), false, { record: { outbound: 0 } });
  void there;

  // Across.
  if (last > 5) {
    for (const index of [3, 4]) add(`across to ${index}`, out(config, { destination: here(index) }), true);
    add('across to where nobody is', out(config, { destination: here(5 + LINKS.length) }), false);
    add('across, TTL 1', out(config, { destination: here(3), ttl: 1 }), false);
    add('across, options', out(config, { destination: here(3), ipOptions: [1, 1, 1, 1] }), false);
    add('across, nested GRE', changed(out(config, { destination: here(3) }), { 9: GRE }));
    add('across to itself', out(config, { destination: here(2) }));
    const narrow = 1 + LINKS.length;
    if (narrow < last) {
      for (const fragment of [0, 0x4000]) {
        const of = (length: number) => out(config, { destination: here(narrow), fragment, ...payload(length - 28) });
        add(`across as long as the link takes, flags ${fragment}`, of(68), true);
        add(`across, a byte more, flags ${fragment}`, of(69), false);
      }
    }
    add("across, a neighbour's source", out(config, { source: here(4), destination: here(3) }), false);
    add('across, a super-packet', out(config, { protocol: TCP, destination: here(3), ...payload(3000) }), undefined, {
      gsoSize: 1400,
    });
    add(
      'across, a super-packet that is too long',
      out(config, { protocol: TCP, destination: here(3), ...payload(3000) }),
      undefined,
      { gsoSize: 1461 },
    );
    add('across, longer than the link takes', out(config, { destination: here(3), ...payload(1473) }), false);
    add('across, as long as the link takes', out(config, { destination: here(3), ...payload(1472) }), true);
  }
  // SYN, which may be clamped.
  for (const size of [0, 536, 1400, 1436, 1460])
    add(
      `SYN, ${size}`,
      out(config, { protocol: TCP, flags: wire.SYN, tcpOptions: [2, 4, size >> 8, size & 255], ...payload(0) }),
      config.clampMss ? undefined : true,
    );
  add(
    'SYN without a size',
    out(config, { protocol: TCP, flags: wire.SYN, ...payload(0) }),
    config.clampMss ? undefined : true,
  );
  void which;
  return edges;
}

export function inboundEdges(config: CoreConfig): Edge[] {
  const { here, remote, last, there } = placesOf(config);
  const edges: Edge[] = [];
  const add = (name: string, packet: ArrayLike<number>, must?: boolean, more: Partial<Edge> = {}) =>
    edges.push({ name, direction: 'inbound', frame: toUplink(packet), must, ...more });
  const inner = back(config);
  const plain = underlay(config, inner);
  const header = plain.length - inner.length;
  const inside = (parts: wire.Parts, outer: Partial<wire.Outer> = {}) => underlay(config, back(config, parts), outer);

  add('plain', plain, true);
  for (const protocol of [TCP, UDP] as const) add(`protocol ${protocol}`, inside({ protocol }), true);
  for (const protocol of [0, ICMP, 4, SCTP, 255])
    add(`protocol ${protocol}`, underlay(config, changed(inner, { 9: protocol })), true);
  add('nested GRE', underlay(config, changed(inner, { 9: GRE })), false);
  for (const length of [0, 1, 2, 3, 101, 1400]) add(`payload of ${length} bytes`, inside(payload(length)), true);
  for (const ttl of [0, 1]) add(`TTL ${ttl}`, inside({ ttl }), false);
  for (const ttl of [2, 3, 128, 255]) add(`TTL ${ttl}`, inside({ ttl }), true);
  for (const ttl of [1, 2, 255]) add(`outer TTL ${ttl}`, inside({}, { ttl }), true);
  for (const inner of [0, 1, 2, 3])
    for (const outer of [0, 1, 2, 3])
      for (const [a, b] of [
        [0, 0],
        [46, 0],
        [0, 46],
        [63, 10],
      ] as const) {
        // What is dropped or counted (RFC 6040 §4.2), or changes more than a congestion mark, is for the core.
        const odd = (inner === 0 && outer !== 0) || (inner === 1 && outer === 2) || (inner === 3 && outer === 1);
        const isRare = (inner === 2 && outer === 1) || (config.dscp === 'uniform' && a !== b);
        add(
          `ECN ${inner} in ${outer}, DSCP ${a} in ${b}`,
          inside({ tos: (a << 2) | inner }, { tos: (b << 2) | outer }),
          odd ? false : isRare ? undefined : true,
        );
      }

  // The outer header.
  for (const first of [0x44, 0x40, 0x46, 0x55, 0x05, 0x65])
    add(`outer first byte ${first}`, changed(plain, { 0: first }), false);
  const options = wire.ipv4Around(
    { source: there, destination: config.local, protocol: plain[9] as number },
    plain.subarray(20),
  );
  add('the outer header made anew', options, true);
  add('outer options', withOptions(plain), false);
  const checksum = view(plain).getUint16(10);
  for (const wrong of [0, checksum ^ 1, (checksum + 1) & 0xffff, ~checksum & 0xffff])
    add(`outer checksum ${wrong}`, changed(plain, { 10: wrong >> 8, 11: wrong & 255 }, false), false);
  for (const flags of [0x2000, 0x2001, 0x0001, 0x1fff, 0x6000, 0x3fff])
    add(`outer fragment ${flags}`, inside({}, { flags }), false);
  for (const flags of [0, 0x4000]) add(`outer flags ${flags}`, inside({}, { flags }), true);
  add('outer reserved flag', inside({}, { flags: 0x8000 }));
  for (const protocol of [0, ICMP, 4, TCP, plain[9] === GRE ? UDP : GRE, 255])
    add(`outer protocol ${protocol}`, inside({}, { protocol }), false);
  for (const total of [0, 19, 20, 24, plain.length - 1, plain.length + 1, 0xffff])
    add(`outer total length ${total}`, changed(plain, { 2: total >> 8, 3: total & 255 }), false);
  for (const more of [1, 2, 20]) add(`${more} bytes behind`, [...plain, ...Array(more).fill(0)], false);
  for (let length = 20; length < header + 30; length++) {
    add(`the first ${length} bytes`, plain.subarray(0, length), false);
    const rest = changed(plain.subarray(0, length), { 2: length >> 8, 3: length & 255 });
    add(`the first ${length} bytes, stated`, rest, false);
  }
  add('bytes behind the inner packet', underlay(config, Uint8Array.from([...inner, 0, 0])));
  add('an inner packet that ends early', underlay(config, inner.subarray(0, inner.length - 1)), false);

  // Addresses of VMs.
  const vms = {
    nobody: 0,
    'this VM': config.local,
    'outside the underlay': 0x08080808,
    multicast: 0xe0000001,
    broadcast: 0xffffffff,
    'another VM': there + 1,
  };
  for (const [name, source] of Object.entries(vms)) add(`outer source: ${name}`, inside({}, { source }), false);
  for (const [name, destination] of Object.entries({ ...vms, 'this VM': there }))
    add(`outer destination: ${name}`, inside({}, { destination }), false);
  for (const [i, of] of config.mappings.entries()) {
    const count = 2 ** (32 - of.underlayLength);
    for (const [name, n] of Object.entries({
      first: 0,
      second: 1,
      third: 2,
      'last but one': count - 2,
      last: count - 1,
    })) {
      const vm = of.underlay + n;
      for (const index of [0, 1, 2, lastIndex(config, i)])
        add(
          `mapping ${i}: from index ${index} of the ${name} VM`,
          inside({ source: overlayOf(config, vm, index, i) }, { source: vm }),
        );
    }
  }

  // GRE.
  const gre = header - (config.key === undefined ? 4 : 8);
  for (let bit = 0; bit < 16; bit++) {
    const at = gre + (bit >> 3);
    const flipped = changed(plain, { [at]: (plain[at] as number) ^ (0x80 >> (bit & 7)) });
    // Bits 6 to 12 say nothing.
    add(`GRE bit ${bit} flipped`, flipped, bit >= 6 && bit <= 12 ? undefined : false);
  }
  for (const type of [0, 0x86dd, 0x6558, 0x0801, 0x0008])
    add(`GRE type ${type}`, changed(plain, { [gre + 2]: type >> 8, [gre + 3]: type & 255 }), false);
  const keyed = (key: number | undefined) => withGre(config, wire.greHeader({ key }, inner), inner);
  for (const key of [0, 1, 0xdecafbad, 0xdecafbac, 0x5ecafbad, 0xffffffff, undefined])
    add(`GRE key ${key}`, keyed(key), key === config.key);
  add('GRE checksum', withGre(config, wire.greHeader({ key: config.key, checksum: true }, inner), inner));
  add('GRE sequence', withGre(config, wire.greHeader({ key: config.key, sequence: 1 }, inner), inner));
  if (config.encapsulation === 'gre-udp') udpEdges();

  // The inner header.
  for (const first of [0x44, 0x40, 0x55, 0x05, 0x65])
    add(`first byte ${first}`, underlay(config, changed(inner, { 0: first })), false);
  add('options', inside({ ipOptions: [1, 1, 1, 1] }), false);
  const sum = view(inner).getUint16(10);
  for (const wrong of [0, sum ^ 1, (sum + 1) & 0xffff, ~sum & 0xffff])
    add(`checksum ${wrong}`, underlay(config, changed(inner, { 10: wrong >> 8, 11: wrong & 255 }, false)), false);
  for (const target of [0x0000, 0xffff, 0xfeff, 0xfefe, 0xff00, 0x00ff]) {
    const zero = changed(inner, { 4: 0, 5: 0 });
    const id = wire.sum(Uint8Array.of(...word(view(zero).getUint16(10)), ...word(~target & 0xffff)));
    const packet = changed(zero, { 4: id >> 8, 5: id & 255 });
    for (const tos of [0, 2, 3, 46 << 2])
      add(`checksum as it comes to ${target} in ${tos}`, underlay(config, packet, { tos }));
    add(`checksum ${target} put`, underlay(config, changed(packet, { 10: target >> 8, 11: target & 255 }, false)));
  }
  for (const fragment of [0x2000, 0x2001, 0x0001, 0x8000]) add(`inner fragment ${fragment}`, inside({ fragment }));
  for (const total of [0, 19, 20, inner.length + 1])
    add(`total length ${total}`, underlay(config, changed(inner, { 2: total >> 8, 3: total & 255 })), false);
  const sources = {
    'the slice': remote(0),
    nobody: remote(last),
    'this VM': here(2),
    'another VM': overlayOf(config, there + 1, 2, placesOf(config).which),
    'no overlay': 0x08080808,
    loopback: 0x7f000001,
    zero: 0,
    'the VM itself': there,
  };
  for (const [name, source] of Object.entries(sources)) add(`source: ${name}`, inside({ source }), false);
  add('from the other VM', inside({ source: remote(1) }), true);
  const destinations = {
    'the slice': here(0),
    nobody: here(last),
    'the VM': here(1),
    'another VM': remote(3),
    'no overlay': 0x08080808,
    multicast: 0xe0000001,
    broadcast: 0xffffffff,
    zero: 0,
    'the VM itself': config.local,
  };
  for (const [name, destination] of Object.entries(destinations))
    add(`destination: ${name}`, inside({ destination }), false);
  if (last > 5 + LINKS.length) {
    add('where nobody is', inside({ destination: here(5 + LINKS.length) }), false);
    for (const index of [3, 4, 5]) add(`to ${index}`, inside({ destination: here(index) }), true);
    const narrow = here(1 + LINKS.length);
    add('as long as the link takes', inside({ destination: narrow, ...payload(40) }), true);
    add('a byte more', inside({ destination: narrow, ...payload(41) }), false);
    add('a byte more, to be cut', inside({ destination: narrow, fragment: 0, ...payload(41) }), false);
  }

  // Ethernet, and by where it comes in.
  add('a frame for another host', [], false, { frame: framed(plain, [2, 0, 0, 0, 7, 7]) });
  add('a broadcast frame', [], false, { frame: framed(plain, Array(6).fill(255)) });
  for (const type of [0x86dd, 0x0806, 0x8100])
    add(`Ethernet type ${type}`, [], false, { frame: framed(plain, macOf(UPLINK), type) });
  add('a super-packet', inside({ protocol: TCP, ...payload(3000) }), undefined, { gsoSize: 1400 });
  add('a super-packet of UDP', inside(payload(3000)), undefined, { gsoSize: 1400 });

  // What is known of the VM.
  add('unheard', plain, undefined, { record: { heard: 0 } });
  add('not fresh', plain, false, { record: { inbound: 0 } });
  add('unheard and not fresh', plain, false, { record: { heard: 0, inbound: 0 } });
  add('not fresh outbound', plain, true, { record: { outbound: 0 } });
  add('a limit outbound', plain, true, { record: { limit: 68 } });
  add('spoofed, unheard and not fresh', inside({ source: here(2) }), false, { record: { heard: 0, inbound: 0 } });
  for (const size of [536, 1436, 1460])
    add(
      `SYN, ${size}`,
      inside({ protocol: TCP, flags: wire.SYN, tcpOptions: [2, 4, size >> 8, size & 255], ...payload(0) }),
      config.clampMss ? undefined : true,
    );
  return edges;

  function udpEdges(): void {
    for (const port of [0, 1, 4753, 4755, 53])
      add(`UDP port ${port}`, changed(plain, { 22: port >> 8, 23: port & 255 }), false);
    for (const port of [0, 1, 4754, 65535])
      add(`UDP source port ${port}`, changed(plain, { 20: port >> 8, 21: port & 255 }), true);
    const length = plain.length - 20;
    for (const stated of [0, 7, 8, length - 1, length + 1])
      add(`UDP length ${stated}`, changed(plain, { 24: stated >> 8, 25: stated & 255 }), false);
    const check = ~wire.sum(plain.subarray(20), wire.sum(plain.subarray(12, 20), UDP + length)) & 0xffff;
    add('UDP checksum', changed(plain, { 26: check >> 8, 27: check & 255 }));
    add('UDP checksum that is wrong', changed(plain, { 26: 0, 27: check === 1 ? 2 : 1 }), false);
    add('plain GRE', greTo(config, inner));
  }
}

const word = (number: number) => [number >> 8, number & 255];

/** A packet with four bytes of options, of which none says anything. */
function withOptions(packet: Uint8Array): Uint8Array {
  const copy = Uint8Array.from([...packet.subarray(0, 20), 1, 1, 1, 1, ...packet.subarray(20)]);
  return changed(copy, { 0: 0x46, 2: copy.length >> 8, 3: copy.length & 255 });
}

/** As `underlay`, with another GRE header. */
function withGre(config: CoreConfig, header: readonly number[], inner: Uint8Array): Uint8Array {
  const { there } = placesOf(config);
  const around = { source: there, destination: config.local };
  if (config.encapsulation !== 'gre-udp') return wire.ipv4Around(around, [...header, ...inner]);
  const length = 8 + header.length + inner.length;
  const udp = [0xc0, 0x01, ...word(GRE_UDP_PORT), ...word(length), 0, 0];
  return wire.ipv4Around({ ...around, protocol: UDP }, [...udp, ...header, ...inner]);
}

const greTo = (config: CoreConfig, inner: Uint8Array) =>
  greAround(inner, { source: placesOf(config).there, destination: config.local, key: config.key });
