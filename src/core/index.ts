/** The packet core for any JavaScript host: no imports from it, nothing native. docs/embedding.md is its guide. */
export * as abi from './abi.ts';
export { ipv4, ipv4Text, type Mapping, mapping } from './address.ts';
export { type CoreConfig, type CoreDevices, type Encapsulation, overhead } from './config.ts';
export { type CoreName, PacketCore } from './core.ts';
export type { Direction, DirectionCounters } from './counters.ts';
export { type CoreSource, createCore, hasSimd } from './create.ts';
export type { Messages } from './messages.ts';
export { type Tunnel, type TunnelState, type Tunnels, tunnelsFrom } from './tunnels.ts';
export { DROP_REASONS, type DropReason, dropReason, verdictName } from './verdict.ts';
export { wasmCore } from './wasm.ts';
