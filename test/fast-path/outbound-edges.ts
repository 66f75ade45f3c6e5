/** Containers' frames on the edge of what the fast path takes. */
import { type CoreConfig, overhead } from '../../src/core/index.ts';
import * as wire from '../packet.ts';
import { lastIndex, overlayOf } from './configs.ts';
import {
  changed,
  type Edge,
  framed,
  GRE,
  ICMP,
  out,
  payload,
  placesOf,
  SCTP,
  SUMS,
  summing,
  TCP,
  toHost,
  toUplink,
  UDP,
  view,
} from './frames.ts';
import { LINKS, macOf, STRANGER, UPLINK } from './namespace.mjs';

export function outboundEdges(config: CoreConfig): Edge[] {
  const { here, remote, last } = placesOf(config);
  const limit = config.mtu ?? 1500 - overhead(config.encapsulation ?? 'gre', config);
  const edges: Edge[] = [];
  const add = (name: string, packet: ArrayLike<number>, must?: boolean, more: Partial<Edge> = {}) =>
    edges.push({ name, direction: 'outbound', frame: toHost(packet), must, ifindex: LINKS[0] as number, ...more });
  const plain = out(config);

  for (const protocol of [TCP, UDP] as const) add(`protocol ${protocol}`, out(config, { protocol }), true);
  for (const protocol of [0, ICMP, 4, 46, 48, SCTP, 255])
    add(`protocol ${protocol}`, changed(plain, { 9: protocol }), true);
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
  for (const target of SUMS) {
    const packet = summing(plain, target);
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

  // Of the other containers, by their links.
  LINKS.forEach((link, i) => {
    if (i + 2 >= last) return;
    const own = out(config, { source: here(i + 2) });
    add(`container ${i + 1}`, own, true, { ifindex: link, frame: toHost(own, link) });
  });
  add('switched off', plain, false, { isOff: true });

  // What is known of the VM.
  add('unheard', plain, false, { record: { heard: 0 } });
  add('not fresh', plain, false, { record: { outbound: 0 } });
  add('not fresh inbound', plain, true, { record: { inbound: 0 } });
  add('unheard and not fresh', plain, false, { record: { heard: 0, outbound: 0 } });
  add('spoofed and not fresh', out(config, { source: here(1) }), false, { record: { outbound: 0 } });

  // Across.
  if (last > 5) {
    for (const index of [3, 4]) add(`across to ${index}`, out(config, { destination: here(index) }), true);
    add('across to where nobody is', out(config, { destination: here(5 + LINKS.length) }), false);
    const across = out(config, { source: here(3), destination: here(2) });
    const by = { ifindex: LINKS[1] as number };
    add('across, back', [], true, { ...by, frame: toHost(across, LINKS[1]) });
    add('across, by another link', across, false);
    add('across, switched off', out(config, { destination: here(3) }), false, { isOff: true });
    const to = (mac: readonly number[], type?: number) => ({ ...by, frame: framed(across, mac, type) });
    add('across, for another host', [], false, to([2, 0, 0, 0, 7, 7]));
    add('across, broadcast', [], false, to(Array(6).fill(255)));
    for (const type of [0x86dd, 0x8100, 0x0801])
      add(`across, Ethernet type ${type}`, [], false, to(macOf(LINKS[1] as number), type));
    for (const length of [20, 27, across.length - 1])
      add(`across, the first ${length} bytes`, [], false, {
        ...by,
        frame: toHost(across.subarray(0, length), LINKS[1]),
      });
    add('across, a byte behind', [...out(config, { destination: here(3) }), 0], false);
    for (const target of SUMS)
      add(`across, checksum as it comes to ${target}`, summing(out(config, { destination: here(3) }), target), true);
    add('across, checksum wrong', changed(out(config, { destination: here(3) }), { 10: 1, 11: 2 }, false), false);
    for (const ttl of [2, 3, 255]) add(`across, TTL ${ttl}`, out(config, { destination: here(3), ttl }), true);
    add('across, TTL 0', out(config, { destination: here(3), ttl: 0 }), false);
    for (const protocol of [0, ICMP, 46, 48, 255])
      add(`across, protocol ${protocol}`, changed(out(config, { destination: here(3) }), { 9: protocol }), true);
    for (const tos of [1, 0xb8, 0xff]) add(`across, TOS ${tos}`, out(config, { destination: here(3), tos }), true);
    for (const fragment of [0x2000, 0x2001, 0x0001, 0x8000])
      add(`across, fragment ${fragment}`, out(config, { destination: here(3), fragment }));
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
  for (const flags of [0x01, 0x04, 0x10, 0x11, 0x18, 0xd8])
    add(`TCP flags ${flags}`, out(config, { protocol: TCP, flags }), true);
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
  return edges;
}
