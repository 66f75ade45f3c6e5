/** The listing of a program: all that the assembler has, beside what llvm-objdump makes of the same bytes. */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadConfig } from '../../src/config/config.ts';
import { listings } from '../../src/dataplane/fast-path/listing.ts';
import { programOptions } from '../../src/dataplane/fast-path/loaded.ts';
import { inbound, outbound } from '../../src/dataplane/fast-path/programs/programs.ts';
import * as bpf from '../../src/linux/bpf/assembler.ts';
import { listing } from '../../src/linux/bpf/listing.ts';
import { encode } from '../../src/linux/bpf/program.ts';
import { type Address, parseAddress } from '../../src/mesh/address.ts';
import { missing, skip } from '../net/require.ts';

const NO_NAMES = { maps: new Map<number, string>() };
const config = loadConfig({ overlay: '10.0.0.0/8', underlay: '192.168.0.0/16', key: '7', 'clamp-mss': 'on' });
const plan = { mappings: config.mappings, local: parseAddress('192.168.16.32') as Address };

/** Each function of the assembler that makes one instruction or two, with numbers in place of its arguments. */
const EXAMPLES: Record<string, bpf.Line[]> = {};
for (const [name, make] of Object.entries(bpf)) {
  if (typeof make !== 'function' || name === 'assemble') continue;
  const isJump = name.startsWith('jump');
  const values = [3, 4, 5].slice(0, make.length - (isJump ? 1 : 0));
  const made = (make as (...values: unknown[]) => bpf.Line | bpf.Line[])(...values, ...(isJump ? ['end'] : []));
  // Loads of 64 bits are two.
  const lines = Array.isArray(made) && Array.isArray(made[0]) ? (made as bpf.Line[]) : [made as bpf.Line];
  EXAMPLES[name] = [...lines, { label: 'end' }, bpf.exit];
}

describe('the listing', () => {
  test('names maps, helpers and the places of jumps', () => {
    const lines = [
      ...bpf.loadMap(1, 9),
      { label: 'again' },
      ...bpf.loadMapValue(2, 9),
      bpf.loadWord(3, 6, -4),
      bpf.jumpIfEqual(3, 8, 'out'),
      bpf.and32(3, -2),
      bpf.call(bpf.MAP_LOOKUP),
      bpf.jump('again'),
      { label: 'out' },
      bpf.addAtomically(4, 8, 5),
      bpf.fromNetwork16(1),
      bpf.exit,
    ];
    expect(listing(bpf.assemble(lines), { maps: new Map([[9, 'counts']]) })).toEqual([
      '  r1 = counts',
      'L1:',
      '  r2 = &counts[0]',
      '  r3 = *(u32 *)(r6 - 4)',
      '  if r3 == 8 goto L2',
      '  w3 &= -2',
      '  call map_lookup_elem',
      '  goto L1',
      'L2:',
      '  lock *(u64 *)(r4 + 8) += r5',
      '  r1 = be16 r1',
      '  exit',
    ]);
  });

  test('says something of every instruction that there is', () => {
    expect(Object.keys(EXAMPLES).length).toBeGreaterThan(30);
    for (const [name, lines] of Object.entries(EXAMPLES)) {
      const text = listing(bpf.assemble(lines), NO_NAMES).join('\n');
      expect([name, text]).toEqual([name, expect.not.stringMatching(/undefined|\?/)]);
    }
  });

  test('the programs: helpers by their names, maps by theirs, and every jump has its label', () => {
    for (const lines of Object.values(listings(config, plan))) {
      const text = lines.join('\n');
      expect(text).not.toMatch(/undefined|\?|call \d|map \d/);
      const places = lines.filter((line) => line.endsWith(':')).map((line) => line.slice(0, -1));
      const goals = [...new Set(lines.flatMap((line) => /goto (L\d+)$/.exec(line)?.[1] ?? []))];
      expect(goals.sort()).toEqual(places.sort());
    }
  });
});

const skipped = skip('the listing beside llvm-objdump', await missing('llvm-objdump'));

