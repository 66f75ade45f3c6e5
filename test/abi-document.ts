/** What docs/abi.md, docs/core.md and docs/core-state.md say of constants, records and functions, and what src/core/abi.ts says in its comments. */
import { readFileSync } from 'node:fs';
import { abi } from '../src/core/index.ts';
import { read } from './documents.ts';

export const REFERENCE = ['docs/abi.md', 'docs/core.md', 'docs/core-state.md'] as const;

const text = (file: string) => readFileSync(new URL(`../${file}`, import.meta.url), 'utf8');

const layout = new Map<string, number>(Object.entries(abi));
/** The number of a constant; NaN if there is none of that name. */
export const numberOf = (name: string) => layout.get(name) ?? Number.NaN;

const numberIn = (cell: string) => Number(cell.replaceAll(',', ''));
const nameIn = (cell: string) => /^`(\w+)`$/.exec(cell)?.[1];

export interface Section {
  heading: string;
  body: string;
}

/** The parts of a document below headings of this level, up to the next of that level or a higher one. */
export function sectionsOf(document: string, level: number): Section[] {
  const parts = document.split(new RegExp(`^(?=#{1,${level}} )`, 'm'));
  return parts.flatMap((part) => {
    const [, marks = '', heading = '', body = ''] = /^(#+) (.*)\n([\s\S]*)$/.exec(part) ?? [];
    return marks.length === level ? [{ heading, body }] : [];
  });
}

/** The rows of all tables with these columns, cell by cell. */
export function rowsOf(document: string, head: string): string[][] {
  const tables = document.split(`${head}\n`).slice(1);
  return tables.flatMap((table) => {
    const lines = table.split('\n');
    const end = lines.findIndex((line) => !line.startsWith('|'));
    return lines.slice(1, end < 0 ? undefined : end).map((line) =>
      line
        .slice(1, -1)
        .split('|')
        .map((cell) => cell.trim()),
    );
  });
}

export interface Region {
  name: string;
  address: number;
  records: number;
  bytes: number;
}

export function regions(): Region[] {
  const rows = rowsOf(read('docs/abi.md'), '| address | constant | records | bytes each | what lies there |');
  return rows.map(([address = '', constant = '', records = '', bytes = '']) => ({
    name: nameIn(constant) ?? constant,
    address: numberIn(address),
    records: numberIn(records.replace(/ = .*/, '')),
    bytes: numberIn(bytes),
  }));
}

interface Field {
  at: number;
  type: string;
  name: string | undefined;
  bytes: number;
}

export interface DocumentedRecord {
  heading: string;
  /** The constant that its size is. */
  size: string;
  fields: Field[];
}

const RECORD_HEAD = '| at | type | constant | meaning | written by |';

export function records(): DocumentedRecord[] {
  return sectionsOf(read('docs/abi.md'), 3).flatMap(({ heading, body }) => {
    const fields = rowsOf(body, RECORD_HEAD).map(([at = '', type = '', constant = '']) => {
      return { at: numberIn(at), type, name: nameIn(constant), bytes: bytesOf(type) };
    });
    const [, size = ''] = /`(\w+_SIZE)` \([\d,]+\) bytes/.exec(body) ?? [];
    return fields.length === 0 ? [] : [{ heading, size, fields }];
  });
}

const SIZES: Record<string, number> = { u8: 1, u16: 2, u32: 4, i32: 4, u64: 8, f64: 8 };

/** Bytes of a type: `u32`, `6 bytes`, `4 x u32`, `BATCH_SIZE x { u32, u16, u16 }`; NaN if it is none. */
function bytesOf(type: string): number {
  const [, count, each] = /^(\w+) x (.*)$/.exec(type) ?? [];
  if (count !== undefined && each !== undefined) {
    return (/^\d+$/.test(count) ? Number(count) : numberOf(count)) * bytesOf(each);
  }
  const [, members] = /^\{ (.*) \}$/.exec(type) ?? [];
  if (members !== undefined) return members.split(', ').reduce((sum, member) => sum + bytesOf(member), 0);
  const [, bytes] = /^(\d+) bytes$/.exec(type) ?? [];
  return bytes === undefined ? (SIZES[type] ?? Number.NaN) : Number(bytes);
}

/** The fields of records in src/core/abi.ts: what has a type in the comment behind it. */
export function fieldsInSource(): Map<string, string> {
  const lines = text('src/core/abi.ts').matchAll(/^export const (\w+) = [^;]*; \/\/ (.*)$/gm);
  return new Map(
    [...lines].flatMap(([, name = '', comment = '']) => {
      const [, type] = /^((?:\w+ x )?(?:[ui]\d+|f64|\d+ bytes|\{.*?\}))(?:[ ,:]|$)/.exec(comment) ?? [];
      // Of a record's members only the types count.
      return type === undefined ? [] : [[name, type.replace(/([ui]\d+)[^,}]*(?=,| \})/g, '$1')] as const];
    }),
  );
}

