/** Writes the playground's files to a folder, over none that somebody else has there. */
import { createHash } from 'node:crypto';
import { copyFileSync, lstatSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { errorCode, InlayError } from '../errors.ts';

/** Lies beside the files and has the SHA-256 of each, by name: what has that may be written over. */
const LIST = 'inlay-playground.json';

/**
 * Copies the files in `from` to `folder`, which is made if need be. Throws ERR_FAILED, and writes nothing, if a file of one
 * of their names is there that was not written by this function, or was changed since.
 */
export function writePlayground(from: string, folder: string): void {
  try {
    mkdirSync(folder, { recursive: true });
    const list = Object.fromEntries(readdirSync(from).map((name) => [name, sumOf(path.join(from, name))]));
    const written = listIn(folder);
    const isForeign = (name: string) => {
      const there = sumOf(path.join(folder, name));
      return there !== undefined && there !== list[name] && there !== written?.get(name);
    };
    const foreign = Object.keys(list).filter(isForeign);
    if (written === undefined) foreign.push(LIST);
    if (foreign.length > 0) throw refusal(folder, foreign);
    for (const name of Object.keys(list)) copyFileSync(path.join(from, name), path.join(folder, name));
    writeFileSync(path.join(folder, LIST), `${JSON.stringify(list, null, 2)}\n`);
  } catch (error) {
    if (error instanceof InlayError) throw error;
    throw new InlayError('ERR_FAILED', `cannot write the playground to ${folder}: ${errorCode(error) ?? error}`, {
      cause: error,
    });
  }
}

function refusal(folder: string, foreign: readonly string[]): InlayError {
  const message = `${folder} has ${foreign.join(', ')} already, not as inlay playground wrote it`;
  return new InlayError('ERR_FAILED', message, { hint: 'choose an empty folder, or move away what is in the way' });
}

/** What was written to `folder` before: nothing if there is no list; undefined if there is something else in its place. */
function listIn(folder: string): Map<string, unknown> | undefined {
  const file = path.join(folder, LIST);
  const sum = sumOf(file);
  if (sum === undefined) return new Map();
  if (sum === false) return undefined;
  try {
    const list = Object.entries(JSON.parse(readFileSync(file, 'utf8')));
    return list.every(([, value]) => /^[0-9a-f]{64}$/.test(String(value))) ? new Map(list) : undefined;
  } catch (error) {
    // No JSON, or JSON that has no entries.
    if (error instanceof SyntaxError || error instanceof TypeError) return undefined;
    throw error;
  }
}

/** The SHA-256 of a file in hexadecimal digits; false of a folder, or of a link, which may lead to anything. Undefined if there is nothing. */
function sumOf(file: string): string | false | undefined {
  const kind = lstatSync(file, { throwIfNoEntry: false });
  if (kind === undefined) return undefined;
  return kind.isFile() && createHash('sha256').update(readFileSync(file)).digest('hex');
}
