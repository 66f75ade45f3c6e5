/** The cores that are measured. A core's `encapsulate` and `decapsulate` are called as any host would. */
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { PacketCore, wasmCore } from 'inlay/core';
import { typescriptCore } from 'inlay/core/typescript';
import { nativeEncapsulate, whyNotNative } from './native.mjs';

const require = createRequire(import.meta.url);
const moduleOf = (name) => new WebAssembly.Module(readFileSync(require.resolve(name)));

/**
 * A core whose packets go through C. What is not measured of it, such as `configure`, is WebAssembly's: both work on the same memory.
 * The way from JavaScript into C costs more than the one into WebAssembly, so `empty` is measured beside it and subtracted.
 */
async function nativeCore() {
  const { exports } = new WebAssembly.Instance(moduleOf('inlay/core-scalar.wasm'));
  const memory = exports.memory.buffer;
  const encapsulate = await nativeEncapsulate(new Uint8Array(memory));
  const core = new PacketCore('wasm', memory, { ...exports, encapsulate });
  return { name: 'native C', core, isOutbound: true, empty: () => core.encapsulate(0, 0, 1) };
}

/** `isOutbound`: it can only encapsulate. */
export async function loadCores() {
  const cores = [
    { name: 'wasm', core: wasmCore(moduleOf('inlay/core.wasm')) },
    { name: 'wasm, scalar', core: wasmCore(moduleOf('inlay/core-scalar.wasm')) },
    { name: 'typescript', core: typescriptCore() },
  ];
  const missing = whyNotNative();
  if (missing) process.stdout.write(`${missing}\n`);
  else cores.push(await nativeCore());
  return cores;
}
