/** What a container runtime says on standard input: one JSON object. */
import { ContainerError } from './reasons.ts';

/** Bytes. A runtime sends a few thousand, but for the labels that users give. */
const LONGEST = 1 << 20;

export type JsonObject = Readonly<Record<string, unknown>>;

/** Throws ContainerError. */
export async function readObject(stream: AsyncIterable<Buffer>, what: string): Promise<JsonObject> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > LONGEST) throw new ContainerError('invalid', `${what} is longer than ${LONGEST} bytes`);
    chunks.push(chunk);
  }
  return objectIn(Buffer.concat(chunks).toString(), what);
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

export function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