describe.skipIf(skipped)('the listing beside llvm-objdump', () => {
  /** The file that llvm-objdump reads: an ELF object whose one section is the program (elf(5)). */
  const object = (program: Uint8Array): Uint8Array => {
    const names = Buffer.from('\0.text\0.names\0');
    const [HEADER, SECTION] = [64, 64];
    const sections = HEADER + program.length + names.length;
    const bytes = Buffer.alloc(sections + 3 * SECTION);
    bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
    bytes.writeUInt16LE(1, 16); // ET_REL
    bytes.writeUInt16LE(247, 18); // EM_BPF
    bytes.writeUInt32LE(1, 20);
    bytes.writeBigUInt64LE(BigInt(sections), 40);
    bytes.writeUInt16LE(HEADER, 52);
    bytes.writeUInt16LE(SECTION, 58);
    bytes.writeUInt16LE(3, 60);
    bytes.writeUInt16LE(2, 62);
    bytes.set(program, HEADER);
    bytes.set(names, HEADER + program.length);
    const section = (i: number, name: number, type: number, flags: number, at: number, size: number) => {
      const first = sections + i * SECTION;
      bytes.writeUInt32LE(name, first);
      bytes.writeUInt32LE(type, first + 4);
      bytes.writeBigUInt64LE(BigInt(flags), first + 8);
      bytes.writeBigUInt64LE(BigInt(at), first + 24);
      bytes.writeBigUInt64LE(BigInt(size), first + 32);
      bytes.writeBigUInt64LE(8n, first + 48);
    };
    section(1, 1, 1, 6, HEADER, program.length);
    section(2, 7, 3, 0, HEADER + program.length, names.length);
    return bytes;
  };

  /** One text an instruction, without addresses, with decimal numbers, and jumps by their distance. */
  const llvm = (program: readonly bpf.Instruction[]): string[] => {
    const folder = mkdtempSync(path.join(os.tmpdir(), 'listing-'));
    try {
      const file = path.join(folder, 'program.o');
      writeFileSync(file, object(encode(program)));
      const text = execFileSync('llvm-objdump', [
        '-d',
        '--no-show-raw-insn',
        '--no-leading-addr',
        '--mcpu=v3',
        file,
      ]).toString();
      return text.split('\n').flatMap((line) => (/^\s+\S/.test(line) ? [plain(line)] : []));
    } finally {
      rmSync(folder, { recursive: true });
    }
  };
  const plain = (line: string) =>
    line
      .trim()
      .replace(/ <[\w.+]+>$/, '')
      .replace(/^ld_pseudo\tr(\d+), \d, /, 'r$1 = ')
      .replace(/0x[0-9a-f]+/g, (hex) => String(Number(hex)));

  /** The same of ours: labels become distances. */
  const ours = (program: readonly bpf.Instruction[]): string[] => {
    const lines = listing(program, NO_NAMES);
    const places = new Map<string, number>();
    let at = 0;
    const texts: [at: number, text: string][] = [];
    for (const line of lines) {
      if (line.endsWith(':')) places.set(line.slice(0, -1), at);
      else {
        texts.push([at, line.trim()]);
        at += program[at]?.[0] === 0x18 ? 2 : 1;
      }
    }
    return texts.map(([from, text]) =>
      text
        .replace(/goto (L\d+)$/, (_, label) => {
          const distance = (places.get(label) as number) - from - 1;
          return `goto ${distance < 0 ? '-' : '+'}${Math.abs(distance)}`;
        })
        // What only a loaded program has.
        .replace(/= &?map (\d+)(\[0\])?$/, '= $1')
        .replace(/^call \D.*$/, (call) => `call ${NUMBERS[call.slice(5)]}`),
    );
  };
  const NUMBERS: Record<string, number> = Object.fromEntries(
    Array.from({ length: 256 }, (_, helper) => {
      const [name = ''] = listing([bpf.call(helper)], NO_NAMES);
      return [name.trim().slice('call '.length), helper];
    }),
  );

  /** What LLVM 14 does not know yet: numbers that are stored, remainders, and jumps on bits. */
  const NEW = /^\*\(u\d+ \*\)\(r\d+ [+-] \d+\) = -?\d+$|^w\d+ %= |^if r\d+ & /;

  const compare = (program: readonly bpf.Instruction[]) => {
    const [mine, theirs] = [ours(program), llvm(program)];
    const known = theirs.map((line, i) => (line.endsWith('<unknown>') && NEW.test(mine[i] ?? '') ? mine[i] : line));
    expect(mine).toEqual(known);
  };

  test.each(Object.entries(EXAMPLES))('%s', (_, lines) => compare(bpf.assemble(lines)));

  test.each([
    ['outbound', outbound],
    ['inbound', inbound],
  ] as const)('the program %s', (_, make) => {
    const program = bpf.assemble(make(programOptions(config, plan), { settings: 1, slots: 2, vms: 3, counts: 4 }));
    expect(program.length).toBeGreaterThan(100);
    compare(program);
  });
});
