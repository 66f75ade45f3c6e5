/** What the fuzzer has found once, in its least form (test/vectors/found): the twins do the same with it now. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { typescriptCore } from '../src/core/typescript.ts';
import { config, cores } from './core.ts';
import { Judge } from './fuzz/judge.mjs';
import { replay } from './fuzz/rounds.mjs';
import { packetOf } from './packet.ts';

const folder = new URL('./vectors/found/', import.meta.url);
const files = existsSync(folder) ? readdirSync(folder).filter((name) => name.endsWith('.json')) : [];
const found = files.map((file) => JSON.parse(readFileSync(new URL(file, folder), 'utf8')));

/** Written as the fuzzer would: one packet to another VM, in a format that leaves nothing out. */
const plain = {
  name: 'a packet that is forwarded',
  steps: [
    {
      config,
      devices: { offloads: 0, ports: 1 },
      ...{ direction: 'outbound', first: 0, count: 1, now: 1, expire: -1, surroundings: 1, identical: false },
      inputs: [{ bytes: Buffer.from(packetOf({})).toString('hex'), beyond: 'ff', segment: 0, peer: 0 }],
    },
  ],
};

describe.each(cores.filter(({ name }) => name !== 'typescript'))('$name', ({ make }) => {
  test.each([plain, ...found])('$name', (each) => {
    expect(replay(new Judge(make(), typescriptCore(), true), each)).toBeNull();
  });

  test('a core that is not right is told from one that is', () => {
    const wrong = typescriptCore();
    const right = wrong.encapsulate.bind(wrong);
    wrong.encapsulate = (first, count, now) => {
      const next = right(first, count, now);
      // The last byte of the one packet that there is.
      const [address = 0, length = 0] = new Uint32Array(wrong.memory, abi.DESCRIPTORS, 2);
      wrong.bytes[address + length - 1] = 0xee;
      return next;
    };
    expect(replay(new Judge(make(), wrong, true), plain)).toMatch(
      /SLOTS \+ \d+: wasm has \d+, typescript has 238, in a packet/,
    );
  });
});
