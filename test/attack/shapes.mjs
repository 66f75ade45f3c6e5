/**
 * Packets of any shape from whoever attacks, and who may be seen as their source: the oracle of the property
 * that nothing is delivered under a false source.
 */
import {
  ACK,
  fragmentationNeeded,
  fragments,
  hostUnreachable,
  icmp,
  ipv4,
  redirect,
  SYN,
  TUNNELS,
  tcp,
  udp,
} from './packets.mjs';
import { HOSTS } from './world.mjs';

const { tenant, neighbour, other, vm, otherVm, v, u, outsider } = HOSTS;

/** Everybody that somebody may claim to be, or send to. */
export const ADDRESSES = [
  ...[tenant, neighbour, other, '10.16.32.77', '10.16.33.7', v.container, '10.16.40.7', '10.66.6.7', '10.77.1.7'],
  ...[vm.overlay, otherVm.overlay, v.overlay, '10.66.6.1', '10.16.32.0', '10.16.32.255', '10.16.33.255', '10.16.40.0'],
  ...[vm.underlay, otherVm.underlay, v.underlay, u, '192.168.77.1', '192.168.0.0', '192.168.255.255'],
  ...[
    '10.0.0.91',
    '10.255.255.91',
    '10.255.255.255',
    outsider,
    '8.8.8.8',
    '127.0.0.1',
    '0.0.0.0',
    '224.0.0.1',
    '255.255.255.255',
  ],
];
export const KINDS = Object.keys(TUNNELS);

/**
 * Who sends: the device, and those who may be seen as the source of what comes of it: a VM stands for its own
 * containers, but for the indexes that nobody has.
 */
export const SENDERS = {
  T: { at: 'tenant', isTrue: (source) => source === tenant },
  V: { at: 'u', outer: v.underlay, isTrue: (source) => isContainerOf(source, '10.16.40.') },
  U: { at: 'u', outer: u, isTrue: (source) => isContainerOf(source, '10.66.6.') },
};
const isContainerOf = (source, slice) => source.startsWith(slice) && !['0', '255'].includes(source.slice(slice.length));

const quoted = (from, to) => udp({ from: to, to: from, port: 9, fragment: 0x4000 }, Buffer.alloc(8));
/** What is in the innermost packet, by name; the mark is in all of them. */
const CONTENTS = {
  udp: (ip, mark) => udp({ ...ip, port: 7777 }, mark),
  'udp to a tunnel port': (ip, mark) => udp({ ...ip, port: ip.id & 1 ? 4754 : 4789 }, mark),
  tcp: (ip, mark) => tcp({ ...ip, port: 7777, flags: ip.id & 1 ? SYN : ACK }, mark),
  echo: (ip, mark) => icmp({ ...ip, type: 8 }, mark),
  'fragmentation needed': (ip, mark) => fragmentationNeeded(ip, 68, Buffer.concat([quoted(ip.from, ip.to), mark])),
  unreachable: (ip, mark) => hostUnreachable(ip, Buffer.concat([quoted(ip.from, ip.to), mark])),
  redirect: (ip, mark) => redirect(ip, v.overlay, Buffer.concat([quoted(ip.from, ip.to), mark])),
  'another protocol': (ip, mark) => ipv4({ ...ip, protocol: 132 }, mark),
  'a protocol of tunnels': (ip, mark) => ipv4({ ...ip, protocol: ip.id & 1 ? 4 : 47 }, mark),
};
export const CONTENT_NAMES = Object.keys(CONTENTS);

const CUTS = {
  whole: (packet) => [packet],
  'in 8 bytes': (packet) => fragments(packet, 8),
  'in 24 bytes': (packet) => fragments(packet, 24),
  'backwards in 16 bytes': (packet) => fragments(packet, 16).reverse(),
  'with the first twice': (packet) => [fragments(packet, 16)[0], ...fragments(packet, 16)],
};
export const CUT_NAMES = Object.keys(CUTS);
export const FRAMES = {
  usual: {},
  'VLAN 0': { tag: true },
  broadcast: { to: 'ff:ff:ff:ff:ff:ff' },
  'other VM': { to: 'other VM' },
};

/** The frames of a shape, and its mark. `layers` are tunnels, the outermost first. */
export function shotOf(w, { who, layers, inner, content, cut, frame, ttl }) {
  const { at } = SENDERS[who];
  const mark = w.mark();
  const id = w.id();
  const options = [[], [1, 1, 1, 1], [7, 7, 4, 0, 0, 0, 0, 0]][id % 3];
  let packet = CONTENTS[content](
    { from: inner[0], to: inner[1], id, ttl, options: layers.length ? [] : options },
    mark,
  );
  for (const { kind, outer } of [...layers].reverse())
    packet = TUNNELS[kind]({ from: outer[0], to: outer[1], id, ttl, vm: outer[1] }, packet);
  const where = frame === 'other VM' && at !== 'u' ? {} : FRAMES[frame];
  return { mark, id, frames: CUTS[cut](packet).map((part) => w.frame(at, part, where)) };
}

/**
 * Of what was seen in containers and in sockets of the VMs, what a shot made under a source that is not its
 * sender's own.
 *
 * @returns {{ at: string, source: string }[]}
 */
export function lies(seen, { who }, { mark, id }) {
  const hex = mark.toString('hex');
  // Of a fragment, only the identification tells whose it is.
  return seen.filter(
    (each) =>
      ['neighbour', 'other', 'vm', 'otherVm'].includes(each.at) &&
      (each.hex.includes(hex) || (each.id === id && each.isFragment)) &&
      !isAllowed(who, each),
  );
}

function isAllowed(who, { at, source }) {
  if (SENDERS[who].isTrue(source)) return true;
  if (who === 'T') return false;
  // A container that answers V is told by its VM that V has no daemon.
  if (source === { neighbour: vm.overlay, other: otherVm.overlay }[at]) return true;
  // Who sends to a VM in plain as whom on the underlay is the underlay's business.
  return ['vm', 'otherVm'].includes(at) && !source.startsWith('10.');
}
