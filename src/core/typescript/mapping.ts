/**
 * Mapping of overlay to underlay addresses: computed from the address bits, nothing is looked up (as RFC 5969 §4 embeds
 * IPv4 addresses in IPv6 prefixes; §12 there gives the source check).
 *
 *     overlay address   | overlay prefix, P bits | k bits | index, c bits |
 *                                                    |
 *     underlay address         | underlay prefix | k bits |
 */
import * as abi from '../abi.ts';
import { clear, loadI32, type Memory, storeI32 } from './bytes.ts';

/** Bits in an IPv4 address. */
const WIDTH = 32;
/** An index of fewer bits has no room for a container: 0 is the slice, 1 the VM, all ones is kept free. */
const MIN_CONTAINER_BITS = 2;

/**
 * Adds a mapping and derives its masks. Addresses in either sign, lengths in bits. Returns the number of mappings, or -1
 * and changes nothing if the table is full or the lengths do not fit each other.
 */
export function addMapping(
  memory: Memory,
  overlay: number,
  overlayLength: number,
  underlay: number,
  underlayLength: number,
): number {
  const count = loadI32(memory, abi.CONFIG + abi.CONFIG_MAPPINGS);
  if (count >= abi.MAX_MAPPINGS) return -1;
  if (overlayLength < 1 || overlayLength > WIDTH || underlayLength < 1 || underlayLength > WIDTH) return -1;
  const containerBits = WIDTH - overlayLength - (WIDTH - underlayLength);
  if (containerBits < MIN_CONTAINER_BITS) return -1;

  const overlayMask = -1 << (WIDTH - overlayLength);
  const underlayMask = -1 << (WIDTH - underlayLength);
  const mapping = abi.MAPPINGS + count * abi.MAPPING_SIZE;
  clear(memory, mapping, abi.MAPPING_SIZE);
  storeI32(memory, mapping + abi.MAPPING_OVERLAY, overlay & overlayMask);
  storeI32(memory, mapping + abi.MAPPING_OVERLAY_MASK, overlayMask);
  storeI32(memory, mapping + abi.MAPPING_UNDERLAY, underlay & underlayMask);
  storeI32(memory, mapping + abi.MAPPING_UNDERLAY_MASK, underlayMask);
  storeI32(memory, mapping + abi.MAPPING_VM_MASK, ~underlayMask);
  storeI32(memory, mapping + abi.MAPPING_CONTAINER_BITS, containerBits);
  storeI32(memory, mapping + abi.MAPPING_INDEX_MASK, -1 >>> (WIDTH - containerBits));
  storeI32(memory, abi.CONFIG + abi.CONFIG_MAPPINGS, count + 1);
  return count + 1;
}

/** The first mapping that covers the overlay address, as the record's place in memory; 0 if none does. */
export function findMapping(memory: Memory, address: number): number {
  const end = abi.MAPPINGS + loadI32(memory, abi.CONFIG + abi.CONFIG_MAPPINGS) * abi.MAPPING_SIZE;
  for (let mapping = abi.MAPPINGS; mapping < end; mapping += abi.MAPPING_SIZE) {
    const overlayMask = loadI32(memory, mapping + abi.MAPPING_OVERLAY_MASK);
    if ((address & overlayMask) === loadI32(memory, mapping + abi.MAPPING_OVERLAY)) return mapping;
  }
  return 0;
}

/** The underlay address of the VM whose slice holds the overlay address, which `mapping` covers; a signed number. */
export function vmIn(memory: Memory, mapping: number, address: number): number {
  const containerBits = loadI32(memory, mapping + abi.MAPPING_CONTAINER_BITS);
  const vmMask = loadI32(memory, mapping + abi.MAPPING_VM_MASK);
  return loadI32(memory, mapping + abi.MAPPING_UNDERLAY) | ((address >>> containerBits) & vmMask);
}

/** Whether the index of the overlay address, which `mapping` covers, is 0 or all ones: nobody's. */
export function isReserved(memory: Memory, mapping: number, address: number): boolean {
  const indexMask = loadI32(memory, mapping + abi.MAPPING_INDEX_MASK);
  const index = address & indexMask;
  return index === 0 || index === indexMask;
}

/** The underlay address of the VM whose slice holds the overlay address, a signed number; 0 if no mapping covers it. */
export function vmOf(memory: Memory, address: number): number {
  const mapping = findMapping(memory, address);
  return mapping === 0 ? 0 : vmIn(memory, mapping, address);
}

/** As `vmOf`, but 0 also for an index that is nobody's: the VM that alone may send from the overlay address. */
export function senderOf(memory: Memory, address: number): number {
  const mapping = findMapping(memory, address);
  return mapping === 0 || isReserved(memory, mapping, address) ? 0 : vmIn(memory, mapping, address);
}

/** Whether the underlay address lies in the underlay prefix of any mapping. */
export function isUnderlay(memory: Memory, address: number): boolean {
  const end = abi.MAPPINGS + loadI32(memory, abi.CONFIG + abi.CONFIG_MAPPINGS) * abi.MAPPING_SIZE;
  for (let mapping = abi.MAPPINGS; mapping < end; mapping += abi.MAPPING_SIZE) {
    const underlayMask = loadI32(memory, mapping + abi.MAPPING_UNDERLAY_MASK);
    if ((address & underlayMask) === loadI32(memory, mapping + abi.MAPPING_UNDERLAY)) return true;
  }
  return false;
}
