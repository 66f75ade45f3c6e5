/** What `configure` and `attach` are told, kept in memory where every host can see it (docs/abi.md). */
import * as abi from '../abi.ts';
import { clear, loadI32, type Memory, storeI32 } from './bytes.ts';

/** All OPTION_ bits. */
const OPTIONS =
  abi.OPTION_KEY |
  abi.OPTION_CHECKSUM |
  abi.OPTION_SEQUENCE |
  abi.OPTION_TTL_INHERIT |
  abi.OPTION_ECN_COMPATIBILITY |
  abi.OPTION_DSCP_UNIFORM |
  abi.OPTION_MAY_FRAGMENT |
  abi.OPTION_CLAMP_MSS;
/** All OFFLOAD_ bits. */
const OFFLOADS = abi.OFFLOAD_VIRTIO | abi.OFFLOAD_UDP_SEGMENT | abi.OFFLOAD_UDP_MERGE | abi.OFFLOAD_GRE_SEGMENT;
const WORD = 2 ** 32;

/** Sets everything but what `attach` was told and the MTU anew; no mapping is left. */
export function configure(
  memory: Memory,
  local: number,
  options: number,
  key: number,
  ttl: number,
  dscp: number,
  encapsulation: number,
): void {
  // What `attach` was told lies between.
  clear(memory, abi.CONFIG, abi.CONFIG_OFFLOADS);
  clear(memory, abi.CONFIG + abi.CONFIG_MTU, abi.CONFIG_SIZE - abi.CONFIG_MTU);
  storeI32(memory, abi.CONFIG + abi.CONFIG_LOCAL, local);
  storeI32(memory, abi.CONFIG + abi.CONFIG_OPTIONS, options & OPTIONS);
  storeI32(memory, abi.CONFIG + abi.CONFIG_KEY, (options & abi.OPTION_KEY) === 0 ? 0 : key);
  storeI32(memory, abi.CONFIG + abi.CONFIG_TTL, ttl & 0xff);
  const isUdp = encapsulation === abi.ENCAPSULATION_GRE_UDP;
  storeI32(memory, abi.CONFIG + abi.CONFIG_ENCAPSULATION, isUdp ? abi.ENCAPSULATION_GRE_UDP : abi.ENCAPSULATION_GRE);
  storeI32(memory, abi.CONFIG + abi.CONFIG_DSCP, dscp & 0x3f);
}

/** Sets what the host's devices can do. `base` is an integer below 2^53; it is split here, once, into two words. */
export function configureDevices(memory: Memory, base: number, offloads: number, ports: number): void {
  storeI32(memory, abi.CONFIG + abi.CONFIG_OFFLOADS, offloads & OFFLOADS);
  storeI32(memory, abi.CONFIG + abi.CONFIG_PORTS, Math.min(Math.max(ports, 1), abi.MAX_PORTS));
  storeI32(memory, abi.CONFIG + abi.CONFIG_BASE, base % WORD);
  storeI32(memory, abi.CONFIG + abi.CONFIG_BASE + 4, Math.floor(base / WORD));
}

/** This VM's underlay address, as a signed number. */
export function localVm(memory: Memory): number {
  return loadI32(memory, abi.CONFIG + abi.CONFIG_LOCAL);
}

/** The OPTION_ bits. */
export function configuredOptions(memory: Memory): number {
  return loadI32(memory, abi.CONFIG + abi.CONFIG_OPTIONS);
}

/** The key, as a signed number; 0 without OPTION_KEY. */
export function configuredKey(memory: Memory): number {
  return loadI32(memory, abi.CONFIG + abi.CONFIG_KEY);
}

/** The time to live of outer packets, unless it is the inner one. */
export function configuredTtl(memory: Memory): number {
  return loadI32(memory, abi.CONFIG + abi.CONFIG_TTL);
}

/** The DSCP of outer packets, unless it is the inner one. */
export function configuredDscp(memory: Memory): number {
  return loadI32(memory, abi.CONFIG + abi.CONFIG_DSCP);
}

/** Bytes of the longest inner packet that fits the underlay. */
export function configuredMtu(memory: Memory): number {
  return loadI32(memory, abi.CONFIG + abi.CONFIG_MTU);
}

/** Whether the outer format is GRE-in-UDP (RFC 8086). */
export function isGreUdp(memory: Memory): boolean {
  return loadI32(memory, abi.CONFIG + abi.CONFIG_ENCAPSULATION) === abi.ENCAPSULATION_GRE_UDP;
}

/** Whether the host's devices can do what the OFFLOAD_ bit says. */
export function hasOffload(memory: Memory, offload: number): boolean {
  return (loadI32(memory, abi.CONFIG + abi.CONFIG_OFFLOADS) & offload) !== 0;
}
