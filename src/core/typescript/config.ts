/** What `configure` and `attach` are told, kept in memory where every host can see it (docs/abi.md). */
import * as abi from '../abi.ts';
import { clear, loadI32, type Memory, storeI32 } from './bytes.ts';

/** All OFFLOAD_ bits. */
const OFFLOADS = abi.OFFLOAD_VIRTIO | abi.OFFLOAD_UDP_SEGMENT | abi.OFFLOAD_UDP_MERGE | abi.OFFLOAD_GRE_SEGMENT;
const WORD = 2 ** 32;

/** Sets everything but what `attach` was told anew; no mapping is left. */
export function configure(
  memory: Memory,
  local: number,
  keyed: number,
  key: number,
  ttl: number,
  encapsulation: number,
  mtu: number,
): void {
  // What `attach` was told lies between.
  clear(memory, abi.CONFIG, abi.CONFIG_OFFLOADS);
  clear(memory, abi.CONFIG + abi.CONFIG_MTU, abi.CONFIG_SIZE - abi.CONFIG_MTU);
  storeI32(memory, abi.CONFIG + abi.CONFIG_LOCAL, local);
  storeI32(memory, abi.CONFIG + abi.CONFIG_KEYED, keyed === 0 ? 0 : 1);
  storeI32(memory, abi.CONFIG + abi.CONFIG_KEY, keyed === 0 ? 0 : key);
  storeI32(memory, abi.CONFIG + abi.CONFIG_TTL, ttl & 0xff);
  const isUdp = encapsulation === abi.ENCAPSULATION_GRE_UDP;
  storeI32(memory, abi.CONFIG + abi.CONFIG_ENCAPSULATION, isUdp ? abi.ENCAPSULATION_GRE_UDP : abi.ENCAPSULATION_GRE);
  storeI32(memory, abi.CONFIG + abi.CONFIG_MTU, mtu);
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

/** Whether packets carry the key: 0 or 1. */
export function isKeyed(memory: Memory): number {
  return loadI32(memory, abi.CONFIG + abi.CONFIG_KEYED);
}

/** The key, as a signed number. */
export function configuredKey(memory: Memory): number {
  return loadI32(memory, abi.CONFIG + abi.CONFIG_KEY);
}

/** The time to live of outer packets. */
export function configuredTtl(memory: Memory): number {
  return loadI32(memory, abi.CONFIG + abi.CONFIG_TTL);
}

/** Bytes of the longest inner packet that fits the underlay, as it was told: any signed number. */
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
