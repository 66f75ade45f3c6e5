/**
 * Overlay address to underlay address, computed: the bits that vary between VMs are copied from one into the other.
 * Compare 6rd (RFC 5969 §4), which carries an IPv4 address in an IPv6 prefix the same way.
 */
import {
  MAPPING_CONTAINER_BITS,
  MAPPING_INDEX_MASK,
  MAPPING_OVERLAY,
  MAPPING_OVERLAY_MASK,
  MAPPING_SIZE,
  MAPPING_UNDERLAY,
  MAPPING_UNDERLAY_MASK,
  MAPPING_VM_MASK,
  MAPPINGS,
  MAX_MAPPINGS,
} from '../src/core/abi';
import { mappingCount, setMappingCount } from './config';

const WIDTH: i32 = 32;
/** Index 0 is the slice itself and all ones is kept free: fewer bits would leave no container. */
const MIN_CONTAINER_BITS: i32 = 2;

/** Adds a mapping; answers the number of mappings, or -1 if it does not fit. */
export function addMapping(overlay: u32, overlayLength: i32, underlay: u32, underlayLength: i32): i32 {
  const count = mappingCount();
  if (count >= MAX_MAPPINGS) return -1;
  if (overlayLength < 1 || overlayLength > WIDTH || underlayLength < 1 || underlayLength > WIDTH) return -1;
  const vmBits = WIDTH - underlayLength;
  const containerBits = WIDTH - overlayLength - vmBits;
  if (containerBits < MIN_CONTAINER_BITS) return -1;
  const overlayMask = ~lowBits(WIDTH - overlayLength);
  if (overlaps(overlay, overlayMask, 0, 0xff000000)) return -1; // 0.0.0.0/8: this network
  if (overlaps(overlay, overlayMask, 0x7f000000, 0xff000000)) return -1; // 127.0.0.0/8: loopback
  if (overlaps(overlay, overlayMask, 0xe0000000, 0xf0000000)) return -1; // 224.0.0.0/4: multicast
  const vmMask = lowBits(vmBits);
  const m = at(count);
  memory.fill(m, 0, MAPPING_SIZE);
  store<u32>(m + MAPPING_OVERLAY, overlay & overlayMask);
  store<u32>(m + MAPPING_OVERLAY_MASK, overlayMask);
  store<u32>(m + MAPPING_UNDERLAY, underlay & ~vmMask);
  store<u32>(m + MAPPING_UNDERLAY_MASK, ~vmMask);
  store<u32>(m + MAPPING_VM_MASK, vmMask);
  store<u32>(m + MAPPING_CONTAINER_BITS, <u32>containerBits);
  store<u32>(m + MAPPING_INDEX_MASK, lowBits(containerBits));
  setMappingCount(count + 1);
  return count + 1;
}

/** The mapping whose overlay prefix holds `address`, or 0. */
export function findMapping(address: u32): usize {
  const end = at(mappingCount());
  for (let m = at(0); m < end; m += MAPPING_SIZE) {
    if ((address & load<u32>(m + MAPPING_OVERLAY_MASK)) === load<u32>(m + MAPPING_OVERLAY)) return m;
  }
  return 0;
}

/** The underlay address of the VM that `address`, which mapping `m` covers, carries; 0 if `m` is 0. */
export function vmIn(m: usize, address: u32): u32 {
  if (m === 0) return 0;
  const vm = (address >> load<u32>(m + MAPPING_CONTAINER_BITS)) & load<u32>(m + MAPPING_VM_MASK);
  return load<u32>(m + MAPPING_UNDERLAY) | vm;
}

/** The underlay address of the VM whose slice holds `address`; 0 if no mapping covers it. */
export function vmOf(address: u32): u32 {
  return vmIn(findMapping(address), address);
}

/** True if `address` under mapping `m` is nobody's: the slice itself, all ones, or in the slice that 255.255.255.255 would be in. */
export function isReserved(m: usize, address: u32): bool {
  const mask = load<u32>(m + MAPPING_INDEX_MASK);
  // An index of all ones is 0 when 1 is added, that of the slice itself is 1.
  return ((address + 1) & mask) <= 1 || (address | mask) === 0xffffffff;
}

/** The overlay address of the VM in whose slice `address` is; only if a mapping covers it. */
export function vmAddress(address: u32): u32 {
  return (address & ~load<u32>(findMapping(address) + MAPPING_INDEX_MASK)) | 1;
}

/** The VM on which the owner of `address` lives; 0 if `address` can be nobody's. */
export function senderOf(address: u32): u32 {
  const m = findMapping(address);
  return m === 0 || isReserved(m, address) ? 0 : vmIn(m, address);
}

/** True if `address` is in the underlay prefix of a mapping. */
export function isUnderlay(address: u32): bool {
  const end = at(mappingCount());
  for (let m = at(0); m < end; m += MAPPING_SIZE) {
    if ((address & load<u32>(m + MAPPING_UNDERLAY_MASK)) === load<u32>(m + MAPPING_UNDERLAY)) return true;
  }
  return false;
}

function overlaps(prefix: u32, mask: u32, other: u32, otherMask: u32): bool {
  return ((prefix ^ other) & mask & otherMask) === 0;
}

function at(index: i32): usize {
  return <usize>(MAPPINGS + index * MAPPING_SIZE);
}

/** A number with its low `bits` bits set; `bits` is 0..31. */
function lowBits(bits: i32): u32 {
  return ((<u32>1) << bits) - 1;
}
