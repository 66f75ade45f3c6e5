/** The twins: assembly/ and src/core/typescript/ tell the same story, file by file. That they do the same, the suites of both twins test. */
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { sum } from '../src/core/typescript/checksum.ts';
import * as wire from './packet.ts';

const [ASSEMBLY, TYPESCRIPT] = ['assembly', 'src/core/typescript'] as const;
type Folder = typeof ASSEMBLY | typeof TYPESCRIPT;

/** What one twin exports that the other has not, by file; the reason is that of all its names. */
const ONLY: Record<Folder, Record<string, { names: string[]; reason: string }>> = {
  [ASSEMBLY]: {
    'cut.ts': { names: ['transportSum'], reason: 'sums once what all segments have in common' },
    'ipv4.ts': { names: ['networkSum', 'putSegmentNetwork'], reason: 'sums once what all segments have in common' },
    'messages.ts': { names: ['setPiece', 'setContent'], reason: 'writes a message in one go, and adds to it later' },
    'send.ts': { names: ['sendFragmented'], reason: 'what nearly every packet needs comes first, and by itself' },
    'inbound.ts': { names: ['likelySender'], reason: 'tells warmTunnels what to read' },
    'outbound.ts': { names: ['likelyReceiver'], reason: 'tells warmTunnels what to read' },
    'tunnels.ts': { names: ['warmTunnels', 'isTableLarge'], reason: 'reads ahead for speed, and changes nothing' },
  },
  [TYPESCRIPT]: {
    'bytes.ts': {
      names: [
        ...['loadU8', 'loadU16', 'loadU32', 'loadF64', 'storeU8', 'storeU16', 'storeU32', 'storeU64', 'storeF64'],
        ...['copy', 'clear'],
      ],
      reason: 'AssemblyScript has load<T>, store<T>, memory.copy and memory.fill built in',
    },
    'ipv4.ts': { names: ['putIdentification'], reason: 'a header is written field by field' },
    'messages.ts': { names: ['setOrigin'], reason: 'a message is opened empty, and all is added to it' },
  },
};

const filesOf = (folder: Folder) =>
  readdirSync(new URL(`../${folder}/`, import.meta.url)).filter((file) => file.endsWith('.ts'));

/** The names of functions and constants that a file exports, in order; not those of abi.ts, which hosts of a module read from it. */
function exportsOf(folder: Folder, file: string): string[] {
  const source = readFileSync(new URL(`../${folder}/${file}`, import.meta.url), 'utf8');
  const own = [...source.matchAll(/^export (?:function|const|let|class) (\w+)/gm)].map((match) => match[1] as string);
  const others = [...source.matchAll(/^export \{([^}]*)\} from '\.\/[^']*';$/gm)].map((match) => match[1] as string);
  return [...others.flatMap((list) => list.match(/\w+/g) ?? []), ...own];
}

/** The same without those that the other twin has not. */
function sharedOf(folder: Folder, file: string): string[] {
  const only = ONLY[folder][file]?.names ?? [];
  return exportsOf(folder, file).filter((name) => !only.includes(name));
}

test('the twins have the same files', () => {
  expect(filesOf(TYPESCRIPT)).toEqual(filesOf(ASSEMBLY));
  expect(filesOf(ASSEMBLY).length).toBeGreaterThan(30);
});

test.each(filesOf(ASSEMBLY))('both twins of %s export the same, in the same order', (file) => {
  expect(sharedOf(TYPESCRIPT, file)).toEqual(sharedOf(ASSEMBLY, file));
  expect(sharedOf(ASSEMBLY, file)).not.toEqual([]);
});

test.each([ASSEMBLY, TYPESCRIPT])('what only %s has is there, and not in the other', (folder) => {
  const other = folder === ASSEMBLY ? TYPESCRIPT : ASSEMBLY;
  for (const [file, { names, reason }] of Object.entries(ONLY[folder])) {
    expect(exportsOf(folder, file), reason).toEqual(expect.arrayContaining(names));
    for (const name of names) expect(exportsOf(other, file), reason).not.toContain(name);
  }
});

test('the checksum is the plain sum at every length and alignment', () => {
  const bytes = new Uint8Array(9008).map((_, i) => (i * 2654435761) >>> 13);
  const memory = new DataView(bytes.buffer);
  for (let length = 0; length <= 9001; length++) {
    const start = length % 7;
    expect(sum(memory, start, length)).toBe(wire.sum(bytes.subarray(start, start + length)));
  }
  const ones = new Uint8Array(65535).fill(0xff);
  expect(sum(new DataView(ones.buffer), 0, ones.length)).toBe(wire.sum(ones));
});
