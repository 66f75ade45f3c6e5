/** Bytes as hexadecimal text: written plainly, and read from whatever a terminal shows of a packet. */

/** The longest IPv4 packet, in bytes. */
const MOST_BYTES = 0xffff;
/**
 * The longest text that is read, in characters: 16 for each byte of the longest packet. hexdump -C takes 5, and 0x and
 * commas take 6, so that a few packets more may follow. All that is done with a text takes time in proportion to it.
 */
const MOST_TEXT = 16 * (MOST_BYTES + 1);
/** What hexdump, xxd, od, tcpdump and tshark show on one line. */
const BYTES_PER_LINE = 16;

/** What was read: bytes and a remark for whoever pasted it; or why nothing could be read. */
export type Reading = { bytes: Uint8Array<ArrayBuffer>; remark?: string } | { error: string };

/** Two digits a byte, with `separator` between bytes. */
export function hexOf(bytes: Uint8Array, separator = ''): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join(separator);
}

/**
 * Reads hexadecimal digits with anything usual between them (white space, 0x, \x, commas, colons), or the first
 * packet of a dump with offsets, as hexdump -C, xxd, od -t x1, tcpdump -x and -X, and tshark -x print it.
 */
export function readHex(text: string): Reading {
  if (text.length > MOST_TEXT) {
    return { error: `${text.length} characters: no packet needs more than ${MOST_TEXT}; a pcap file may hold many` };
  }
  const lines = text.split(/\r?\n/);
  const digits = lines.some((line) => isFirstLine(line)) ? dumped(lines) : plain(text);
  if (typeof digits !== 'string') return digits;
  if (digits.length === 0) return { error: 'there are no hexadecimal digits yet' };
  if (digits.length % 2 === 1) return { error: `${digits.length} hexadecimal digits: expected two for each byte` };
  if (digits.length > 2 * MOST_BYTES) {
    return { error: `${digits.length / 2} bytes: an IPv4 packet has at most ${MOST_BYTES}` };
  }
  const packets = lines.filter((line) => isFirstLine(line)).length;
  const remark = packets > 1 ? { remark: `the first of ${packets} packets was taken` } : {};
  return { bytes: bytesOf(digits), ...remark };
}

/** The bytes of an even number of hexadecimal digits. */
export function bytesOf(digits: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: digits.length / 2 }, (_, i) => Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}

function plain(text: string): string | { error: string } {
  // Of the same length, so that a place in it is one in what was pasted.
  const digits = text.replace(/0x|\\x/gi, '  ').replace(/[\s,:;_-]/g, ' ');
  const at = digits.search(/[^0-9a-f ]/i);
  if (at >= 0) {
    const before = text.slice(0, at).split('\n');
    const where = `line ${before.length}, column ${(before.at(-1) ?? '').length + 1}`;
    return { error: `"${String.fromCodePoint(text.codePointAt(at) ?? 0)}" in ${where} is no hexadecimal digit` };
  }
  return digits.replaceAll(' ', '').toLowerCase();
}

// Dumps: an offset, the bytes of a line, and perhaps the same as text.

/** An offset ends with a colon or with much space; od's has six digits or more, and one space. */
const OFFSET = /^\s*(?:0x)?([0-9a-f]{4,8})(?::\s*|\s{2,}|\t|(?<=[0-9a-f]{6}) (?=[0-9a-f]{2}(?:\s|$)))(?=[0-9a-f]{2})/i;

function isFirstLine(line: string): boolean {
  return /^0+$/.test(OFFSET.exec(line)?.[1] ?? '');
}

/** The digits of the first packet; lines without an offset, such as those that tcpdump puts before, are passed over. */
function dumped(lines: readonly string[]): string {
  let digits = '';
  let isInside = false;
  for (const line of lines) {
    const offset = OFFSET.exec(line);
    if (!offset) continue;
    if (isFirstLine(line)) {
      if (isInside) break;
      isInside = true;
    }
    if (isInside) digits += lineDigits(line.slice(offset[0].length));
  }
  return digits.toLowerCase();
}

/** The digits of one line, without the text beside them. */
function lineDigits(line: string): string {
  const [shown = ''] = line.split('|');
  let digits = '';
  // White space with nothing behind it would be looked through from each of its places: xxd pads with it.
  for (const [, space = '', word = ''] of shown.trimEnd().matchAll(/(\s*)(\S+)/g)) {
    // Groups of one byte have a wider gap in the middle of a line; any other wide gap ends the bytes.
    const isMiddle = space.length === 2 && digits.length === BYTES_PER_LINE && word.length === 2;
    if (space.length >= 2 && !isMiddle) break;
    if (!/^([0-9a-f]{2})+$/i.test(word) || digits.length + word.length > 2 * BYTES_PER_LINE) break;
    digits += word;
  }
  return digits;
}
