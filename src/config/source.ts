/** Where configuration values come from, so that an error can name the place: file:line:column, or the flag. */
import { readFileSync } from 'node:fs';
import { type Document, isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml';
import { errorCode, InlayError } from '../errors.ts';

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
  const lines = new LineCounter();
  const document = parseDocument(read(file), { lineCounter: lines, prettyErrors: false, logLevel: 'error' });
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  const [error] = document.errors;
  if (error) {
    const why = error.code === 'MULTIPLE_DOCS' ? 'expected one YAML document' : error.message;
    throw new InlayError('ERR_CONFIG', `${at(error.pos[0])}: ${why}`);
  }

  return {
    value: toValue(document, file),
    where(path, which) {
      const key = path.at(-1);
      const parent = document.getIn(path.slice(0, -1), true);
      const pair = isMap(parent) ? parent.items.find((p) => isScalar(p.key) && String(p.key.value) === key) : undefined;
      const value = document.getIn(path, true) ?? pair?.key ?? document.contents;
      const node = which === 'key' ? (pair?.key ?? value) : value;
      const place = at(isNode(node) ? (node.range?.[0] ?? 0) : 0);
      if (which === 'key' || key === undefined) return `${place}:`;
      return `${place}: ${typeof key === 'number' ? `${path.at(-2)}[${key}]` : key}`;
    },
  };
}

/** The plain value of a document; null is an empty file. */
function toValue(document: Document, file: string): unknown {
  try {
    return document.toJS() ?? {};
  } catch (cause) {
    // An alias without its anchor, or too many of them.
    throw new InlayError('ERR_CONFIG', `${file}: ${(cause as Error).message}`, { cause });
  }
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new InlayError('ERR_CONFIG', `${file}: cannot be read (${errorCode(cause)})`, { cause });
  }
}
