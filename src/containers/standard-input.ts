/** What a container runtime says on standard input: one JSON object. */
import { errorCode } from '../errors.ts';
import { readAll } from '../linux/whole.ts';
import { isObject, type JsonObject } from './json.ts';
import { ContainerError } from './reasons.ts';

const STDIN = 0;
/** Bytes. A runtime sends a few thousand, but for the labels that users give. */
const LONGEST = 1 << 20;

/** Throws ContainerError. */
export function readObject(what: string): JsonObject {
  const bytes = read(what);
  if (bytes.length > LONGEST) throw new ContainerError('invalid', `${what} is longer than ${LONGEST} bytes`);
  return objectIn(new TextDecoder().decode(bytes), what);
}

function read(what: string): Uint8Array {
  try {
    return readAll(STDIN, LONGEST);
  } catch (cause) {
    throw new ContainerError('invalid', `${what} cannot be read from standard input: ${errorCode(cause)}`, { cause });
  }
}

/** Throws ContainerError. */
function objectIn(text: string, what: string): JsonObject {
  try {
    const value: unknown = JSON.parse(text);
    if (isObject(value)) return value;
  } catch {}
  throw new ContainerError('invalid', `${what} is not a JSON object`, {
    hint: 'a container runtime runs this, and writes it on standard input',
  });
}
