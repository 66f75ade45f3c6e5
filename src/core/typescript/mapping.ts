/**
 * Mapping of overlay to underlay addresses: computed from the address bits, nothing is looked up (as RFC 5969 §4 embeds
 * IPv4 addresses in IPv6 prefixes; §12 there gives the source check).
 *
 *     overlay address   | overlay prefix, P bits | k bits | index, c bits |
 *                                                    |
 *     underlay address         | underlay prefix | k bits |
 */
import * as abi from '../abi.ts';
import { clear, loadU32, type Memory, storeU32 } from './bytes.ts';
import { mappingCount, setMappingCount } from './config.ts';

/** Bits in an IPv4 address. */
const WIDTH = 32;
/** An index of fewer bits has no room for a container: 0 is the slice, 1 the VM, all ones is kept free. */
const MIN_CONTAINER_BITS = 2;
/** The VM's own index in its slice. */
const OWN_INDEX = 1;
/** 255.255.255.255. */
const LIMITED_BROADCAST = 0xffffffff | 0;

/**
 * Adds a mapping and derives its masks. Lengths in bits. Returns the number of mappings, or -1
 * and changes nothing if the table is full, the lengths do not fit each other, or some of the addresses are no host's.
 */
export function addMapping(
  memory: Memory,
  overlay: number,
  overlayLength: number,
  underlay: number,
  underlayLength: number,
): number {
  const count = mappingCount(memory);
  if (count >= abi.MAX_MAPPINGS) return -1;
  if (overlayLength < 1 || overlayLength > WIDTH || underlayLength < 1 || underlayLength > WIDTH) return -1;
  const containerBits = WIDTH - overlayLength - (WIDTH - underlayLength);
  if (containerBits < MIN_CONTAINER_BITS) return -1;

  const overlayMask = -1 << (WIDTH - overlayLength);
  const underlayMask = -1 << (WIDTH - underlayLength);
  if (touchesSpecial(overlay, overlayMask)) return -1;
  const mapping = abi.MAPPINGS + count * abi.MAPPING_SIZE;
  clear(memory, mapping, abi.MAPPING_SIZE);
  storeU32(memory, mapping + abi.MAPPING_OVERLAY, overlay & overlayMask);
  storeU32(memory, mapping + abi.MAPPING_OVERLAY_MASK, overlayMask);
  storeU32(memory, mapping + abi.MAPPING_UNDERLAY, underlay & underlayMask);
  storeU32(memory, mapping + abi.MAPPING_VM_MASK, ~underlayMask);
  storeU32(memory, mapping + abi.MAPPING_CONTAINER_BITS, containerBits);
  storeU32(memory, mapping + abi.MAPPING_INDEX_MASK, -1 >>> (WIDTH - containerBits));
  const [first, last] = usableVms(overlay | ~overlayMask, underlayLength);
  storeU32(memory, mapping + abi.MAPPING_FIRST_VM, (underlay & underlayMask) + first);
  storeU32(memory, mapping + abi.MAPPING_VMS, last - first + 1);
  setMappingCount(memory, count + 1);
  return count + 1;
}

/**
 * The lowest and the highest number that a VM can have in an underlay prefix of `underlayLength` bits; `lastAddress` is the last of the
 * overlay's. Numbers of 0 and of all ones make the network's own address and its broadcast address (RFC 1122 §3.2.1.3), unless there are
 * no others (RFC 3021). And no host has the limited broadcast address.
 */
function usableVms(lastAddress: number, underlayLength: number): [first: number, last: number] {
  const allOnes = 2 ** (WIDTH - underlayLength) - 1;
  if (allOnes > 1) return [1, allOnes - 1];
  return [0, lastAddress === LIMITED_BROADCAST ? allOnes - 1 : allOnes];
}

/** Whether the overlay prefix has addresses in common with those that are no host's. */
function touchesSpecial(overlay: number, overlayMask: number): boolean {
  // "This network", loopback (RFC 1122 §3.2.1.3), multicast (RFC 1112 §4).
  return (
    overlaps(overlay, overlayMask, 0x00000000, 0xff000000) ||
    overlaps(overlay, overlayMask, 0x7f000000, 0xff000000) ||
    overlaps(overlay, overlayMask, 0xe0000000, 0xf0000000)
  );
}

/** Whether one of two prefixes holds the other: they agree in the bits that both have. */
function overlaps(a: number, maskOfA: number, b: number, maskOfB: number): boolean {
  return ((a ^ b) & maskOfA & maskOfB) === 0;
}

/** The first mapping that covers the overlay address, as the record's place in memory; 0 if none does. */
export function findMapping(memory: Memory, address: number): number {
  const end = abi.MAPPINGS + mappingCount(memory) * abi.MAPPING_SIZE;
  for (let mapping = abi.MAPPINGS; mapping < end; mapping += abi.MAPPING_SIZE) {
    const overlayMask = loadU32(memory, mapping + abi.MAPPING_OVERLAY_MASK);
    if ((address & overlayMask) === loadU32(memory, mapping + abi.MAPPING_OVERLAY)) return mapping;
  }
  return 0;
}

/** The underlay address of the VM whose slice holds the overlay address, which `mapping` covers; 0 if that is 0. */
export function vmIn(memory: Memory, mapping: number, address: number): number {
  if (mapping === 0) return 0;
  const containerBits = loadU32(memory, mapping + abi.MAPPING_CONTAINER_BITS);
  const vmMask = loadU32(memory, mapping + abi.MAPPING_VM_MASK);
  return loadU32(memory, mapping + abi.MAPPING_UNDERLAY) | ((address >>> containerBits) & vmMask);
}

/** The underlay address of the VM whose slice holds the overlay address: 0 if no mapping covers it. */
export function vmOf(memory: Memory, address: number): number {
  return vmIn(memory, findMapping(memory, address), address);
}

/** Whether the overlay address, which `mapping` covers, is nobody's: its index is 0 or all ones, or its slice that of an address that no VM can have. */
export function isReserved(memory: Memory, mapping: number, address: number): boolean {
  const indexMask = loadU32(memory, mapping + abi.MAPPING_INDEX_MASK);
  const index = address & indexMask;
  return index === 0 || index === indexMask || !canBeVm(memory, mapping, vmIn(memory, mapping, address));
}

/** Whether the mapping has the underlay address for a VM. */
function canBeVm(memory: Memory, mapping: number, vm: number): boolean {
  const place = (vm - loadU32(memory, mapping + abi.MAPPING_FIRST_VM)) >>> 0;
  return place < loadU32(memory, mapping + abi.MAPPING_VMS) >>> 0;
}

/** The overlay address of the VM itself that the slice of `address`, which a mapping covers, belongs to. */
export function vmAddress(memory: Memory, address: number): number {
  const indexMask = loadU32(memory, findMapping(memory, address) + abi.MAPPING_INDEX_MASK);
  return (address & ~indexMask) | OWN_INDEX;
}

/** As `vmOf`, but 0 also for an address that is nobody's: the VM that alone may send from the overlay address. */
export function senderOf(memory: Memory, address: number): number {
  const mapping = findMapping(memory, address);
  return mapping === 0 || isReserved(memory, mapping, address) ? 0 : vmIn(memory, mapping, address);
}

/** Whether a VM can have the underlay address, by any mapping. */
export function isUnderlay(memory: Memory, address: number): boolean {
  const end = abi.MAPPINGS + mappingCount(memory) * abi.MAPPING_SIZE;
  for (let mapping = abi.MAPPINGS; mapping < end; mapping += abi.MAPPING_SIZE) {
    if (canBeVm(memory, mapping, address)) return true;
  }
  return false;
}
