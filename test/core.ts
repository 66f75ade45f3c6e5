/** Both twins, for the suites that run on each. */
import { readFileSync } from 'node:fs';
import { type CoreConfig, type PacketCore, typescriptCore, wasmCore } from '../src/core/index.ts';

const module = (file: string) => new WebAssembly.Module(readFileSync(new URL(`../build/${file}`, import.meta.url)));

export const cores: { name: string; make: () => PacketCore }[] = [
  { name: 'wasm', make: () => wasmCore(module('core.wasm')) },
  { name: 'wasm, scalar', make: () => wasmCore(module('core-scalar.wasm')) },
  { name: 'typescript', make: typescriptCore },
];

/** VM 192.168.16.32 of the mesh 10.0.0.0/8 over 192.168.0.0/16. */
export const config: CoreConfig = {
  local: 0xc0a81020,
  mappings: [{ overlay: 0x0a000000, overlayLength: 8, underlay: 0xc0a80000, underlayLength: 16 }],
};

export function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('hex');
}
