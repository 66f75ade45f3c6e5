/** What `configure` was told, kept in memory where every host can see it. */
import { CONFIG, CONFIG_KEY, CONFIG_KEYED, CONFIG_LOCAL, CONFIG_MAPPINGS, CONFIG_TTL } from '../src/core/abi';

/** Sets everything anew; no mapping is left. */
export function configure(local: u32, keyed: i32, key: u32, ttl: u32): void {
  store<u32>(CONFIG + CONFIG_LOCAL, local);
  store<u32>(CONFIG + CONFIG_KEYED, keyed !== 0 ? 1 : 0);
  store<u32>(CONFIG + CONFIG_KEY, keyed !== 0 ? key : 0);
  store<u32>(CONFIG + CONFIG_TTL, ttl & 0xff);
  setMappingCount(0);
}

/** This VM's underlay address. */
export function local(): u32 {
  return load<u32>(CONFIG + CONFIG_LOCAL);
}

/** Whether packets carry a GRE key. */
export function keyed(): bool {
  return load<u32>(CONFIG + CONFIG_KEYED) !== 0;
}

export function key(): u32 {
  return load<u32>(CONFIG + CONFIG_KEY);
}

/** Outer time to live. */
export function ttl(): u32 {
  return load<u32>(CONFIG + CONFIG_TTL);
}

export function mappingCount(): i32 {
  return load<i32>(CONFIG + CONFIG_MAPPINGS);
}

export function setMappingCount(count: i32): void {
  store<i32>(CONFIG + CONFIG_MAPPINGS, count);
}
