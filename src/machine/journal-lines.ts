/**
 * The lines of a journal: one JSON object each, with a version, an owner and a thing that was made or is gone
 * again. Whoever wrote them, only what Inlay could have made is taken from them.
 */
import { FIELDS, isBefore, isWord } from './journal-fields.ts';
import { keyOf, type Thing } from './state.ts';

/** Another number is left for whoever wrote it. */
export const VERSION = 1;

export interface Entry {
  owner: string;
  thing: Thing;
  /** The value that a sysctl had, or several with their names. */
  before?: string;
}

/** One line: a thing is about to be made (`add`), or is gone again (`drop`). */
export type Line = { v: number; op: 'add' | 'drop' } & Entry;

export interface Lines {
  /** What was made and is not gone, by owner and key, the oldest first. */
  entries: Map<string, Entry>;
  /** Lines of other versions, as they are. */
  foreign: string[];
  /** Lines that are about things that are gone. */
  stale: number;
  /** Whether some could not be read. */
  isDamaged: boolean;
}

const OPS: readonly string[] = ['add', 'drop'];

export function parseLines(text: string): Lines {
  const lines: Lines = { entries: new Map(), foreign: [], stale: 0, isDamaged: text !== '' && !text.endsWith('\n') };
  for (const line of text.split('\n')) if (line !== '') addLine(lines, line);
  return lines;
}

function addLine(lines: Lines, text: string): void {
  const value = parse(text);
  if (isOfOthers(value)) lines.foreign.push(text);
  else if (!isLine(value)) lines.isDamaged = true;
  else {
    const { op, owner, thing, before } = value;
    const id = `${owner} ${keyOf(thing)}`;
    if (op === 'drop') {
      lines.entries.delete(id);
      lines.stale += 2;
    } else if (!lines.entries.has(id))
      lines.entries.set(id, { owner, thing, ...(before === undefined ? {} : { before }) });
  }
}

function parse(text: string): Partial<Line> | undefined {
  try {
    const value = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Whether another version wrote the line: it has another version number, or a word that this version does not
 * know.
 */
function isOfOthers(value: Partial<Line> | undefined): boolean {
  if (typeof value?.v !== 'number') return false;
  const isOther = (word: unknown, known: readonly string[]) => typeof word === 'string' && !known.includes(word);
  return value.v !== VERSION || isOther(value.op, OPS) || isOther(value.thing?.kind, Object.keys(FIELDS));
}

function isLine(value: Partial<Line> | undefined): value is Line {
  const { op, owner, thing, before } = value ?? {};
  const kind: unknown = thing?.kind;
  const fields = typeof kind === 'string' && Object.hasOwn(FIELDS, kind) ? FIELDS[kind] : undefined;
  return (
    (op === 'add' || op === 'drop') &&
    isWord(owner) &&
    fields !== undefined &&
    Object.entries(fields).every(([name, field]) => {
      const found = (thing as unknown as Record<string, unknown>)[name];
      return typeof field === 'string' ? typeof found === field : field(found, thing as Thing);
    }) &&
    (before === undefined || isBefore(before, thing as Thing))
  );
}
