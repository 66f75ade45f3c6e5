/** What the mutations begin with: the vectors' packets as they are, and the inner packets of all of them. */
import { readdirSync, readFileSync } from 'node:fs';

const folder = new URL('../vectors/', import.meta.url);
const vectors = readdirSync(folder)
  .filter((name) => name.endsWith('.json'))
  .flatMap((name) => JSON.parse(readFileSync(new URL(name, folder), 'utf8')).vectors)
  .map(({ direction, input }) => ({ direction, bytes: new Uint8Array(Buffer.from(input, 'hex')) }));

/** By direction. */
export const WHOLE = Object.fromEntries(
  [...new Set(vectors.map(({ direction }) => direction))].map((direction) => [
    direction,
    vectors.filter((vector) => vector.direction === direction).map(({ bytes }) => bytes),
  ]),
);

/** Behind the outer header and GRE, as long as they say they are. */
function innerOf({ direction, bytes }) {
  if (direction === 'outbound') return bytes;
  const gre = (bytes[0] & 15) * 4;
  const options = [0x80, 0x20, 0x10].filter((flag) => bytes[gre] & flag).length;
  return bytes.subarray(gre + 4 + 4 * options);
}

export const INNER = vectors.map(innerOf).filter((packet) => packet.length >= 20);
