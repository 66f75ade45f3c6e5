/** The netlink codecs: what is put is what is got, and whatever comes, nothing is read that is not there. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import * as codec from '../../src/linux/netlink/codec.ts';
import {
  acknowledgement,
  type Message,
  messagesIn,
  putAcknowledgement,
  putMessage,
} from '../../src/linux/netlink/message.ts';
import { examples } from './arbitraries.ts';

const { Writer, attributes, struct } = codec;

/** Type, start and end of each attribute's value, read by another way than the codec's. */
function attributesIn(view: DataView, start: number, end: number): [type: number, start: number, end: number][] {
  if (end - start < 4) return [];
  const length = view.getUint16(start, true);
  const rest = attributesIn(view, start + 4 * Math.ceil(length / 4), end);
  return [[view.getUint16(start + 2, true), start + 4, start + length], ...rest];
}

const numbers = {
  u8: codec.u8,
  u16: codec.u16,
  u32: codec.u32,
  s32: codec.s32,
  u64: codec.u64,
  be16: codec.be16,
  be32: codec.be32,
};

function put<T>(of: codec.Codec<T>, value: T): Uint8Array<ArrayBuffer> {
  const writer = new Writer();
  of.put(writer, value);
  return writer.bytes.slice();
}

const viewOf = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** What is in these bytes, with others before and behind them. */
function get<T>(of: codec.Codec<T>, bytes: Uint8Array, outside = 0): T {
  const all = new Uint8Array(bytes.length + 64).fill(outside);
  all.set(bytes, 32);
  return of.get(viewOf(all.subarray(16)), 16, 16 + bytes.length);
}

/** The same, or the RangeError instead. */
function tryGet(of: codec.Codec<unknown>, bytes: Uint8Array, outside: number): unknown {
  return orRangeError(() => get(of, bytes, outside));
}

function orRangeError(act: () => unknown): unknown {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    return error.message;
  }
}

/** These attributes, one behind the other. */
function list(...all: readonly (readonly [type: number, bytes: Uint8Array])[]): Uint8Array<ArrayBuffer> {
  const writer = new Writer();
  for (const [type, value] of all) codec.putAttribute(writer, type, codec.bytes, value);
  return writer.bytes.slice();
}

/** A message's body with each of its attributes changed. */
function mapAttributes(
  body: Uint8Array,
  header: number,
  map: (type: number, value: Uint8Array) => (readonly [number, Uint8Array])[],
): Uint8Array {
  const found = [...attributesIn(viewOf(body), header, body.length)];
  const mapped = found.flatMap(([type, start, end]) => map(type, body.subarray(start, end)));
  return Uint8Array.of(...body.subarray(0, header), ...list(...mapped));
}

/** Random bytes, and a message's with some of them changed or missing. */
const damaged = (values: fc.Arbitrary<object>, of: codec.Codec<object>) =>
  fc.oneof(
    fc.uint8Array({ maxLength: 100 }),
    fc
      .tuple(values, fc.nat(300), fc.array(fc.tuple(fc.nat(200), fc.nat(255)), { maxLength: 4 }))
      .map(([value, length, changes]) => {
        const bytes = put(of, value).slice(0, length);
        for (const [at, byte] of changes) if (at < bytes.length) bytes[at] = byte;
        return bytes;
      }),
  );

describe.each(examples)('$name', ({ codec: of, header, values }) => {
  test('what is put is what is got', () => {
    const property = fc.property(values, (value) => {
      expect(get(of, put(of, value), 0xff)).toEqual(value);
    });
    fc.assert(property);
  });

  test('fields that are not given are zero, and attributes that are not given are not there', () => {
    expect(put(of, {})).toEqual(new Uint8Array(header));
    expect(Object.values(get(of, put(of, {}))).every((value) => value === 0)).toBe(true);
  });

  test('all begins at a multiple of 4, and padding is zero', () => {
    const property = fc.property(values, (value) => {
      const bytes = put(of, value);
      expect(bytes.length % 4).toBe(0);
      let end = header;
      for (const [, from, to] of attributesIn(viewOf(bytes), header, bytes.length)) {
        expect(from - 4 - end).toBeLessThan(4);
        expect(bytes.subarray(end, from - 4).every((byte) => byte === 0)).toBe(true);
        end = to;
      }
      expect(bytes.length - end).toBeLessThan(4);
    });
    fc.assert(property);
  });

  test('unknown attributes are passed over, NLA_F_NESTED and NLA_F_NET_BYTEORDER are no part of the type, and the last of several counts', () => {
    const other = [0x3abc, Uint8Array.of(1, 2, 3)] as const;
    const property = fc.property(values, (value) => {
      const bytes = mapAttributes(put(of, value), header, (type, inside) => [
        ...[other, [type | 0x4000, inside] as const, other, [type | 0x8000, inside] as const, other],
      ]);
      expect(get(of, bytes)).toEqual(value);
    });
    fc.assert(property);
  });

  test('whatever comes, it is read or refused with a RangeError, no matter what is around it', () => {
    const property = fc.property(damaged(values, of), (bytes) => {
      expect(tryGet(of, bytes, 0)).toEqual(tryGet(of, bytes, 0xff));
    });
    fc.assert(property, { numRuns: 500 });
  });

  test('a structure that is cut short is refused', () => {
    for (let length = 0; length < header; length++)
      expect(() => get(of, new Uint8Array(length), 0xff)).toThrow(RangeError);
  });
});

