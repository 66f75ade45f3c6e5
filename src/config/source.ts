/** Where configuration values come from, so that an error can name the place: file:line:column, or the flag. */
import { readFileSync } from 'node:fs';
import { isMap, isNode, isScalar, LineCounter, parseDocument } from 'yaml';
import { errorCode, InlayError } from '../errors.ts';

export type Path = readonly (string | number)[];

export interface Source {
  readonly value: unknown;
  /** Names the place of the value at `path`, or of its key. */
  where(path: Path, which: 'key' | 'value'): string;
}

export function flagSource(flags: object): Source {
  return { value: flags, where: (path) => `--${path[0]}` };
}

/** Reads a YAML (or JSON) file. Throws ERR_CONFIG if it cannot be read or is not YAML. */
export function fileSource(file: string): Source {
  const lines = new LineCounter();
  const document = parseDocument(read(file), { lineCounter: lines, prettyErrors: false });
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${line}:${col}`;
  };
  const [error] = document.errors;
  if (error) throw new InlayError('ERR_CONFIG', `${at(error.pos[0])}: ${error.message}`);

  return {
    value: document.toJS() ?? {},
    where(path, which) {
      const key = path.at(-1);
      const parent = document.getIn(path.slice(0, -1), true);
      const pair = isMap(parent) ? parent.items.find((p) => isScalar(p.key) && p.key.value === key) : undefined;
      const node = which === 'key' ? pair?.key : (document.getIn(path, true) ?? pair?.key ?? document.contents);
      const place = at(isNode(node) ? (node.range?.[0] ?? 0) : 0);
      return which === 'key' || key === undefined ? `${place}:` : `${place}: ${key}`;
    },
  };
}

function read(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (cause) {
    throw new InlayError('ERR_CONFIG', `${file}: cannot be read (${errorCode(cause)})`, { cause });
  }
}
