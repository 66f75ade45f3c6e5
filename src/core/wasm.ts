/** The core compiled from assembly/ to WebAssembly, for any JavaScript host. */
import { ABI_VERSION, MEMORY_SIZE } from './abi.ts';
import { type CoreFunctions, PacketCore } from './core.ts';

interface CoreExports extends CoreFunctions {
  memory: WebAssembly.Memory;
  ABI_VERSION: WebAssembly.Global;
}

/** Makes a core from the module build/core.wasm or build/core-scalar.wasm; each has its own memory. */
export function wasmCore(module: WebAssembly.Module): PacketCore {
  const exports = new WebAssembly.Instance(module).exports as unknown as CoreExports;
  const version = exports.ABI_VERSION.value;
  if (version !== ABI_VERSION || exports.memory.buffer.byteLength !== MEMORY_SIZE) {
    throw new Error(
      `core.wasm has ABI version ${version}, expected ${ABI_VERSION} with ${MEMORY_SIZE} bytes of memory`,
    );
  }
  return new PacketCore('wasm', exports.memory.buffer, exports);
}