describe('numbers', () => {
  test.each([
    ['u8', 0, '00'],
    ['u8', 0xff, 'ff'],
    ['u16', 0xfffe, 'feff'],
    ['u32', 0x01020304, '04030201'],
    ['u32', 0xffffffff, 'ffffffff'],
    ['s32', -1, 'ffffffff'],
    ['s32', -0x80000000, '00000080'],
    ['s32', 0x7fffffff, 'ffffff7f'],
    ['u64', 0, '0000000000000000'],
    ['u64', Number.MAX_SAFE_INTEGER, 'ffffffffffff1f00'],
    ['be16', 0x0102, '0102'],
    ['be16', 0xffff, 'ffff'],
    ['be32', 0x01020304, '01020304'],
    ['be32', 0xfffffffe, 'fffffffe'],
  ] as const)('%s %i', (name, value, hex) => {
    const of = numbers[name];
    expect(Buffer.from(put(of, value)).toString('hex')).toBe(hex);
    expect(of.size).toBe(hex.length / 2);
    expect(get(of, Buffer.from(hex, 'hex'), 0xaa)).toBe(value);
    expect(() => get(of, new Uint8Array(of.size - 1), 0xaa)).toThrow(RangeError);
    expect(get(of, Buffer.from(`${hex}bb`, 'hex'))).toBe(value); // The kernel's next version may say more.
  });

  test('a u64 beyond 2^53 is nearly right', () => {
    expect(get(codec.u64, new Uint8Array(8).fill(0xff))).toBe(2 ** 64);
  });
});

describe('text', () => {
  test.each([
    ['ends at its zero', [0x61, 0x62, 0, 0x63], 'ab'],
    ['needs no zero', [0x61, 0x62], 'ab'],
    ['may be empty', [], ''],
    ['is UTF-8', [0xc3, 0xa4, 0], 'ä'],
    ['that is no UTF-8 is read all the same', [0xff, 0x61, 0], '\ufffda'],
  ])('%s', (_, bytes, value) => expect(get(codec.text, Uint8Array.from(bytes), 0x7a)).toBe(value));

  test('has a zero when it is put', () => expect(put(codec.text, 'ä')).toEqual(Uint8Array.of(0xc3, 0xa4, 0)));
});

test('bytes are a view of where they came in', () => {
  const buffer = Uint8Array.of(1, 2, 3);
  const got = codec.bytes.get(viewOf(buffer), 1, 3);
  buffer.fill(9);
  expect(got).toEqual(Uint8Array.of(9, 9));
});

test('a flag is an attribute without a value', () => {
  const of = attributes({ yes: [1, codec.flag] });
  expect(put(of, { yes: true })).toEqual(Uint8Array.of(4, 0, 1, 0));
  expect(get(of, put(of, { yes: true }))).toEqual({ yes: true });
  expect(put(of, {})).toHaveLength(0);
  // IFLA_VXLAN_TTL_INHERIT is asked for by a flag, and told by a byte.
  expect(get(of, list([1, Uint8Array.of(1)]))).toEqual({ yes: true });
  expect(get(of, list([1, Uint8Array.of(0)]))).toEqual({});
});

test('a structure keeps to its offsets, and leaves the rest zero, also when it makes the buffer grow', () => {
  const of = struct(8, { a: [1, codec.u8], b: [4, codec.be16] });
  const writer = new Writer();
  writer.take(509);
  of.put(writer, { a: 1, b: 0x0203 });
  expect(writer.bytes.subarray(509)).toEqual(Uint8Array.of(0, 1, 0, 0, 2, 3, 0, 0));
});

test('an attribute may be as long as its length can say', () => {
  const long = new Uint8Array(0xffff - 4).fill(7);
  const [found] = attributesIn(viewOf(list([1, long])), 0, 0xffff + 1);
  expect(found).toEqual([1, 4, 0xffff]);
  expect(() => list([1, new Uint8Array(0xffff - 3)])).toThrow(RangeError);
});

describe('attributes with a wrong length', () => {
  test.each([
    ['0, which would never end', [0, 0, 1, 0]],
    ['less than its header', [3, 0, 1, 0]],
    ['more than there is', [9, 0, 1, 0, 1, 2, 3, 4]],
    ['far more than there is', [0xff, 0xff, 1, 0, 1, 2, 3, 4]],
    ['more than there is, behind a good one', [8, 0, 1, 0, 1, 2, 3, 4, 5, 0, 1, 0]],
  ])('%s', (_, bytes) => {
    expect(() => get(attributes({}), Uint8Array.from(bytes), 0xaa)).toThrow(RangeError);
  });

  test('fewer bytes than a header at the end are no attribute', () => {
    expect(get(attributes({ a: [1, codec.u8] }), Uint8Array.of(5, 0, 1, 0, 7, 0, 0, 0, 9, 9, 9))).toEqual({ a: 7 });
  });

  test('the padding of the last one may be missing', () => {
    expect(get(attributes({ a: [1, codec.u8] }), Uint8Array.of(5, 0, 1, 0, 7))).toEqual({ a: 7 });
  });
});

