/**
 * test/vectors/README.md says all that a host has to know: every field of the JSON files stands there with its type, and a host that follows it, step by step and
 * with nothing but the module's exports, gets what it says must hold.
 */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { DROP_REASONS } from '../src/core/verdict.ts';
import { rowsOf, sectionsOf } from './abi-document.ts';
import { outputsOf, type Vector, vectorFiles } from './golden.ts';

const readme = readFileSync(new URL('./vectors/README.md', import.meta.url), 'utf8');
const module = new WebAssembly.Module(readFileSync(new URL('../build/core.wasm', import.meta.url)));

interface DocumentedField {
  name: string;
  types: string[];
  isAlways: boolean;
}

function fieldsOf(heading: string): DocumentedField[] {
  const body = sectionsOf(readme, 2).find((section) => section.heading === heading)?.body ?? '';
  return rowsOf(body, '| field | type | meaning | if it is not there |').map(([name = '', type = '', , without]) => ({
    name: name.slice(1, -1),
    types: type.split(' or '),
    isAlways: without === 'always there',
  }));
}

const typeOf = (value: unknown) => (Array.isArray(value) ? 'array' : typeof value);

describe.each([
  ['`config`', vectorFiles.map(({ config }) => config)],
  ['A vector', vectorFiles.flatMap(({ vectors }) => vectors)],
] as const)('%s', (heading, objects) => {
  const documented = fieldsOf(heading);
  const found = objects.map((object) => Object.entries(object));

  test('has no field that is not documented, and all that are', () => {
    const names = new Set(found.flat().map(([name]) => name));
    expect([...names].sort()).toEqual(documented.map(({ name }) => name).sort());
  });

  test('has fields of the documented types, and those that are always there', () => {
    const wrong = found.flat().filter(([name, value]) => {
      return !documented.find((field) => field.name === name)?.types.includes(typeOf(value));
    });
    expect(wrong).toEqual([]);
    for (const { name, isAlways } of documented) {
      const has = found.filter((entries) => entries.some(([other]) => other === name)).length;
      expect({ name, isAlways: has === found.length }).toEqual({ name, isAlways });
    }
  });
});

/** What the module exports: functions, and constants by name. */
type Exports = Record<string, (...args: number[]) => number> & { memory: WebAssembly.Memory };

const addressOf = (text: string) => text.split('.').reduce((number, part) => number * 256 + Number(part), 0);
const prefixOf = (text: string) => [addressOf(text.split('/')[0] as string), Number(text.split('/')[1])] as const;

/** A host that knows no more than the README says. */
class Host {
  readonly #exports: Exports;
  readonly #view: DataView;

  constructor() {
    this.#exports = new WebAssembly.Instance(module).exports as Exports;
    this.#view = new DataView(this.#exports.memory.buffer);
  }

