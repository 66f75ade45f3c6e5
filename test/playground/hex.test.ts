/** Bytes as text: what terminals print of a packet is read, and nothing else is taken for one. */
import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { bytesOf, hexOf, readHex } from '../../playground/packet/hex.ts';

/** 46 bytes, so that the last line of a dump is short; printable ones, which the text beside the bytes shows. */
const HEX = '4500002e00000000401125430a10205b0a102107fa8010e1001a0000beefcafe6465616462656566206661636520616263';
const EVEN = HEX.slice(0, HEX.length & ~1);
const bytes = bytesOf(EVEN);

const pairs = (line: Uint8Array) => Array.from(line, (byte) => byte.toString(16).padStart(2, '0'));
const printable = (line: Uint8Array) =>
  Array.from(line, (byte) => (byte > 31 && byte < 127 ? String.fromCharCode(byte) : '.')).join('');
const lines = (packet: Uint8Array) =>
  Array.from({ length: Math.ceil(packet.length / 16) }, (_, i) => ({
    at: 16 * i,
    line: packet.subarray(16 * i, 16 * i + 16),
  }));
const offset = (at: number, digits: number) => at.toString(16).padStart(digits, '0');
const groups = (line: Uint8Array) =>
  pairs(line)
    .join('')
    .match(/.{1,4}/g) ?? [];

/** As these programs print them, by their sources. */
const DUMPS: [string, (packet: Uint8Array) => string][] = [
  [
    'hexdump -C',
    (packet) =>
      lines(packet)
        .map(
          ({ at, line }) =>
            `${offset(at, 8)}  ${pairs(line.subarray(0, 8)).join(' ').padEnd(23)}  ${pairs(line.subarray(8)).join(' ').padEnd(23)}  |${printable(line)}|`,
        )
        .join('\n'),
  ],
  [
    'xxd',
    (packet) =>
      lines(packet)
        .map(({ at, line }) => `${offset(at, 8)}: ${groups(line).join(' ').padEnd(39)}  ${printable(line)}`)
        .join('\n'),
  ],
  [
    'od -A x -t x1',
    (packet) =>
      `${lines(packet)
        .map(({ at, line }) => `${offset(at, 6)} ${pairs(line).join(' ')}`)
        .join('\n')}\n${offset(packet.length, 6)}\n`,
  ],
  [
    'tcpdump -x',
    (packet) =>
      `12:00:00.000000 IP 10.16.32.91.64128 > 10.16.33.7.4321: UDP, length 18\n${lines(packet)
        .map(({ at, line }) => `\t0x${offset(at, 4)}:  ${groups(line).join(' ')}`)
        .join('\n')}`,
  ],
  [
    'tcpdump -X',
    (packet) =>
      lines(packet)
        .map(({ at, line }) => `\t0x${offset(at, 4)}:  ${groups(line).join(' ').padEnd(39)}  ${printable(line)}`)
        .join('\n'),
  ],
  [
    'tshark -x',
    (packet) =>
      lines(packet)
        .map(({ at, line }) => `${offset(at, 4)}  ${pairs(line).join(' ').padEnd(47)}   ${printable(line)}`)
        .join('\n'),
  ],
];

describe.each(DUMPS)('%s', (_, print) => {
  test('is read', () => {
    expect(readHex(print(bytes))).toEqual({ bytes });
  });

  test('of any bytes is read', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 70 }), (packet) => {
        expect(readHex(print(packet))).toEqual({ bytes: Uint8Array.from(packet) });
      }),
    );
  });

  test('of two packets is read up to the second, and says so', () => {
    expect(readHex(`${print(bytes)}\n${print(bytes)}`)).toEqual({ bytes, remark: 'the first of 2 packets was taken' });
  });
});

test('od, as this machine has it, is read', () => {
  const text = execFileSync('od', ['-A', 'x', '-t', 'x1'], { input: bytes, encoding: 'utf8' });
  expect(readHex(text)).toEqual({ bytes });
});

