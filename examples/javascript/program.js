/** What the programs of Node, Deno and Bun have in common: their command line, and which core they use. */
import { createCore } from 'inlay/core';
import { typescriptCore } from 'inlay/core/typescript';
import { bench } from './bench.js';
import { forwarded } from './forward.js';
import { answersTo } from './vectors.js';

const USAGE = `usage: PROGRAM CORE encapsulate|decapsulate LOCAL OVERLAY UNDERLAY IN.pcap OUT.pcap
       PROGRAM CORE vectors IN.txt
       PROGRAM CORE bench
CORE is a file such as core.wasm, or: wasm, what the package brings; typescript, the twin that needs no WebAssembly`;

/** How many words follow a mode. @type {Record<string, number>} */
const WORDS = { encapsulate: 5, decapsulate: 5, vectors: 1, bench: 0 };

/**
 * @typedef {object} Files how the host reads and writes files
 * @property {(name: string) => Promise<Uint8Array>} read
 * @property {(name: string, bytes: Uint8Array) => Promise<unknown>} write
 */

/**
 * Does what the words of a command line say. Returns what is to be printed; throws if that cannot be done.
 * @param {string[]} words
 * @param {Files} files
 * @returns {Promise<string>}
 */
export async function run([core = '', mode = '', ...rest], files) {
  if (rest.length !== WORDS[mode]) throw new Error(USAGE);
  const makeCore = await coreMaker(core, files);
  if (mode === 'bench') return bench(makeCore);
  if (mode === 'vectors') {
    const [name = ''] = rest;
    return answersTo(new TextDecoder().decode(await files.read(name)), makeCore, name);
  }
  const [local = '', overlay = '', underlay = '', input = '', output = ''] = rest;
  const direction = mode === 'encapsulate' ? mode : 'decapsulate';
  const { pcap, counters } = await forwarded(
    await makeCore(),
    direction,
    { local, overlay, underlay },
    await files.read(input),
    input,
  );
  await files.write(output, pcap);
  return counters;
}

/**
 * What makes cores: each has a memory of its own.
 * @param {string} name
 * @param {Files} files
 * @returns {Promise<() => Promise<import('inlay/core').PacketCore>>}
 */
async function coreMaker(name, files) {
  if (name === 'typescript') return async () => typescriptCore();
  if (name === 'wasm') return () => createCore();
  const module = await WebAssembly.compile(/** @type {BufferSource} */ (await files.read(name)));
  return () => createCore(module);
}
