/** Frames of the underlay on the edge of what the fast path takes. */
import type { CoreConfig } from '../../src/core/index.ts';
import * as wire from '../packet.ts';
import { lastIndex, overlayOf } from './configs.ts';
import {
  back,
  changed,
  type Edge,
  FRAGMENT_BITS,
  framed,
  GRE,
  ICMP,
  payload,
  placesOf,
  SCTP,
  SUMS,
  summing,
  TCP,
  toUplink,
  UDP,
  underlay,
  view,
  withOptions,
} from './frames.ts';
import { LINKS, macOf, UPLINK } from './namespace.mjs';

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
  for (const flags of [0x01, 0x04, 0x10, 0x11, 0x18, 0xd8])
    add(`TCP flags ${flags}`, inside({ protocol: TCP, flags }), true);
  for (const protocol of [TCP, UDP] as const) add(`protocol ${protocol}`, inside({ protocol }), true);
  for (const protocol of [0, ICMP, 4, 46, 48, SCTP, 255])
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
  for (const flags of [...FRAGMENT_BITS, 0x2001, 0x1fff, 0x6000, 0x3fff])
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
  add('what this VM would have sent to itself', inside({ source: here(3) }, { source: config.local }), false);
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
  const keyed = (key: number | undefined) => underlay(config, inner, {}, wire.greHeader({ key }, inner));
  for (const key of [0, 1, 0xdecafbad, 0xdecafbac, 0x5ecafbad, 0xffffffff, undefined])
    add(`GRE key ${key}`, keyed(key), key === config.key);
  add('GRE checksum', underlay(config, inner, {}, wire.greHeader({ key: config.key, checksum: true }, inner)));
  add('GRE sequence', underlay(config, inner, {}, wire.greHeader({ key: config.key, sequence: 1 }, inner)));
  if (config.encapsulation === 'gre-udp') udpEdges();

  // The inner header.
  for (const first of [0x44, 0x40, 0x55, 0x05, 0x65])
    add(`first byte ${first}`, underlay(config, changed(inner, { 0: first })), false);
  add('options', inside({ ipOptions: [1, 1, 1, 1] }), false);
  const sum = view(inner).getUint16(10);
  for (const wrong of [0, sum ^ 1, (sum + 1) & 0xffff, ~sum & 0xffff])
    add(`checksum ${wrong}`, underlay(config, changed(inner, { 10: wrong >> 8, 11: wrong & 255 }, false)), false);
  for (const target of SUMS) {
    const packet = summing(inner, target);
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

  add('switched off', plain, false, { isOff: true });

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
  }
}
