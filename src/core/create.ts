/** A Wasm core from wherever its module is to be had, in any JavaScript host. */
import type { PacketCore } from './core.ts';
import { wasmCore } from './wasm.ts';

/** Where a module comes from: its bytes, an address (file:, http:, data:) or the answer to a request for it, or compiled already. */
export type CoreSource = BufferSource | URL | string | Response | WebAssembly.Module;

/** The smallest module that an engine without SIMD refuses: `() -> v128`, which splats and counts bits. */
const SIMD_MODULE = [
  ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0, 1, 5, 1, 0x60, 0, 1, 0x7b, 3, 2, 1, 0],
  ...[10, 10, 1, 8, 0, 0x41, 0, 0xfd, 15, 0xfd, 98, 11],
];

/** Whether this engine runs core.wasm; core-scalar.wasm runs in all. */
export function hasSimd(): boolean {
  return WebAssembly.validate(Uint8Array.from(SIMD_MODULE));
}

/**
 * Makes a core with a memory of its own; without a source, of this package's module, the one with SIMD where the engine has it. Rejects where the module
 * cannot be read, is not one (WebAssembly.CompileError), or has another ABI version.
 */
export async function createCore(source: CoreSource = ownModule()): Promise<PacketCore> {
  return wasmCore(await compile(source));
}

/** Each address is written out where bundlers look for assets. */
function ownModule(): URL {
  return hasSimd()
    ? new URL('../../build/core.wasm', import.meta.url)
    : new URL('../../build/core-scalar.wasm', import.meta.url);
}

async function compile(source: CoreSource): Promise<WebAssembly.Module> {
  if (source instanceof WebAssembly.Module) return source;
  if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return WebAssembly.compile(source);
  if (typeof source === 'string') return WebAssembly.compile(await read(addressOf(source)));
  return WebAssembly.compile(await (source instanceof URL ? read(source) : body(source)));
}

/** In a page, an address may be relative to it. */
function addressOf(text: string): URL {
  const page = globalThis.location?.href;
  if (URL.canParse(text, page)) return new URL(text, page);
  throw new TypeError(`"${text}" is no URL with a scheme, such as https: or file:`);
}

async function read(url: URL): Promise<BufferSource> {
  // Node's fetch does not read files. This is no import, so that other hosts need not know the name.
  const fs = url.protocol === 'file:' ? globalThis.process?.getBuiltinModule?.('node:fs/promises') : undefined;
  return fs ? new Uint8Array(await fs.readFile(url)) : body(await fetch(url));
}

async function body(response: Response): Promise<ArrayBuffer> {
  if (!response.ok) throw new Error(`${response.url}: HTTP status ${response.status}`);
  return response.arrayBuffer();
}
