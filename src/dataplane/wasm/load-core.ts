/** Loads a core from this package's files. */
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import type { CoreName, PacketCore } from '../../core/core.ts';
import { typescriptCore } from '../../core/typescript/index.ts';
import { wasmCore } from '../../core/wasm.ts';
import { errorCode, InlayError } from '../../errors.ts';

export function loadCore(name: CoreName): PacketCore {
  return name === 'wasm' ? wasmCore(loadModule()) : typescriptCore();
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
