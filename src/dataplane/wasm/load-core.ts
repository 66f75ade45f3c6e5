/** Loads a core from this package's files. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { CoreName, PacketCore } from '../../core/core.ts';
import { typescriptCore } from '../../core/typescript.ts';
import { wasmCore } from '../../core/wasm.ts';
import { errorCode, InlayError } from '../../errors.ts';

export function loadCore(name: CoreName): PacketCore {
  return name === 'wasm' ? wasmCore(loadModule()) : typescriptCore();
}

/** Why so many Wasm cores cannot be had at once; undefined if they can. Each memory takes gigabytes of address space, though hardly any memory. */
export function wasmObstacle(count: number): string | undefined {
  try {
    const memories = Array.from({ length: count }, () => new WebAssembly.Memory({ initial: 1, maximum: 1 }));
    return memories.length === count ? undefined : 'no memory';
  } catch (error) {
    return (error as Error).message;
  }
}

/** The SIMD build where this engine has SIMD, else the scalar one. */
function loadModule(): WebAssembly.Module {
  const simd = read('core.wasm');
  return new WebAssembly.Module(WebAssembly.validate(simd) ? simd : read('core-scalar.wasm'));
}

function read(file: string): BufferSource {
  const url = new URL(`../../../build/${file}`, import.meta.url);
  try {
    return new Uint8Array(readFileSync(url));
  } catch (cause) {
    const code = errorCode(cause);
    const [why, hint] = code === 'ENOENT' ? ['is missing', { hint: 'npm run build' }] : [`cannot be read: ${code}`, {}];
    throw new InlayError('ERR_FAILED', `${fileURLToPath(url)} ${why}`, { ...hint, cause });
  }
}
