/** What `configure` and `attach` were told, kept in memory where every host can see it (docs/abi.md). */
import * as abi from '../abi.ts';
import { clear, loadU32, type Memory, storeU32 } from './bytes.ts';

/** All OFFLOAD_ bits. */
const KNOWN_OFFLOADS = abi.OFFLOAD_VIRTIO | abi.OFFLOAD_UDP_SEGMENT | abi.OFFLOAD_UDP_MERGE | abi.OFFLOAD_GRE_SEGMENT;
/** All OPTION_ bits. */
const KNOWN_OPTIONS =
  abi.OPTION_KEY |
  abi.OPTION_CHECKSUM |
  abi.OPTION_SEQUENCE |
  abi.OPTION_TTL_INHERIT |
  abi.OPTION_ECN_COMPATIBILITY |
  abi.OPTION_DSCP_UNIFORM |
  abi.OPTION_MAY_FRAGMENT |
  abi.OPTION_CLAMP_MSS;
const WORD = 2 ** 32;

/** Sets everything anew but what the devices can do, and the lengths, which `setLengths` is to set then; no mapping is left. */
export function setConfig(
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
  storeU32(memory, abi.CONFIG + abi.CONFIG_LOCAL, local);
  storeU32(memory, abi.CONFIG + abi.CONFIG_OPTIONS, options & KNOWN_OPTIONS);
  storeU32(memory, abi.CONFIG + abi.CONFIG_KEY, (options & abi.OPTION_KEY) === 0 ? 0 : key);
  storeU32(memory, abi.CONFIG + abi.CONFIG_TTL, ttl & 0xff);
  const isUdp = encapsulation === abi.ENCAPSULATION_GRE_UDP;
  storeU32(memory, abi.CONFIG + abi.CONFIG_ENCAPSULATION, isUdp ? abi.ENCAPSULATION_GRE_UDP : abi.ENCAPSULATION_GRE);
  storeU32(memory, abi.CONFIG + abi.CONFIG_DSCP, dscp & 0x3f);
}

/** Notes the bytes that the outer headers add, and those of the longest inner packet that fits the underlay. */
export function setLengths(memory: Memory, overhead: number, mtu: number): void {
  storeU32(memory, abi.CONFIG + abi.CONFIG_OVERHEAD, overhead);
  storeU32(memory, abi.CONFIG + abi.CONFIG_MTU, mtu);
}

/** Notes what the host's devices can do. `base` is an integer below 2^53. */
export function setDevices(memory: Memory, base: number, offloads: number, ports: number): void {
  storeU32(memory, abi.CONFIG + abi.CONFIG_BASE, base % WORD);
  storeU32(memory, abi.CONFIG + abi.CONFIG_BASE + 4, Math.floor(base / WORD));
  storeU32(memory, abi.CONFIG + abi.CONFIG_OFFLOADS, offloads & KNOWN_OFFLOADS);
  storeU32(memory, abi.CONFIG + abi.CONFIG_PORTS, Math.min(Math.max(ports, 1), abi.MAX_PORTS));
}

/** This VM's underlay address. */
export function local(memory: Memory): number {
  return loadU32(memory, abi.CONFIG + abi.CONFIG_LOCAL);
}

/** The OPTION_ bits. */
export function options(memory: Memory): number {
  return loadU32(memory, abi.CONFIG + abi.CONFIG_OPTIONS);
}

/** Whether at least one of these OPTION_ bits is set. */
export function hasOption(memory: Memory, option: number): boolean {
  return (options(memory) & option) !== 0;
}

/** The GRE key; 0 without OPTION_KEY. */
export function key(memory: Memory): number {
  return loadU32(memory, abi.CONFIG + abi.CONFIG_KEY);
}

/** Outer time to live, unless it is the inner one. */
export function ttl(memory: Memory): number {
  return loadU32(memory, abi.CONFIG + abi.CONFIG_TTL);
}

/** Outer DSCP, unless it is the inner one. */
export function dscp(memory: Memory): number {
  return loadU32(memory, abi.CONFIG + abi.CONFIG_DSCP);
}

/** Whether the outer format is GRE-in-UDP (RFC 8086), the outer IPv4 and UDP headers being the kernel's. */
export function isGreUdp(memory: Memory): boolean {
  return loadU32(memory, abi.CONFIG + abi.CONFIG_ENCAPSULATION) === abi.ENCAPSULATION_GRE_UDP;
}

/** Whether the host's devices can do what the OFFLOAD_ bit says. */
export function hasOffload(memory: Memory, offload: number): boolean {
  return (loadU32(memory, abi.CONFIG + abi.CONFIG_OFFLOADS) & offload) !== 0;
}

/** Source ports of GRE-in-UDP. */
export function ports(memory: Memory): number {
  return loadU32(memory, abi.CONFIG + abi.CONFIG_PORTS);
}

/** Bytes of the longest inner packet that fits the underlay. */
export function mtu(memory: Memory): number {
  return loadU32(memory, abi.CONFIG + abi.CONFIG_MTU);
}

/** Bytes that the outer headers add to a packet on the wire. */
export function overhead(memory: Memory): number {
  return loadU32(memory, abi.CONFIG + abi.CONFIG_OVERHEAD);
}

export function mappingCount(memory: Memory): number {
  return loadU32(memory, abi.CONFIG + abi.CONFIG_MAPPINGS);
}

export function setMappingCount(memory: Memory, count: number): void {
  storeU32(memory, abi.CONFIG + abi.CONFIG_MAPPINGS, count);
}