export interface DocumentedFunction {
  heading: string;
  signature: string;
}

/** Sections of functions, with the line that has the signature: `name(parameter: type): type`. */
export function functions(): DocumentedFunction[] {
  const chapter = sectionsOf(read('docs/abi.md'), 2).find(({ heading }) => heading === 'Functions')?.body ?? '';
  return sectionsOf(chapter, 3).map(({ heading, body }) => ({
    heading,
    signature: /^`(\w+\(.*\)(?:: \w+)?)`$/m.exec(body)?.[1] ?? '',
  }));
}

/** The signatures of the functions that assembly/index.ts exports, its own or another file's, in the same form. */
export function signaturesInSource(names: readonly string[]): string[] {
  const index = text('assembly/index.ts');
  return names.map((name) => {
    const [, file = 'index'] =
      new RegExp(`^export \\{[^}]*\\b${name}\\b[^}]*\\} from '\\./(\\w+)';$`, 'm').exec(index) ?? [];
    const declared = new RegExp(`^export function (${name}\\([^)]*\\): \\w+) \\{$`, 'm').exec(
      text(`assembly/${file}.ts`),
    );
    return (declared?.[1] ?? '').replace(/: void$/, '');
  });
}

/** Names of CoreFunctions and of their parameters, as `name(parameter, parameter)`, with `: number` if they return one. */
export function coreFunctions(): string[] {
  const [, body = ''] = /^export interface CoreFunctions \{\n([\s\S]*?)^\}$/m.exec(text('src/core/core.ts')) ?? [];
  return [...body.matchAll(/^ {2}(\w+)\(([^)]*)\): (\w+);$/gm)].map(([, name, parameters = '', result]) => {
    const names = [...parameters.matchAll(/(\w+): number/g)].map((m) => m[1]);
    return `${name}(${names.join(', ')})${result === 'void' ? '' : ': number'}`;
  });
}

/** All names in capitals between backticks. */
export function namesIn(document: string): string[] {
  return [...new Set([...document.matchAll(/`([A-Z][A-Z0-9_]+)`/g)].map((m) => m[1] as string))];
}

/** What a document says of numbers: `NAME` (12) in prose, 12 = `NAME` in tables, | 12 | `NAME` | at the beginning of rows. */
export function numbersIn(document: string): { name: string; says: number }[] {
  const behind = [...document.matchAll(/`([A-Z][A-Z0-9_]+)` \((-?[\d,.]+)\)/g)].map(([, name = '', says = '']) => ({
    name,
    says,
  }));
  const before = [...document.matchAll(/([\d,.]+) = `([A-Z][A-Z0-9_]+)`/g)].map(([, says = '', name = '']) => ({
    name,
    says,
  }));
  const heads = [
    '| value | constant | meaning |',
    '| bit | constant | meaning |',
    '| verdict | constant | name | meaning |',
  ];
  const inTables = heads
    .flatMap((head) => rowsOf(document, head))
    .map(([says = '', constant = '']) => ({ name: nameIn(constant) ?? constant, says }));
  return [...behind, ...before, ...inTables].map(({ name, says }) => ({ name, says: numberIn(says) }));
}
