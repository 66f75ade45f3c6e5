/** Pairs of prefixes with room for so many VMs and containers: arithmetic alone, for any width. */
import { InlayError } from '../errors.ts';
import { formatPrefix, overlaps, type Prefix, parsePrefix } from './address.ts';
import { Mapping } from './mapping.ts';

/** What a mesh is to have room for. */
export interface Wanted {
  /** All VMs of the underlay prefix, if it is not given. */
  vms?: number;
  /** Of each VM. */
  containers: number;
  /** The network to choose the overlay from, instead of those for private use. */
  overlay?: Prefix;
  /** The VMs' network. Without it, the shortest range of addresses that so many VMs fit into. */
  underlay?: Prefix;
}

/** Networks that a mesh may have to itself (RFC 1918, RFC 6598, RFC 1112 §4), the usual one first. */
const OVERLAYS = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '240.0.0.0/4'].map(prefix);
/** Where VMs' addresses usually are, for an example. */
const UNDERLAYS = ['192.168.0.0/16', '172.16.0.0/12', '10.0.0.0/8'].map(prefix);
/** Indexes of a slice that no container has: 0, the VM's and all ones. */
const NOT_CONTAINERS = 3;
/** Addresses of an underlay prefix that no VM has, where it has more than two: its first and its last. */
const NOT_VMS = 2;

/**
 * Mappings with room for what is wanted, at most two of each network. The first has the longest overlay
 * prefix that has room. The second has all of the network that is free, and so the most room to grow. Neither
 * overlaps the underlay. VM bits are as few as the VMs, or the underlay prefix, allow. Throws ERR_CONFIG if
 * no network has room.
 */
export function propose(wanted: Wanted): Mapping[] {
  const vmBits = vmBitsOf(wanted);
  const containerBits = bitsFor(wanted.containers + NOT_CONTAINERS);
  const found = (wanted.overlay ? [wanted.overlay] : OVERLAYS).flatMap((network) => {
    const underlay = wanted.underlay ?? exampleUnderlay(network, network.width - vmBits);
    const whole = underlay && freePart(network, underlay);
    const longest = network.width - vmBits - containerBits;
    if (!whole || whole.length > longest) return [];
    const lengths = [...new Set([longest, whole.length])];
    return lengths.map((length) => new Mapping({ ...whole, length }, underlay));
  });
  const mappings = found.filter((mapping) => hasRoom(mapping, wanted));
  if (mappings.length === 0) throw noRoom(wanted, vmBits, containerBits);
  return mappings;
}

/** The largest networks for private use that do not overlap an underlay, and leave room for containers. */
export function overlaysBeside(underlay: Prefix): Mapping[] {
  return OVERLAYS.flatMap((network) => {
    const free = freePart(network, underlay);
    const leaves = free ? free.width - free.length - (underlay.width - underlay.length) : 0;
    return free && leaves >= 2 ? [new Mapping(free, underlay)] : [];
  });
}

/**
 * The largest prefix inside `network` that does not overlap `taken`: all of it, or the half that `taken` is
 * not in; undefined if there is none.
 */
function freePart(network: Prefix, taken: Prefix): Prefix | undefined {
  if (!overlaps(network, taken)) return network;
  if (taken.length <= network.length) return undefined;
  const half = 1n << BigInt(network.width - network.length - 1);
  return { ...network, bits: network.bits | (~taken.bits & half), length: network.length + 1 };
}

function exampleUnderlay(overlay: Prefix, length: number): Prefix | undefined {
  const network = UNDERLAYS.find((each) => each.length <= length && !overlaps(each, overlay));
  return network && { ...network, length };
}

function hasRoom(mapping: Mapping, { vms, containers }: Wanted): boolean {
  return mapping.containersPerVm >= containers && mapping.vms >= (vms ?? 1);
}

/** How many bits so many numbers take. */
function bitsFor(count: number): number {
  return Math.ceil(Math.log2(count));
}

function vmBitsOf({ vms = 1, underlay }: Wanted): number {
  const least = vms <= 2 ? bitsFor(vms) : bitsFor(vms + NOT_VMS);
  if (!underlay) return least;
  const vmBits = underlay.width - underlay.length;
  if (least <= vmBits) return vmBits;
  throw new InlayError(
    'ERR_CONFIG',
    `underlay ${formatPrefix(underlay)} has addresses for ${2 ** vmBits - (vmBits < 2 ? 0 : NOT_VMS)} VMs: expected ${vms}`,
    {
      hint: `give the whole network of the VMs, a /${underlay.width - least} or shorter`,
    },
  );
}

function noRoom({ overlay, underlay, containers }: Wanted, vmBits: number, containerBits: number): InlayError {
  const networks = overlay ? [overlay] : OVERLAYS;
  const free = networks.flatMap((each) => (underlay ? (freePart(each, underlay) ?? []) : each));
  const most = Math.max(0, ...free.map(({ width, length }) => width - length));
  const where = overlay ? `overlay ${formatPrefix(overlay)}` : 'each network for private use';
  const part = underlay && underlay.width - Math.max(0, most - containerBits);
  return new InlayError(
    'ERR_CONFIG',
    `${where} is too small: ${containers} containers take ${containerBits} bits and the VMs ${vmBits}, ${vmBits + containerBits} in all, and there are ${most}`,
    {
      hint: underlay
        ? `take fewer containers for each VM; or, if all VMs are inside a smaller part of ${formatPrefix(underlay)}, give that part, a /${part} or longer`
        : 'take fewer VMs, fewer containers for each, or several meshes',
    },
  );
}

function prefix(text: string): Prefix {
  return parsePrefix(text) as Prefix;
}
