/** What a host tells its core. */
import * as abi from './abi.ts';
import type { Mapping } from './address.ts';

/** What packets look like on the underlay: IP protocol 47 (RFC 2784), or UDP port 4754 (RFC 8086). */
export type Encapsulation = 'gre' | 'gre-udp';

/** Outer time to live, unless a core is told another. */
export const DEFAULT_TTL = 64;

/** Bytes that the underlay takes, unless a core is told another MTU. */
export const ETHERNET_MTU = 1500;

/** Which mappings the core takes (docs/abi.md, addMapping). */
export const MAPPING_RULES = `expected up to ${abi.MAX_MAPPINGS}, 2 or more container bits, no overlay in 0/8, 127/8 or 224/4`;

/** What adds to the outer headers. */
export interface GreOptions {
  /** GRE key of all packets, out and in. */
  key?: number | undefined;
  /** Whether outbound packets carry a GRE checksum. */
  greChecksum?: boolean;
  /** Whether packets carry sequence numbers, and those that do not or come out of order are dropped. */
  greSequence?: boolean;
}

/** What a VM tells its core. Addresses are u32 numbers. */
export interface CoreConfig extends GreOptions {
  local: number;
  /** Outer time to live; DEFAULT_TTL unless given. */
  ttl?: number | 'inherit';
  /** Outer ECN field: the inner one ('normal') unless given, or Not-ECT ('compatibility'; RFC 6040 §4.1). */
  ecn?: 'normal' | 'compatibility';
  /** Outer DSCP; 0 unless given. With 'uniform' it is the inner one, and back (RFC 2983 §3.1). */
  dscp?: number | 'uniform';
  /** Whether outer packets have don't-fragment set, so that routers report those that are too large; true unless given. */
  pathMtuDiscovery?: boolean;
  /** Whether TCP's maximum segment size is lowered to what fits the tunnel; false unless given. */
  clampMss?: boolean;
  /** Bytes of the longest inner packet that fits the underlay; 1,500 less the overhead unless given. */
  mtu?: number;
  /** 'gre' unless given. */
  encapsulation?: Encapsulation;
  mappings: readonly Mapping[];
}

/** What the host's devices can do. */
export interface CoreDevices {
  /** Address of the core's memory in this process, for a host that hands messages to the kernel; 0 unless given. */
  base?: number;
  /** OFFLOAD_ bits; none unless given. */
  offloads?: number;
  /** Source ports of GRE-in-UDP; 1 unless given. */
  ports?: number;
}

/** OPTION_ bits. */
export function optionsOf(config: CoreConfig): number {
  return (
    (config.key === undefined ? 0 : abi.OPTION_KEY) |
    (config.greChecksum ? abi.OPTION_CHECKSUM : 0) |
    (config.greSequence ? abi.OPTION_SEQUENCE : 0) |
    (config.ttl === 'inherit' ? abi.OPTION_TTL_INHERIT : 0) |
    (config.ecn === 'compatibility' ? abi.OPTION_ECN_COMPATIBILITY : 0) |
    (config.dscp === 'uniform' ? abi.OPTION_DSCP_UNIFORM : 0) |
    (config.pathMtuDiscovery === false ? abi.OPTION_MAY_FRAGMENT : 0) |
    (config.clampMss ? abi.OPTION_CLAMP_MSS : 0)
  );
}

/** Bytes that encapsulation adds to a packet: outer IPv4 header (20), UDP (8) for gre-udp, GRE (4), and 4 for each of its options. */
export function overhead(encapsulation: Encapsulation, { key, greChecksum, greSequence }: GreOptions): number {
  const options = (key === undefined ? 0 : 1) + (greChecksum ? 1 : 0) + (greSequence ? 1 : 0);
  return 24 + (encapsulation === 'gre-udp' ? 8 : 0) + 4 * options;
}
