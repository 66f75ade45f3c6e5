/**
 * The journal notes each thing before Inlay makes it, so that a later process can undo it. A change is one
 * line, and costs the same however many there are. Several processes may write, each for an owner of its own.
 */
import path from 'node:path';
import { errorCode, InlayError } from '../errors.ts';
import { readOwn, removeOwn, replaceOwn } from '../linux/own-file.ts';
import { appendWhole, sizeOf, withLockedFile } from './journal-file.ts';
import { type Entry, type Line, parseLines, VERSION } from './journal-lines.ts';
import { keyOf, type Thing } from './state.ts';

export type { Entry };

/** The owner of what the daemon makes. */
export const DAEMON = 'daemon';
/** The owner of what the daemon changes at containers' devices: it stays until `down`. */
export const GUARD = 'guard';

const FILE = 'journal.jsonl';
const DAMAGED = 'journal.damaged';
/** How many lines may be about things that are gone, before the file is written anew. */
const MAX_STALE = 1000;

export class Journal {
  /** Whether this process or an earlier one met lines that it could not read. What they said is lost. */
  readonly isDamaged: boolean;
  /** Whether nothing was there to be read. */
  readonly isMissing: boolean;
  readonly #runDir: string | undefined;
  /** By owner and key, the oldest first. */
  #entries = new Map<string, Entry>();
  /** Lines that this version does not understand: they stay as they are. */
  #foreign: string[] = [];
  #stale = 0;
  /** Owners for whom this process writes. Of all other owners the file knows more than this process. */
  readonly #mine = new Set<string>();
  /** Entries that this process has added. */
  readonly #added = new Set<string>();
  /**
   * Why the last line could not be written, if it could not. Inlay goes on: the machine itself tells most of
   * what is ours.
   */
  #failure: unknown;

  /**
   * Opens the journal of `runDir` with what earlier processes left in it. What cannot be read is put aside,
   * as a file of its own. Throws if the file may not be read. Where there is no directory, there is nothing to
   * read, and nothing is looked for: by now somebody else could have made it.
   */
  constructor(runDir: string | undefined) {
    this.#runDir = runDir;
    const content = this.#read();
    const text = content.toString();
    const { entries, foreign, stale, isDamaged } = parseLines(text);
    this.#entries = entries;
    this.#foreign = foreign;
    this.#stale = stale;
    this.isMissing = text === '';
    this.isDamaged = isDamaged || (runDir !== undefined && sizeOf(this.#path(DAMAGED)) > 0);
    if (!isDamaged) return;
    try {
      replaceOwn(this.#path(DAMAGED), content);
    } catch {} // It is for people to look at.
    this.#attempt(() => this.rewrite());
  }

  /** Whether it tells of all that earlier processes made. If not, the machine itself is to be asked. */
  get isWhole(): boolean {
    return !this.isMissing && !this.isDamaged;
  }

  /** What an owner has made, the oldest first. */
  entries(owner: string): Entry[] {
    return [...this.#entries.values()].filter((entry) => entry.owner === owner);
  }

  /** How many things are noted, of all owners, understood or not. */
  get size(): number {
    return this.#entries.size + this.#foreign.length;
  }

  /** How many lines there are that this version does not understand. */
  get foreign(): number {
    return this.#foreign.length;
  }

  /**
   * Whether the file has all that is noted. It has not if its directory was swept away, or the disk is full.
   */
  get isWritten(): boolean {
    return this.#failure === undefined && (this.size === 0 || sizeOf(this.#path(FILE)) > 0);
  }

  has(owner: string, thing: Thing): boolean {
    return this.#entries.has(idOf(owner, thing));
  }

  /** What its note says that was there before. */
  before(owner: string, thing: Thing): string | undefined {
    return this.#entries.get(idOf(owner, thing))?.before;
  }

  /** Whether this process has noted it: an earlier one had not. */
  isNew({ owner, thing }: Entry): boolean {
    return this.#added.has(idOf(owner, thing));
  }

  /** Notes a thing that is about to be made; the first note of a thing counts. */
  add(owner: string, thing: Thing, before?: string): void {
    const id = idOf(owner, thing);
    if (this.#entries.has(id)) return;
    const entry = { owner, thing, ...(before === undefined ? {} : { before }) };
    this.#entries.set(id, entry);
    this.#added.add(id);
    this.#append({ v: VERSION, op: 'add', ...entry });
  }

  /** Takes the note of a thing back that was not made, or is gone. */
  drop(owner: string, thing: Thing): void {
    if (!this.#entries.delete(idOf(owner, thing))) return;
    this.#stale += 2;
    this.#append({ v: VERSION, op: 'drop', owner, thing });
    if (this.size === 0) this.discard();
    else if (this.#stale > MAX_STALE) this.#attempt(() => this.rewrite());
  }

  /** Removes what was put aside, and the file unless something is noted there. A process that was killed may leave it empty. */
  discard(): void {
    this.#attempt(() => this.rewrite());
    removeOwn(this.#path(DAMAGED));
  }

  /**
   * Writes the file anew, as when its directory was swept away; without entries it goes. What others wrote
   * meanwhile is kept.
   */
  rewrite(): void {
    const file = this.#path(FILE);
    withLockedFile(file, (text) => {
      if (text !== '') this.#merge(text);
      if (this.size === 0) removeOwn(file);
      else replaceOwn(file, this.#text());
      this.#stale = 0;
      this.#failure = undefined;
    });
  }

  /** Takes over what the file says of other owners. */
  #merge(text: string): void {
    const { entries, foreign } = parseLines(text);
    const others = [...entries].filter(([, { owner }]) => !this.#mine.has(owner));
    const mine = [...this.#entries].filter(([, { owner }]) => this.#mine.has(owner));
    this.#entries = new Map([...others, ...mine]);
    this.#foreign = foreign;
  }

  #text(): string {
    const lines = [...this.#entries.values()].map((entry) => lineText({ v: VERSION, op: 'add', ...entry }));
    return [...this.#foreign.map((line) => `${line}\n`), ...lines].join('');
  }

  #append(line: Line): void {
    this.#mine.add(line.owner);
    // A file that was swept away gets all that is known.
    this.#attempt(() => appendWhole(this.#path(FILE), (isEmpty) => (isEmpty ? this.#text() : lineText(line))));
  }

  #attempt(write: () => void): void {
    try {
      write();
    } catch (error) {
      this.#failure = error;
    }
  }

  #read(): Buffer {
    const nothing = Buffer.alloc(0);
    if (this.#runDir === undefined) return nothing;
    const file = this.#path(FILE);
    try {
      return readOwn(file) ?? nothing;
    } catch (cause) {
      if (cause instanceof InlayError) throw cause;
      const code = errorCode(cause);
      const kind = code === 'EACCES' ? 'ERR_PERMISSION' : 'ERR_FAILED';
      throw new InlayError(kind, `${file} cannot be read: ${code}`, { cause });
    }
  }

  #path(name: string): string {
    if (this.#runDir === undefined) throw new Error('a journal without a directory is not written');
    return path.join(this.#runDir, name);
  }
}

function idOf(owner: string, thing: Thing): string {
  return `${owner} ${keyOf(thing)}`;
}

function lineText(line: Line): string {
  return `${JSON.stringify(line)}\n`;
}
