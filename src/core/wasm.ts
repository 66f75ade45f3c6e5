/** The core compiled from assembly/ to WebAssembly, for any JavaScript host. */
import { ABI_VERSION, MEMORY_SIZE } from './abi.ts';
import { type CoreFunctions, PacketCore } from './core.ts';

interface CoreExports extends CoreFunctions {
  memory: WebAssembly.Memory;
  ABI_VERSION: WebAssembly.Global;
}

/** Makes a core, with a memory of its own, from the module core.wasm or core-scalar.wasm; throws if it is another, or another version's. */
export function wasmCore(module: WebAssembly.Module): PacketCore {
  const exports = new WebAssembly.Instance(module).exports as unknown as Partial<CoreExports>;
  if (!isCore(exports)) throw new Error('the module is not a packet core');
  const [version, size] = [exports.ABI_VERSION.value, exports.memory.buffer.byteLength];
  if (version !== ABI_VERSION || size !== MEMORY_SIZE) {
    const expected = `expected ${ABI_VERSION} with ${MEMORY_SIZE}`;
    throw new Error(`the packet core has ABI version ${version} with ${size} bytes of memory, ${expected}`);
  }
  return new PacketCore('wasm', exports.memory.buffer, exports);
}

function isCore(exports: Partial<CoreExports>): exports is CoreExports {
  return exports.ABI_VERSION instanceof WebAssembly.Global && exports.memory instanceof WebAssembly.Memory;
}
