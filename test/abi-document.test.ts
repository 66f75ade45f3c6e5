/** docs/abi.md, docs/core.md and docs/core-state.md list what there is, all of it, with the right numbers, and nothing else. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import * as core from '../src/core/index.ts';
import { DROP_REASONS } from '../src/core/verdict.ts';
import {
  coreFunctions,
  fieldsInSource,
  functions,
  namesIn,
  numberOf,
  numbersIn,
  REFERENCE,
  records,
  regions,
  rowsOf,
  sectionsOf,
  signaturesInSource,
} from './abi-document.ts';
import { read } from './documents.ts';
import { signaturesOf } from './wasm-types.ts';

const root = new URL('../', import.meta.url);
const { abi } = core;
const constants = Object.keys(abi);
const exported = WebAssembly.Module.exports(new WebAssembly.Module(readFileSync(new URL('build/core.wasm', root))));
const all = REFERENCE.map(read).join('');

describe('constants', () => {
  test('every one is documented, and nothing that there is not', () => {
    const documented = namesIn(all);
    expect(constants.filter((name) => !documented.includes(name))).toEqual([]);
    expect(documented.filter((name) => !constants.includes(name))).toEqual([]);
    const known = [...constants, ...Object.keys(core)];
    expect(namesIn(read('docs/embedding.md')).filter((name) => !known.includes(name))).toEqual([]);
  });

  test('docs/abi.md lists those that the module does not export', () => {
    const names = new Set(exported.filter(({ kind }) => kind === 'global').map(({ name }) => name));
    const section = sectionsOf(read('docs/abi.md'), 2).find(({ heading }) => heading === 'Not exported')?.body ?? '';
    expect(namesIn(section).sort()).toEqual(constants.filter((name) => !names.has(name)).sort());
  });

  test.each([...REFERENCE, 'docs/embedding.md'])('%s has the right numbers', (file) => {
    const numbers = numbersIn(read(file));
    expect(numbers.length).toBeGreaterThan(0);
    expect(numbers).toEqual(numbers.map(({ name }) => ({ name, says: numberOf(name) })));
  });

  test('options and offloads have a table each', () => {
    const rows = rowsOf(all, '| bit | constant | meaning |').map(([, constant]) => constant);
    expect(rows).toEqual(constants.filter((name) => /^(OPTION|OFFLOAD)_/.test(name)).map((name) => `\`${name}\``));
  });
});

describe('memory', () => {
  const documented = regions();

  test('every address has its row, in order', () => {
    const source = readFileSync(new URL('src/core/abi.ts', root), 'utf8');
    const addresses = /^export const CONFIG = [\s\S]*?^export const MEMORY_PAGES/m.exec(source)?.[0] ?? '';
    const names = [...addresses.matchAll(/^export const (\w+)/gm)].map((m) => m[1] as string);
    const others = ['SCRATCH_SIZE', 'BUCKET_OF_ALL', 'MEMORY_PAGES'];
    expect(documented.map(({ name }) => name)).toEqual(names.filter((name) => !others.includes(name)));
  });

  test('the addresses are those of abi.ts', () => {
    expect(documented).toEqual(documented.map((region) => ({ ...region, address: numberOf(region.name) })));
  });

  test('each region ends before the next one, and the last one in memory', () => {
    for (const [i, { name, address, records: n, bytes }] of documented.entries()) {
      const next = documented[i + 1]?.address ?? abi.MEMORY_SIZE;
      expect({ name, fits: address + n * bytes <= next }).toEqual({ name, fits: true });
    }
  });

  test.each([
    ['CONFIG', 'CONFIG_SIZE', 1],
    ['MAPPINGS', 'MAPPING_SIZE', abi.MAX_MAPPINGS],
    ['OUTBOUND_COUNTERS', 'COUNTERS_SIZE', 1],
    ['INBOUND_COUNTERS', 'COUNTERS_SIZE', 1],
    ['ICMP_COUNTERS', 'COUNTERS_SIZE', 1],
    ['CHANGES', 'CHANGES_SIZE', 1],
    ['REPLIES', 'REPLY_SIZE', abi.MESSAGES_PER_PORT],
    ['DESCRIPTORS', 'DESCRIPTOR_SIZE', abi.BATCH_SIZE],
    ['CONTENTS', 'CONTENT_SIZE', abi.ALL_MESSAGES],
    ['NAMES', 'NAME_SIZE', abi.ALL_MESSAGES],
    ['CONTROLS', 'CONTROL_SIZE', abi.ALL_MESSAGES],
    ['MESSAGE_TABLE', 'MESSAGE_SIZE', abi.ALL_MESSAGES],
    ['IOVS', 'IOV_SIZE', abi.IOVS_PER_MESSAGE * abi.ALL_MESSAGES],
    ['HEADERS', 'HEADER_BLOCK_SIZE', abi.HEADER_BLOCKS],
    ['OUTBOUND_SHARES', 'SHARES_SIZE', 1],
    ['INBOUND_SHARES', 'SHARES_SIZE', 1],
    ['TUNNELS', 'TUNNEL_SIZE', abi.TUNNEL_CAPACITY],
    ['SLOTS', 'SLOT_SIZE', abi.BATCH_SIZE],
  ])('%s has records of %s bytes', (name, size, n) => {
    expect(documented.find((region) => region.name === name)).toMatchObject({ records: n, bytes: numberOf(size) });
  });

  test.each([
    ['MESSAGE_COUNTS', 4, abi.MAX_PORTS + 1],
    ['SCRATCH', 1, abi.SCRATCH_SIZE],
    ['REPLY_BUCKETS', 8, abi.BUCKET_OF_ALL / 8 + 1],
    ['RELAY_BUCKETS', 8, abi.BUCKET_OF_ALL / 8 + 1],
    ['LEASE_BUCKETS', 8, 1 << abi.SOURCES_LOG2],
    ['TUNNEL_KEYS', 4, abi.TUNNEL_CAPACITY],
  ])('%s has numbers of %i bytes', (name, bytes, n) => {
    expect(documented.find((region) => region.name === name)).toMatchObject({ records: n, bytes });
  });
});

describe.each(records())('record: $heading', ({ size, fields }) => {
  test('its fields follow each other and fill it', () => {
    let end = 0;
    for (const { at, type, bytes } of fields) {
      expect({ at, type, bytes }).toEqual({ at: end, type, bytes: expect.any(Number) });
      end += bytes;
    }
    expect(end).toBe(numberOf(size));
  });

  test('offsets and types are those of abi.ts', () => {
    const source = fieldsInSource();
    const named = fields.flatMap(({ name, at, type }) => (name === undefined ? [] : [{ name, at, type }]));
    expect(named).toEqual(named.map(({ name }) => ({ name, at: numberOf(name), type: source.get(name) })));
  });
});

test('every field of abi.ts is in one record, and every record has its size', () => {
  const documented = records();
  const names = documented.flatMap(({ fields }) => fields.flatMap(({ name }) => name ?? []));
  expect(names.sort()).toEqual([...fieldsInSource().keys()].sort());
  expect(documented.filter(({ size }) => Number.isNaN(numberOf(size))).map(({ heading }) => heading)).toEqual([]);
});

describe('functions', () => {
  const documented = functions();

  test('every export has its section, and no other', () => {
    const names = exported.filter(({ kind }) => kind === 'function').map(({ name }) => name);
    expect(documented.map(({ heading }) => heading).sort()).toEqual(names.sort());
  });

  test('the signatures are those of assembly/', () => {
    expect(documented.map(({ signature }) => signature)).toEqual(
      signaturesInSource(documented.map(({ heading }) => heading)),
    );
  });

  test.each(['core.wasm', 'core-scalar.wasm'])('the signatures are those of %s', (file) => {
    const real = signaturesOf(readFileSync(new URL(`build/${file}`, root)));
    const wasm = (type = '') => (type === 'f64' ? 'f64' : 'i32');
    for (const { heading, signature } of documented) {
      const parameters = [...signature.matchAll(/\w+: (\w+)(?=[,)])/g)].map((m) => wasm(m[1]));
      const results = [...signature.matchAll(/\): (\w+)$/g)].map((m) => wasm(m[1]));
      expect({ heading, parameters, results }).toEqual({ heading, ...real.get(heading) });
    }
  });

  test('the parameters have the names of CoreFunctions', () => {
    const plain = ({ signature }: { signature: string }) =>
      signature.replace(/: \w+(?=[,)])/g, '').replace(/\): \w+$/, '): number');
    expect(documented.map(plain).sort()).toEqual(coreFunctions().sort());
  });
});

test('every drop reason has its row', () => {
  const rows = rowsOf(read('docs/abi.md'), '| verdict | constant | name | meaning |');
  const names = new Map(constants.filter((name) => name.startsWith('DROP_')).map((name) => [numberOf(name), name]));
  expect(rows).toEqual(
    DROP_REASONS.map((r) => [String(r.verdict), `\`${names.get(r.verdict)}\``, `\`${r.name}\``, r.meaning]),
  );
});