  is(name: string): number {
    return (this.#exports[name] as unknown as WebAssembly.Global).value;
  }

  call(name: string, ...args: number[]): number {
    return (this.#exports[name] as (...args: number[]) => number)(...args);
  }

  u32(at: number): number {
    return this.#view.getUint32(at, true);
  }

  f64(at: number): number {
    return this.#view.getFloat64(at, true);
  }

  bytes(at: number, length: number): Buffer {
    return Buffer.from(this.#exports.memory.buffer, at, length);
  }

  configure(config: (typeof vectorFiles)[number]['config']): void {
    const options = [
      config.key === undefined ? 0 : this.is('OPTION_KEY'),
      config.greChecksum ? this.is('OPTION_CHECKSUM') : 0,
      config.greSequence ? this.is('OPTION_SEQUENCE') : 0,
      config.ttl === 'inherit' ? this.is('OPTION_TTL_INHERIT') : 0,
      config.dscp === 'uniform' ? this.is('OPTION_DSCP_UNIFORM') : 0,
      config.ecn === 'compatibility' ? this.is('OPTION_ECN_COMPATIBILITY') : 0,
      config.clampMss ? this.is('OPTION_CLAMP_MSS') : 0,
    ].reduce((all, bit) => all | bit, 0);
    const ttl = typeof config.ttl === 'number' ? config.ttl : 64;
    const dscp = typeof config.dscp === 'number' ? config.dscp : 0;
    this.call('configure', addressOf(config.local), options, config.key ?? 0, ttl, dscp, 0, config.mtu ?? 1476);
    for (const { overlay, underlay } of config.mappings) {
      expect(this.call('addMapping', ...prefixOf(overlay), ...prefixOf(underlay))).toBeGreaterThan(0);
    }
  }

  put(input: Buffer, merged: number): void {
    const [d, place] = [this.is('DESCRIPTORS'), this.is('SLOTS') + this.is('HEADROOM')];
    input.copy(this.bytes(place, input.length));
    this.#view.setUint32(d + this.is('DESCRIPTOR_ADDRESS'), place, true);
    this.#view.setUint32(d + this.is('DESCRIPTOR_LENGTH'), input.length, true);
    this.#view.setUint32(d + this.is('DESCRIPTOR_SEGMENT'), 0, true);
    this.#view.setUint32(d + this.is('DESCRIPTOR_MERGED'), merged, true);
  }

  /** The numbers of a port's messages. */
  messages(port: number): number[] {
    const length = this.u32(this.is('MESSAGE_COUNTS') + 4 * port);
    return Array.from({ length }, (_, i) => port * this.is('MESSAGES_PER_PORT') + i);
  }

  /** A message's bytes, in hex. */
  gather(message: number): string {
    const record = this.is('MESSAGE_TABLE') + message * this.is('MESSAGE_SIZE');
    const iov = this.u32(record + this.is('MESSAGE_IOV'));
    const pieces = Array.from({ length: this.u32(record + this.is('MESSAGE_IOV_COUNT')) }, (_, i) => {
      const piece = iov + i * this.is('IOV_SIZE');
      return this.bytes(this.u32(piece + this.is('IOV_BASE')), this.u32(piece + this.is('IOV_LENGTH')));
    });
    return Buffer.concat(pieces).toString('hex');
  }

  counter(direction: string, offset: number): number {
    return this.f64(this.is(direction === 'outbound' ? 'OUTBOUND_COUNTERS' : 'INBOUND_COUNTERS') + offset);
  }
}

const verdictOf = (name: string) => DROP_REASONS.find((reason) => reason.name === name)?.verdict ?? 0;
const textOf = (bytes: Buffer) => bytes.join('.');

/** Steps 1 to 10, and then all of what must hold. */
function run(config: (typeof vectorFiles)[number]['config'], vector: Vector): void {
  const { direction, input, merged = 0, refused, verdict } = vector;
  const host = new Host();
  host.call('attach', 0, 0, 1);
  host.configure(config);
  const packet = Buffer.from(input, 'hex');
  host.put(packet, merged);
  expect(host.call(direction === 'outbound' ? 'encapsulate' : 'decapsulate', 0, 1, 1)).toBe(1);
  const made = host.messages(0);
  expect(made.map((m) => host.gather(m))).toEqual(outputsOf(vector));
  if (refused !== undefined) for (const m of made) host.call('refuse', m, refused, 1);
  const replies = host.messages(host.is('REPLY_PORT'));
  expect(replies.map((m) => host.gather(m))).toEqual(vector.reply === undefined ? [] : [vector.reply]);
  if (replies.length > 0) expect(replies[0]).toBe(host.is('MESSAGES'));

  const d = host.is('DESCRIPTORS');
  const isForwarded = verdict === 'forward';
  expect(host.u32(d + host.is('DESCRIPTOR_VERDICT')) | 0).toBe(verdictOf(verdict));
  expect(textOf(host.bytes(d + host.is('DESCRIPTOR_PEER'), 4))).toBe(isForwarded ? vector.peer : '0.0.0.0');
  for (const m of made) {
    const name = host.is('NAMES') + m * host.is('NAME_SIZE') + host.is('NAME_ADDRESS');
    if (direction === 'outbound') expect(textOf(host.bytes(name, 4))).toBe(vector.peer);
    const content = host.is('CONTENTS') + m * host.is('CONTENT_SIZE') + host.is('CONTENT_PACKETS');
    expect(host.u32(content)).toBe(refused === undefined ? 1 : 0);
  }
  const counters = ['RECEIVED', 'FORWARDED'].map((name) => host.counter(direction, host.is(`COUNTERS_${name}`)));
  const drops = Array.from({ length: host.is('VERDICTS') }, (_, r) => {
    return host.counter(direction, host.is('COUNTERS_DROPS') + 8 * r);
  });
  const lost = isForwarded ? 'not-written' : verdict;
  const count = isForwarded && refused === undefined ? 0 : Math.max(made.length, 1);
  expect(drops).toEqual(drops.map((_, r) => (r === -verdictOf(lost) ? count : 0)));
  const received = isForwarded ? made.length : 1;
  expect(counters).toEqual([received, received - count]);
  if (!isForwarded) {
    const slot = host.bytes(host.is('SLOTS') + host.is('HEADROOM'), packet.length);
    expect(slot.toString('hex')).toBe(input);
  }
}

test.each(vectorFiles.map((file) => [file.file, file] as const))(
  '%s, by the README alone',
  (_, { config, vectors }) => {
    expect(vectors.length).toBeGreaterThan(0);
    for (const vector of vectors) run(config, vector);
  },
);

/** With sequence numbers, the second packet is another one. */
const repeatable = vectorFiles.filter(({ config }) => !config.greSequence);

test.each(repeatable.map((file) => [file.file, file] as const))(
  '%s: the same slot can be handled again',
  (_, { config, vectors }) => {
    for (const vector of vectors) {
      const host = new Host();
      host.call('attach', 0, 0, 1);
      host.configure(config);
      host.put(Buffer.from(vector.input, 'hex'), vector.merged ?? 0);
      for (let round = 0; round < 2; round++) {
        host.call(vector.direction === 'outbound' ? 'encapsulate' : 'decapsulate', 0, 1, 1);
        expect(host.messages(0).map((m) => host.gather(m))).toEqual(outputsOf(vector));
      }
    }
  },
);
