/**
 * Fragmenting inner packets that do not fit their tunnel, where they may be (RFC 791 §3.2): the containers' hosts put
 * them together again, and the underlay never has to. Headers are made in blocks; the data stays where it is.
 */
import * as abi from '../abi.ts';
import { takeBlock } from './blocks.ts';
import { getI32, getU8, type Memory, putI32, putU8 } from './bytes.ts';
import { fold, sum } from './checksum.ts';
import { putSegment } from './cut.ts';
import { outerLength, outerTtl, putOuter } from './encapsulation.ts';
import * as ipv4 from './ipv4.ts';
import { addContent, addPiece, messageForFragment } from './messages.ts';
import { NO_OPERATION, optionLength } from './options.ts';
import { outerService } from './service.ts';
import { headersLength } from './virtio.ts';

/** Set in the first byte of an option that is in all fragments; the others are in the first only (RFC 791 §3.1). */
const COPIED = 0x80;

/** Of a number of bytes, what is a number of units of 8: so much is in all fragments but the last, which holds what fits. */
const WHOLE_UNITS = ~7;

/** How many fragments of at most `limit` bytes a packet of `total` bytes makes, of which `header` are the IPv4 header. */
export function fragmentsOf(total: number, header: number, limit: number): number {
  const most = limit - header;
  return 1 + Math.max(Math.ceil((total - limit) / (most & WHOLE_UNITS)), 0);
}

/** How many fragments the segments of the super-packet at `p` make, which has `size` bytes of payload in all but the last. */
export function fragmentsOfCut(memory: Memory, p: number, size: number, limit: number): number {
  const header = ipv4.headerLength(memory, p);
  const headers = headersLength(memory, p);
  const payload = ipv4.totalLength(memory, p) - headers;
  const full = Math.ceil(payload / size) - 1;
  const last = headers + payload - full * size;
  return full * fragmentsOf(headers + size, header, limit) + fragmentsOf(last, header, limit);
}

/**
 * Makes each fragment of the packet at `p` a message. The first `near` bytes of the packet lie there, the others at `far`;
 * `near` is even.
 */
export function sendFragments(
  memory: Memory,
  p: number,
  near: number,
  far: number,
  limit: number,
  options: number,
  tunnel: number,
  vm: number,
  port: number,
): void {
  const outer = outerLength(memory, options);
  const tos = outerService(memory, p, options);
  const ttl = outerTtl(memory, p, options);
  const header = ipv4.headerLength(memory, p);
  const total = ipv4.totalLength(memory, p);
  const most = limit - header;
  for (let start = header, length = 0; start < total; start += length) {
    length = total - start <= most ? total - start : most & WHOLE_UNITS;
    const block = takeBlock(memory);
    const fragment = block + outer;
    putFragment(memory, fragment, p, start - header, length);

    const nearLength = Math.min(Math.max(near - start, 0), length);
    const farLength = length - nearLength;
    const farStart = far + start + nearLength - near;
    const innerSum =
      (options & abi.OPTION_CHECKSUM) === 0
        ? 0
        : fold(sum(memory, fragment, header) + sum(memory, p + start, nearLength) + sum(memory, farStart, farLength));
    putOuter(memory, fragment, options, tunnel, vm, tos, ttl, innerSum);

    const message = messageForFragment(memory, port, vm, tos, ttl);
    addPiece(memory, message, block, outer + header);
    if (nearLength !== 0) addPiece(memory, message, p + start, nearLength);
    if (farLength !== 0) addPiece(memory, message, farStart, farLength);
    addContent(memory, message, 1, header + length);
  }
}

/** Makes the fragments of each segment of the super-packet at `p` messages; the segment's own headers are made in a block too. */
export function sendCutFragments(
  memory: Memory,
  p: number,
  headers: number,
  size: number,
  limit: number,
  options: number,
  tunnel: number,
  vm: number,
  port: number,
): void {
  const outer = outerLength(memory, options);
  const payload = ipv4.totalLength(memory, p) - headers;
  for (let n = 0, offset = 0; offset < payload; n++, offset += size) {
    const segment = takeBlock(memory) + outer;
    putSegment(memory, segment, p, headers, n, offset, Math.min(size, payload - offset));
    sendFragments(memory, segment, headers, p + headers + offset, limit, options, tunnel, vm, port);
  }
}

/** Puts at `f` the header of the fragment of the packet at `p` with `length` bytes of data, from `offset` on. */
function putFragment(memory: Memory, f: number, p: number, offset: number, length: number): void {
  const header = ipv4.headerLength(memory, p);
  for (let i = 0; i < header; i += 4) putI32(memory, f + i, getI32(memory, p + i));
  if (offset !== 0) dropOptions(memory, f, header);

  const old = ipv4.flagsAndOffset(memory, p);
  const isLast = header + offset + length === ipv4.totalLength(memory, p);
  const more = isLast ? old & ipv4.MORE_FRAGMENTS : ipv4.MORE_FRAGMENTS;
  const place = (old + offset / 8) & ipv4.OFFSET_MASK;
  ipv4.divide(memory, f, header + length, (old & ipv4.RESERVED_FLAG) | more | place);
}

/** Overwrites the options that are in the first fragment only; the header keeps its length. */
function dropOptions(memory: Memory, f: number, header: number): void {
  const end = f + header;
  for (let o = f + ipv4.IPV4_LENGTH; o < end; ) {
    const length = optionLength(memory, o, end);
    if (length === 0) return;
    if ((getU8(memory, o) & COPIED) === 0) {
      for (let i = 0; i < length; i++) putU8(memory, o + i, NO_OPERATION);
    }
    o += length;
  }
}
