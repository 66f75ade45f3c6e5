/**
 * Overlay address to underlay address, computed: the bits that vary between VMs are copied from one into the other.
 * Compare 6rd (RFC 5969 §4), which carries an IPv4 address in an IPv6 prefix the same way.
 */
import {
  MAPPING_CONTAINER_BITS,
  MAPPING_FIRST_VM,
  MAPPING_INDEX_MASK,
  MAPPING_OVERLAY,
  MAPPING_OVERLAY_MASK,
  MAPPING_SIZE,
  MAPPING_UNDERLAY,
  MAPPING_VM_MASK,
  MAPPING_VMS,
  MAPPINGS,
  MAX_MAPPINGS,
} from '../src/core/abi';
import { mappingCount, setMappingCount } from './config';

const WIDTH: i32 = 32;
/** Index 0 is the slice itself and all ones is kept free: fewer bits would leave no container. */
const MIN_CONTAINER_BITS: i32 = 2;
/** With fewer bits between VMs, an underlay prefix has no network and broadcast address, which no VM can have (RFC 1122 §3.2.1.3, RFC 3021). */
const MIN_BROADCAST_BITS: i32 = 2;

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
  store<u32>(m + MAPPING_VM_MASK, vmMask);
  store<u32>(m + MAPPING_CONTAINER_BITS, <u32>containerBits);
  store<u32>(m + MAPPING_INDEX_MASK, lowBits(containerBits));
  const hasBroadcast = vmBits >= MIN_BROADCAST_BITS;
  // The last slice of all holds 255.255.255.255, which no host can have.
  const hasLast = !hasBroadcast && (overlay | ~overlayMask) !== 0xffffffff;
  store<u32>(m + MAPPING_FIRST_VM, (underlay & ~vmMask) | (hasBroadcast ? 1 : 0));
  store<u32>(m + MAPPING_VMS, hasBroadcast ? vmMask - 1 : vmMask + (hasLast ? 1 : 0));
  setMappingCount(count + 1);
  return count + 1;
}

/** The mapping whose overlay prefix holds `address`, or 0, where memory is unused and 0: nobody can have an address by that. */
export function findMapping(address: u32): usize {
  const end = at(mappingCount());
  for (let m = at(0); m < end; m += MAPPING_SIZE) {
    if ((address & load<u32>(m + MAPPING_OVERLAY_MASK)) === load<u32>(m + MAPPING_OVERLAY)) return m;
  }
  return 0;
}

/** The underlay address of the VM that `address`, which mapping `m` covers, carries; 0 if `m` is 0. */
export function vmIn(m: usize, address: u32): u32 {
  const vm = (address >> load<u32>(m + MAPPING_CONTAINER_BITS)) & load<u32>(m + MAPPING_VM_MASK);
  return load<u32>(m + MAPPING_UNDERLAY) | vm;
}

/** The underlay address of the VM whose slice holds `address`; 0 if no mapping covers it. */
export function vmOf(address: u32): u32 {
  return vmIn(findMapping(address), address);
}

/** True if `address` under mapping `m`, which is in the slice of `vm`, is nobody's: the slice itself, all ones, or of an address that no VM can have. */
export function isReserved(m: usize, address: u32, vm: u32): bool {
  // An index of all ones is 0 when 1 is added, that of the slice itself is 1.
  const isKept = ((address + 1) & load<u32>(m + MAPPING_INDEX_MASK)) <= 1 ? 1 : 0;
  return (isKept | (canBeVm(m, vm) ? 0 : 1)) !== 0;
}

/** Whether mapping `m` allows a VM to have this underlay address. */
function canBeVm(m: usize, vm: u32): bool {
  return vm - load<u32>(m + MAPPING_FIRST_VM) < load<u32>(m + MAPPING_VMS);
}

/** The overlay address of the VM in whose slice `address` is; only if a mapping covers it. */
export function vmAddress(address: u32): u32 {
  return (address & ~load<u32>(findMapping(address) + MAPPING_INDEX_MASK)) | 1;
}

/** The VM on which the owner of `address` lives; 0 if `address` can be nobody's. */
export function senderOf(address: u32): u32 {
  const m = findMapping(address);
  const vm = vmIn(m, address);
  return isReserved(m, address, vm) ? 0 : vm;
}

/** True if a VM can have the underlay address `address`, by any of the mappings. */
export function isUnderlay(address: u32): bool {
  const end = at(mappingCount());
  for (let m = at(0); m < end; m += MAPPING_SIZE) {
    if (canBeVm(m, address)) return true;
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