describe('messages', () => {
  const header = fc.record({ type: u(16), flags: u(16), sequence: u(32), port: u(32) });
  function u(bits: number) {
    return fc.integer({ min: 0, max: 2 ** bits - 1 });
  }
  /** Each with its body. */
  const all = (datagram: Uint8Array) =>
    [...messagesIn(datagram)].map(({ view, start, end, ...rest }) => ({
      ...rest,
      body: new Uint8Array(view.buffer, view.byteOffset + start, end - start).slice(),
    }));

  test('what is put is what is got, many in one datagram', () => {
    const body = fc.uint8Array({ maxLength: 40 });
    const list = fc.array(fc.tuple(header, body).map(([fields, bytes]) => ({ ...fields, body: bytes })));
    const property = fc.property(list, (messages) => {
      const writer = new Writer();
      for (const message of messages) putMessage(writer, message, (w) => codec.bytes.put(w, message.body));
      const around = new Uint8Array(writer.length + 8).fill(0xff);
      around.set(writer.bytes, 4);
      expect(all(around.subarray(4, -4))).toEqual(messages);
    });
    fc.assert(property);
  });

  test.each([
    ['0, which would never end', '00000000 1000 0000 00000000 00000000'],
    ['less than its header', '0f000000 1000 0000 00000000 00000000'],
    ['more than there is', '11000000 1000 0000 00000000 00000000'],
    ['4 GiB', 'ffffffff 1000 0000 00000000 00000000'],
    ['4 GiB, but for a header', 'f0ffffff 1000 0000 00000000 00000000'],
  ])('a length of %s is refused', (_, hex) => {
    expect(() => all(Buffer.from(hex.replaceAll(' ', ''), 'hex'))).toThrow(RangeError);
  });

  test('whatever comes, it is read or refused with a RangeError', () => {
    const random = fc.uint8Array({ maxLength: 100 });
    const plausible = fc
      .tuple(fc.nat(60), fc.constantFrom(2, 3), u(16), fc.uint8Array({ maxLength: 60 }))
      .map(([length, type, flags, rest]) => {
        const writer = new Writer();
        putMessage(writer, { type, flags, sequence: 0 }, (w) => codec.bytes.put(w, rest));
        if (length > 40) writer.view.setUint32(0, length, true);
        return writer.bytes.slice();
      });
    const property = fc.property(fc.oneof(random, plausible), (bytes) => {
      orRangeError(() => [...messagesIn(bytes)].map(acknowledgement));
    });
    fc.assert(property, { numRuns: 1000 });
  });
});

describe('acknowledgements', () => {
  const one = (bytes: Uint8Array): Message => [...messagesIn(bytes)][0] as Message;
  function message(type: number, flags: number, hex: string): Message {
    const writer = new Writer();
    putMessage(writer, { type, flags, sequence: 1 }, (w) => codec.bytes.put(w, Buffer.from(hex, 'hex')));
    return one(writer.bytes);
  }
  const echoed = '14000000 2000 0500 01000000 00000000 61626364'.replaceAll(' ', '');
  const words = '08000100 6e6f2100'.replaceAll(' ', '');

  test.each([0, 1, 2, 17, 110, 4095])('errno %i', (errno) => {
    for (const said of [undefined, '', 'Device not found']) {
      const writer = new Writer();
      putAcknowledgement(writer, message(32, 5, ''), errno, said);
      expect(acknowledgement(one(writer.bytes))).toEqual(said === undefined ? { errno } : { errno, words: said });
    }
  });

  test.each([
    ['the whole request, and words', 2, 0x200, `feffffff${echoed}${words}`, { errno: 2, words: 'no!' }],
    [
      'the header of the request, and words',
      2,
      0x300,
      `feffffff${echoed.slice(0, 32)}${words}`,
      { errno: 2, words: 'no!' },
    ],
    ['words that are not announced', 2, 0x100, `feffffff${echoed.slice(0, 32)}${words}`, { errno: 2 }],
    ['the whole request and nothing else', 2, 0x200, `feffffff${echoed}`, { errno: 2 }],
    ['the end of a dump that failed, and words', 3, 0x202, `feffffff${words}`, { errno: 2, words: 'no!' }],
    ['the end of a dump', 3, 2, '00000000', { errno: 0 }],
    ['the end of a dump, and nothing else', 3, 2, '', { errno: 0 }],
  ])('%s', (_, type, flags, hex, expected) => {
    expect(acknowledgement(message(type, flags, hex))).toEqual(expected);
  });

  test.each(['f0ffffff', 'e0ffffff', 'ffffffff', '00000080', '04000000', '40000000'])(
    'a request that claims to have %s bytes is refused',
    (length) => {
      const bad = message(2, 0x200, `feffffff${length}${echoed.slice(8)}${words}`);
      expect(() => acknowledgement(bad)).toThrow(RangeError);
    },
  );
});
