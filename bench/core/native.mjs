/**
 * The module's measure: bench/native, the outbound half of the core in plain C, built with gcc -O2. It works on the core's memory as
 * docs/abi.md describes it, so whatever makes a core ready makes it ready, too.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { abi } from 'inlay/core';

const SOURCES = fileURLToPath(new URL('../native/', import.meta.url));
const BUILD = fileURLToPath(new URL('../../build/native/', import.meta.url));
const FLAGS = ['-O2', '-Wall', '-Wextra', '-Werror', '-shared', '-fPIC'];

/** Why there is no native core here, or undefined. */
export function whyNotNative() {
  return spawnSync('gcc', ['--version']).status === 0 ? undefined : 'native C is left out: no gcc (Debian: gcc)';
}

/** Builds the C; returns its `encapsulate(first, count, now)` on this memory. */
export async function nativeEncapsulate(memory) {
  mkdirSync(BUILD, { recursive: true });
  const constants = Object.entries(abi).map(
    ([name, value]) => `#define ${name} (${value}${value > 0x7fffffff ? 'u' : ''})\n`,
  );
  writeFileSync(`${BUILD}abi.h`, constants.join(''));
  const library = `${BUILD}outbound.so`;
  execFileSync('gcc', [...FLAGS, `-I${BUILD}`, '-o', library, `${SOURCES}outbound.c`], { stdio: ['ignore', 2, 2] });
  const { default: koffi } = await import('koffi');
  const run = koffi.load(library).func('int encapsulate(void *memory, int first, int count, double now)');
  return (first, count, now) => run(memory, first, count, now);
}
