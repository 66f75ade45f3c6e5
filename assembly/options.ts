/** Options of IPv4 (RFC 791 §3.1) and TCP (RFC 9293 §3.1), which are walked alike. */

// From the specifications.
const END: u32 = 0;
export const NO_OPERATION: u32 = 1;

/** Bytes of the option at `p`, 0 if there is none or it is not whole before `end`. */
export function optionLength(p: usize, end: usize): usize {
  if (p >= end) return 0;
  const kind = <u32>load<u8>(p);
  if (kind === END) return 0;
  if (kind === NO_OPERATION) return 1;
  if (p + 1 >= end) return 0;
  const length = <usize>load<u8>(p + 1);
  return length < 2 || p + length > end ? 0 : length;
}
