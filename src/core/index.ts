/** The packet core for any JavaScript host: `wasmCore(module)`, or `typescriptCore()` where WebAssembly is not to be had. */
export * as abi from './abi.ts';
export type { CoreConfig, CoreDevices, CoreName, Direction, DirectionCounters, Encapsulation } from './core.ts';
export { overhead, PacketCore } from './core.ts';
export { type Tunnel, tunnelsFrom } from './tunnels.ts';
export { typescriptCore } from './typescript/index.ts';
export { DROP_REASONS, verdictName } from './verdict.ts';
export { wasmCore } from './wasm.ts';
