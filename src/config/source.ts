/**
 * Where configuration values come from, so that an error can name the place: file:line:column, or the flag.
 */
import { closeSync, openSync, readSync } from 'node:fs';
import { type Document, isMap, isNode, isScalar, Lexer, LineCounter, Parser, parseDocument } from 'yaml';
import { errorCode, InlayError } from '../errors.ts';

/** Largest file, in bytes. All settings together take far less, and a file of this size is parsed at once. */
const MAX_SIZE = 64 << 10;
/** How deep lists and maps of a file may be nested. */
const MAX_DEPTH = 50;
/** How many characters of the YAML parser's own message an error shows. */
const MAX_WORDS = 200;

export type Path = readonly (string | number)[];

export interface Source {
  readonly value: unknown;
  /** Names the place of the value at `path`, and the value; or only the place, that of its key. */
  where(path: Path, which: 'key' | 'value'): string;
}

export function flagSource(flags: object): Source {
  return { value: flags, where: (path) => `--${path[0]}` };
}

/** Reads a YAML (or JSON) file. Throws ERR_CONFIG if it cannot be read or is not YAML. */
export function fileSource(file: string): Source {
  const text = read(file);
  checkDepth(text, file);
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, logLevel: 'error' });
  const at = (offset: number) => place(file, lines, offset);
  const [error] = document.errors;
  if (error) {
    const why = error.code === 'MULTIPLE_DOCS' ? 'expected one YAML document' : error.message;
    throw new InlayError('ERR_CONFIG', `${at(error.pos[0])}: ${printable(why, MAX_WORDS)}`);
  }

  return {
    value: toValue(document, file),
    where(path, which) {
      const key = path.at(-1);
      const parent = document.getIn(path.slice(0, -1), true);
      const pair = isMap(parent) ? parent.items.find((p) => isScalar(p.key) && String(p.key.value) === key) : undefined;
      const value = document.getIn(path, true) ?? pair?.key ?? document.contents;
      const node = which === 'key' ? (pair?.key ?? value) : value;
      const spot = at(isNode(node) ? (node.range?.[0] ?? 0) : 0);
      if (which === 'key' || key === undefined) return `${spot}:`;
      return `${spot}: ${typeof key === 'number' ? `${path.at(-2)}[${key}]` : key}`;
    },
  };
}

function place(file: string, lines: LineCounter, offset: number): string {
  const { line, col } = lines.linePos(offset);
  return `${file}:${line}:${col}`;
}

/**
 * Refuses a file that is nested too deeply. The parser composes a document recursively, and V8 may end the
 * whole process when the stack is full.
 */
function checkDepth(text: string, file: string): void {
  const lines = new LineCounter();
  lines.addNewLine(0);
  const parser = new Parser(lines.addNewLine);
  for (const lexeme of new Lexer().lex(text)) {
    for (const _ of parser.next(lexeme)); // It is driven by whoever takes its tokens.
    if (parser.stack.length > MAX_DEPTH) {
      throw new InlayError('ERR_CONFIG', `${place(file, lines, parser.offset)}: lists and maps are nested too deeply`);
    }
  }
}

/** The plain value of a document; null is an empty file. */
function toValue(document: Document, file: string): unknown {
  try {
    return document.toJS() ?? {};
  } catch (cause) {
    // The file has an alias without its anchor, or too many aliases.
    throw new InlayError('ERR_CONFIG', `${file}: ${printable((cause as Error).message, MAX_WORDS)}`, { cause });
  }
}

/**
 * A text on one line, of about `max` characters at most. Control characters, which a terminal would obey, are
 * escaped.
 */
export function printable(text: string, max: number): string {
  const short = text.length > max ? `${text.slice(0, max)}...` : text;
  return short.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u${c.codePointAt(0)?.toString(16).padStart(4, '0')}`);
}

function read(file: string): string {
  const buffer = Buffer.alloc(MAX_SIZE + 1);
  let length = 0;
  try {
    const fd = openSync(file, 'r');
    try {
      // A pipe delivers the file in pieces. A device such as /dev/zero never ends.
      for (let n = -1; n !== 0 && length < buffer.length; length += n) n = readSync(fd, buffer, { offset: length });
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    throw new InlayError('ERR_CONFIG', `${file}: cannot be read (${errorCode(cause)})`, { cause });
  }
  if (length > MAX_SIZE) throw new InlayError('ERR_CONFIG', `${file}: expected at most ${MAX_SIZE} bytes`);
  return buffer.toString('utf8', 0, length);
}
