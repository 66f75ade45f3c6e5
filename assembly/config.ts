/** What `configure` was told, kept in memory where every host can see it. */
import { CONFIG, CONFIG_KEY, CONFIG_KEYED, CONFIG_LOCAL, CONFIG_MAPPINGS, CONFIG_TTL } from '../src/core/abi';

export function setConfig(local: u32, isKeyed: bool, newKey: u32, newTtl: u32): void {
  store<u32>(CONFIG + CONFIG_LOCAL, local);
  store<u32>(CONFIG + CONFIG_KEYED, <u32>isKeyed);
  store<u32>(CONFIG + CONFIG_KEY, isKeyed ? newKey : 0);
  store<u32>(CONFIG + CONFIG_TTL, newTtl & 0xff);
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
