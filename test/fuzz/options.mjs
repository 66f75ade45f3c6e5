/** Options of IPv4 and TCP headers: mostly lists that make sense, in all sorts of places. */
import { put16 } from './bytes.mjs';

/** The end, no operation, some that are not copied into fragments, some that are (RFC 791 §3.1), and those of TCP. */
const KINDS = [0, 1, 1, 1, 2, 2, 2, 2, 3, 4, 5, 7, 8, 68, 130, 131, 137, 148];
/** The kind of TCP's maximum segment size, and sizes around those that the limits lead to. */
const MSS = 2;
const SIZES = [0, 27, 28, 29, 60, 536, 1236, 1237, 1396, 1436, 1437, 1460, 65535];

/** Fills the bytes from `start` up to `end` with options. */
export function putOptions(bytes, start, end, random) {
  if (random.chance(5)) return random.fill(bytes, start, end);
  for (let at = start; at < end; ) {
    const kind = random.pick(KINDS);
    const rest = end - at;
    bytes[at] = kind;
    if (kind < 2 || rest < 2) {
      at++;
      continue;
    }
    const length = kind === MSS && random.chance(90) ? 4 : random.between(2, Math.min(rest, 11));
    bytes[at + 1] = random.chance(95) ? length : random.pick([0, 1, rest, rest + 1, 255]);
    for (let i = at + 2; i < Math.min(at + length, end); i++) bytes[i] = random.below(256);
    if (kind === MSS && rest >= 4) put16(bytes, at + 2, random.chance(80) ? random.pick(SIZES) : random.below(65536));
    at += length;
  }
}