test.each([
  ['without anything between', '45000014'],
  ['in capitals', '4500001A'.replace('1A', '14')],
  ['with white space', ' 45 00\n\t00 14 \r\n'],
  ['with 0x and commas', '0x45, 0x00, 0x00, 0x14'],
  ['with one 0x', '0x45000014'],
  ['as in C strings', String.raw`\x45\x00\x00\x14`],
  ['with colons', '45:00:00:14'],
  ['with hyphens', '45-00-00-14'],
])('digits %s are read', (_, text) => {
  expect(readHex(text)).toEqual({ bytes: Uint8Array.of(0x45, 0, 0, 0x14) });
});

test.each([
  ['nothing', '  ', 'there are no hexadecimal digits yet'],
  ['an odd number of digits', '450', '3 hexadecimal digits: expected two for each byte'],
  ['other characters', '45 00\n00 1g', '"g" in line 2, column 5 is no hexadecimal digit'],
  ['markup', '<img src=x onerror=alert(1)>', '"<" in line 1, column 1 is no hexadecimal digit'],
  ['a character beyond 16 bits', '45 😀', '"😀" in line 1, column 4 is no hexadecimal digit'],
  ['more than IPv4 has', '00'.repeat(65_536), '65536 bytes: an IPv4 packet has at most 65535'],
])('%s is refused with the reason', (_, text, error) => {
  expect(readHex(text)).toEqual({ error });
});

// Where the work grew with the square of the length, any of these would take half an hour.
test.each([
  ['spaces behind the bytes', '0000: 4500', ' '],
  ['tabs behind the bytes', '0000: 4500', '\t'],
  ['spaces beside the bytes', '0000: 4500  ', 'a '],
  ['letters in one word', '0000: 4500 ', 'x'],
  ['bars', '0000: 4500 ', '|'],
  ['empty lines', '0000: 4500', '\n'],
  ['carriage returns', '0000: 4500', '\r'],
  ['lines of an offset', '0000: 4500\n', '0010:\n'],
  ['offsets on one line', '0000: 4500 ', '0000: '],
])('a dump with very many %s is read', (_, begin, more) => {
  expect(readHex(begin + more.repeat((1_048_576 - begin.length) / more.length))).toEqual({
    bytes: Uint8Array.of(0x45, 0),
  });
});

test.each([
  ['spaces', ' ', 'there are no hexadecimal digits yet'],
  ['carriage returns', '\r', 'there are no hexadecimal digits yet'],
  ['0x', '0x', 'there are no hexadecimal digits yet'],
  ['digits', '00', '524288 bytes: an IPv4 packet has at most 65535'],
])('nothing but %s is refused', (_, part, error) => {
  expect(readHex(part.repeat(1_048_576 / part.length))).toEqual({ error: expect.stringContaining(error) });
});

test('a text longer than any packet needs is not read', () => {
  expect(readHex(' '.repeat(1_048_577))).toEqual({
    error: '1048577 characters: no packet needs more than 1048576; a pcap file may hold many',
  });
  // However it is written, the longest packet may be pasted.
  const longest = new Uint8Array(65_535).fill(0x20);
  const texts = [...DUMPS.map(([, print]) => print(longest)), Array.from(longest, () => '0x20').join(',\r\n\t\t')];
  for (const text of texts) {
    const reading = readHex(text);
    expect('bytes' in reading && Buffer.compare(reading.bytes, longest)).toBe(0);
  }
});

test('what is written is read again, and no text whatever throws', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1 }), fc.constantFrom('', ' ', ':'), (packet, separator) => {
      expect(readHex(hexOf(packet, separator))).toEqual({ bytes: Uint8Array.from(packet) });
    }),
  );
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.string({ unit: fc.constantFrom(...'0123456789abcdefx: \n|\t.') })), (text) => {
      const reading = readHex(text);
      expect('error' in reading || reading.bytes.length > 0).toBe(true);
    }),
  );
});
