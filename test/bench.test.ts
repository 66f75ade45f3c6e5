/** `npm run bench` measures cores that do the same: its programs run without measuring anything. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { missingCommands, skip } from './net/require.ts';

describe.skipIf(skip('bench', missingCommands('gcc')))('what is measured', () => {
  test('WebAssembly, TypeScript and C leave the same bytes in every case', () => {
    const program = fileURLToPath(new URL('../bench/core.mjs', import.meta.url));
    const said = execFileSync(process.execPath, [program], { env: { ...process.env, ROUNDS: '0' }, encoding: 'utf8' });
    expect(said).toMatch(/^wasm, wasm, scalar, typescript, native C: the same bytes in \d\d cases\n/);
  });
});
