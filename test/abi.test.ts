/** The Wasm modules are what docs/abi.md says: no imports, own fixed memory, the layout exported; and it lists what there is. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { DROP_REASONS } from '../src/core/verdict.ts';

const root = new URL('../', import.meta.url);
const asconfig = JSON.parse(readFileSync(new URL('asconfig.json', root), 'utf8'));
const documented = readFileSync(new URL('docs/abi.md', root), 'utf8');

const layout = new Map(Object.entries(abi));

/** Bytes that each module may have: a bound that a careless import of the runtime would break. */
const SIZE_BUDGET = 8192;

describe.each(['core.wasm', 'core-scalar.wasm'])('%s', (file) => {
  const bytes = readFileSync(new URL(`build/${file}`, root));
  const module = new WebAssembly.Module(bytes);
  const exports = new WebAssembly.Instance(module).exports as Record<string, unknown>;

  test('imports nothing', () => {
    expect(WebAssembly.Module.imports(module)).toEqual([]);
  });

  test('exports the functions, the memory and nothing else but the layout', () => {
    const names = Object.keys(exports).filter((name) => !(exports[name] instanceof WebAssembly.Global));
    expect(names.sort()).toEqual(['addMapping', 'configure', 'decapsulate', 'encapsulate', 'expire', 'memory', 'vmOf']);
  });

  test('exports the layout of abi.ts', () => {
    const globals = Object.entries(exports).filter(
      (e): e is [string, WebAssembly.Global] => e[1] instanceof WebAssembly.Global,
    );
    expect(globals.length).toBeGreaterThan(10);
    for (const [name, global] of globals) expect([name, global.value]).toEqual([name, layout.get(name)]);
  });

  test('has memory of fixed size', () => {
    const memory = exports['memory'] as WebAssembly.Memory;
    expect(memory.buffer.byteLength).toBe(abi.MEMORY_SIZE);
    expect(() => memory.grow(1)).toThrow(RangeError);
  });

  test('is small', () => {
    expect(bytes.length).toBeLessThan(SIZE_BUDGET);
  });
});

test('asconfig.json asks for as much memory as the layout needs', () => {
  const { initialMemory, maximumMemory } = asconfig.options;
  expect([initialMemory, maximumMemory]).toEqual([abi.MEMORY_PAGES, abi.MEMORY_PAGES]);
  expect(abi.SLOTS + abi.BATCH_SIZE * abi.SLOT_SIZE).toBeLessThanOrEqual(abi.MEMORY_SIZE);
});

test('the regions follow each other without overlap', () => {
  const regions = [
    [abi.CONFIG, abi.CONFIG_SIZE],
    [abi.MAPPINGS, abi.MAPPING_SIZE * abi.MAX_MAPPINGS],
    [abi.OUTBOUND_COUNTERS, abi.COUNTERS_SIZE],
    [abi.INBOUND_COUNTERS, abi.COUNTERS_SIZE],
    [abi.CHANGES, abi.CHANGES_SIZE],
    [abi.DESCRIPTORS, abi.DESCRIPTOR_SIZE * abi.BATCH_SIZE],
    [abi.TUNNEL_KEYS, 4 * abi.TUNNEL_CAPACITY],
    [abi.TUNNELS, abi.TUNNEL_SIZE * abi.TUNNEL_CAPACITY],
    [abi.SLOTS, abi.SLOT_SIZE * abi.BATCH_SIZE],
  ] as const;
  for (const [i, [start]] of regions.entries()) {
    expect(start % 8).toBe(0);
    const [before, size] = regions[i - 1] ?? [0, 0];
    expect(start).toBeGreaterThanOrEqual(before + size);
  }
});

test('every drop reason has a verdict, a name and a meaning of its own', () => {
  expect(DROP_REASONS.map((r) => r.verdict)).toEqual(DROP_REASONS.map((_, i) => -1 - i));
  expect(DROP_REASONS.length).toBe(abi.VERDICTS - 1);
  expect(new Set(DROP_REASONS.map((r) => r.name)).size).toBe(DROP_REASONS.length);
  const constants = Object.entries(abi).filter(([name]) => name.startsWith('DROP_'));
  expect(constants.map(([name, value]) => [name.slice(5).toLowerCase().replaceAll('_', '-'), value])).toEqual(
    DROP_REASONS.map((r) => [r.name, r.verdict]),
  );
});

test('docs/abi.md has every exported constant', () => {
  const bytes = readFileSync(new URL('build/core.wasm', root));
  const names = WebAssembly.Module.exports(new WebAssembly.Module(bytes)).map((e) => e.name);
  expect(names.filter((name) => !documented.includes(name))).toEqual([]);
});

test('docs/abi.md explains every drop reason', () => {
  const rows = DROP_REASONS.map((r) => `| ${r.verdict} | \`${r.name}\` | ${r.meaning} |`);
  expect(rows.filter((row) => !documented.includes(row))).toEqual([]);
});
