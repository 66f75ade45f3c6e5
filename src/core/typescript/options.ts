/** Options of IPv4 headers (RFC 791 §3.1) and of TCP headers (RFC 9293 §3.1): both are lists of the same form. */
import { loadU8, type Memory } from './bytes.ts';

// From the specification. One byte, or several:
//
//     0      1                     length
//     | kind | length of all of it |

/** Ends the list. */
const END = 0;
/** One byte that says nothing. */
export const NO_OPERATION = 1;
/** Bytes in an option that carries nothing. */
const MIN_LENGTH = 2;

/** Bytes in the option at `p`, in a list that ends before `end`; 0 if the list ends here, or makes no sense from here on. */
export function optionLength(memory: Memory, p: number, end: number): number {
  const kind = loadU8(memory, p);
  if (kind === END) return 0;
  if (kind === NO_OPERATION) return 1;
  if (p + MIN_LENGTH > end) return 0;
  const length = loadU8(memory, p + 1);
  return length < MIN_LENGTH || p + length > end ? 0 : length;
}
