/**
 * SHA-256 (FIPS 180-4) for the names of containers' links. node:crypto has it, too, but takes 3 to 5 ms to
 * load, which is a tenth of what it takes to attach a container by CNI.
 */

const ROUNDS = 64;
/** Bytes of a block, and of the length at the end of the last one. */
const BLOCK = 64;
const LENGTH = 8;

/** The first 32 bits of the fractions of the square roots and the cube roots of the first primes (§4.2.2, §5.3.3). */
const START = new Int32Array(8);
const CONSTANTS = new Int32Array(ROUNDS);
for (let number = 2, count = 0; count < ROUNDS; number++) {
  if (!isPrime(number)) continue;
  if (count < START.length) START[count] = fraction(Math.sqrt(number));
  CONSTANTS[count++] = fraction(Math.cbrt(number));
}

function isPrime(number: number): boolean {
  for (let divisor = 2; divisor * divisor <= number; divisor++) if (number % divisor === 0) return false;
  return true;
}

function fraction(root: number): number {
  return (root % 1) * 2 ** 32;
}

/** The 32 bytes of the hash of a text in UTF-8. */
export function sha256(text: string): Buffer {
  const message = Buffer.from(text);
  const padded = Buffer.alloc(Math.ceil((message.length + 1 + LENGTH) / BLOCK) * BLOCK);
  message.copy(padded);
  padded[message.length] = 0x80;
  padded.writeUInt32BE(message.length * 8, padded.length - 4);
  const hash = START.slice();
  const words = new Int32Array(ROUNDS);
  for (let at = 0; at < padded.length; at += BLOCK) addBlock(hash, words, padded, at);
  const bytes = Buffer.alloc(hash.byteLength);
  for (const [i, word] of hash.entries()) bytes.writeInt32BE(word, 4 * i);
  return bytes;
}

/** §6.2.2; the names are those of the standard. */
function addBlock(hash: Int32Array, W: Int32Array, bytes: Buffer, at: number): void {
  for (let t = 0; t < ROUNDS; t++) {
    if (t < 16) W[t] = bytes.readInt32BE(at + 4 * t);
    else
      W[t] =
        smallSigma(word(W, t - 2), 17, 19, 10) +
        word(W, t - 7) +
        smallSigma(word(W, t - 15), 7, 18, 3) +
        word(W, t - 16);
  }
  let [a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0] = hash;
  for (let t = 0; t < ROUNDS; t++) {
    const T1 = h + bigSigma(e, 6, 11, 25) + ((e & f) ^ (~e & g)) + word(CONSTANTS, t) + word(W, t);
    const T2 = bigSigma(a, 2, 13, 22) + ((a & b) ^ (a & c) ^ (b & c));
    [h, g, f, e, d, c, b, a] = [g, f, e, (d + T1) | 0, c, b, a, (T1 + T2) | 0];
  }
  for (const [i, value] of [a, b, c, d, e, f, g, h].entries()) hash[i] = word(hash, i) + value;
}

function word(words: Int32Array, i: number): number {
  return words[i] as number;
}

function rotated(x: number, by: number): number {
  return (x >>> by) | (x << (32 - by));
}

function bigSigma(x: number, i: number, j: number, k: number): number {
  return rotated(x, i) ^ rotated(x, j) ^ rotated(x, k);
}

function smallSigma(x: number, i: number, j: number, shift: number): number {
  return rotated(x, i) ^ rotated(x, j) ^ (x >>> shift);
}
