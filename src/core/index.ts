/** The packet core for any JavaScript host: `wasmCore(module)`, or `typescriptCore()` where WebAssembly is not to be had. */
export * as abi from './abi.ts';
export type { CoreConfig, CoreName, Direction, DirectionCounters, Tunnel } from './core.ts';
export { overhead, PacketCore, tunnelsFrom } from './core.ts';
export { typescriptCore } from './typescript/index.ts';
export { DROP_REASONS, verdictName } from './verdict.ts';
export { wasmCore } from './wasm.ts';
