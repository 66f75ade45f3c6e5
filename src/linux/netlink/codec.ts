/**
 * What netlink messages are made of: numbers, fixed structures, and attributes (struct nlattr,
 * <linux/netlink.h>). Each codec is written down once and works both ways. Netlink is in host byte order,
 * here little-endian, but for what is named be16 and be32.
 */

export interface Decoder<T> {
  /** The value between two offsets. Throws RangeError if it is cut short. */
  get(view: DataView, start: number, end: number): T;
}

/** Reads one kind of value, and writes it; what is written may have gaps that are read as zeroes. */
export interface Codec<T, P = T> extends Decoder<T> {
  put(writer: Writer, value: P): void;
}

/** A codec whose values all have the same number of bytes, so that it can be part of a structure. */
export interface Fixed<T> extends Codec<T> {
  readonly size: number;
}

/** A codec of several values, which can be read into an object that has others already. */
export interface Filler<T, P = T> extends Codec<T, P> {
  fill(into: Record<string, unknown>, view: DataView, start: number, end: number): void;
}

/** The type of a codec's values, as they are read. */
export type ValueOf<C> = C extends Decoder<infer T> ? T : never;
/** The same, as they are written. */
// biome-ignore lint/suspicious/noExplicitAny: any type of what is read.
export type PutOf<C> = C extends Codec<any, infer P> ? P : never;

/** Every attribute and message begins at a multiple of this (NLA_ALIGNTO, NLMSG_ALIGNTO). */
const ALIGNMENT = 4;
/** nla_len and nla_type. */
const ATTRIBUTE_HEADER = 4;
const MAX_ATTRIBUTE = 0xffff;
/** Without NLA_F_NESTED and NLA_F_NET_BYTEORDER, which the kernel sets now and then. */
const NLA_TYPE_MASK = 0x3fff;

export function align(length: number): number {
  return (length + ALIGNMENT - 1) & -ALIGNMENT;
}

/** Bytes that grow; new ones are zero. */
export class Writer {
  #all = new Uint8Array(512);
  view: DataView<ArrayBuffer> = new DataView(this.#all.buffer);
  length = 0;

  /** Appends room for so many bytes; returns its offset. */
  take(size: number): number {
    const at = this.length;
    this.length += size;
    if (this.length > this.#all.length) {
      const larger = new Uint8Array(Math.max(this.length, 2 * this.#all.length));
      larger.set(this.#all);
      this.#all = larger;
      this.view = new DataView(larger.buffer);
    }
    return at;
  }

  /** Begins anew. */
  clear(): void {
    this.#all.fill(0, 0, this.length);
    this.length = 0;
  }

  append(bytes: Uint8Array): void {
    const at = this.take(bytes.length);
    this.#all.set(bytes, at);
  }

  pad(): void {
    this.take(align(this.length) - this.length);
  }

  /** What was written, until the next write. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#all.subarray(0, this.length);
  }
}

function number(
  size: number,
  put: (view: DataView, at: number, value: number) => void,
  get: (view: DataView, at: number) => number,
): Fixed<number> {
  return {
    size,
    put: (writer, value) => {
      const at = writer.take(size);
      put(writer.view, at, value);
    },
    get: (view, start, end) => {
      if (end - start < size) throw new RangeError(`a value of ${end - start} bytes: expected ${size}`);
      return get(view, start);
    },
  };
}

export const u8: Fixed<number> = number(
  1,
  (view, at, value) => view.setUint8(at, value),
  (view, at) => view.getUint8(at),
);
export const u16: Fixed<number> = number(
  2,
  (view, at, value) => view.setUint16(at, value, true),
  (view, at) => view.getUint16(at, true),
);
export const u32: Fixed<number> = number(
  4,
  (view, at, value) => view.setUint32(at, value, true),
  (view, at) => view.getUint32(at, true),
);
export const s32: Fixed<number> = number(
  4,
  (view, at, value) => view.setInt32(at, value, true),
  (view, at) => view.getInt32(at, true),
);
/** As a number: exact up to 2^53. */
export const u64: Fixed<number> = number(
  8,
  (view, at, value) => view.setBigUint64(at, BigInt(value), true),
  (view, at) => Number(view.getBigUint64(at, true)),
);
export const be16: Fixed<number> = number(
  2,
  (view, at, value) => view.setUint16(at, value),
  (view, at) => view.getUint16(at),
);
export const be32: Fixed<number> = number(
  4,
  (view, at, value) => view.setUint32(at, value),
  (view, at) => view.getUint32(at),
);
/** As a number: exact up to 2^53. */
export const be64: Fixed<number> = number(
  8,
  (view, at, value) => view.setBigUint64(at, BigInt(value)),
  (view, at) => Number(view.getBigUint64(at)),
);

/**
 * Bytes as they are, such as an address of any family. What is read is a view: it is good as long as the
 * datagram is.
 */
export const bytes: Codec<Uint8Array> = {
  put: (writer, value) => writer.append(value),
  get: (view, start, end) => new Uint8Array(view.buffer, view.byteOffset + start, end - start),
};

/** Text with a final zero. */
export const text: Codec<string> = {
  put: (writer, value) => {
    writer.append(ENCODER.encode(value));
    writer.take(1);
  },
  get: (view, start, end) => {
    const all = bytes.get(view, start, end);
    const zero = all.indexOf(0);
    return DECODER.decode(zero < 0 ? all : all.subarray(0, zero));
  },
};
const ENCODER = new TextEncoder();
const DECODER = new TextDecoder();

/** An attribute whose presence is its value. The kernel sends some of them with a byte, which may be 0. */
export const flag: Codec<true | undefined> = {
  put: () => {},
  get: (view, start, end) => (start === end || u8.get(view, start, end) !== 0 ? true : undefined),
};

type Fields = Readonly<Record<string, readonly [offset: number, codec: Fixed<number>]>>;
type FieldValues<F extends Fields> = { [N in keyof F]: number };

/** A C structure of `size` bytes: its fields by their offsets. Fields that are not given are zero. */
export function struct<F extends Fields>(size: number, fields: F): Fixed<FieldValues<F>> & Filler<FieldValues<F>> {
  // Objects, here and below: to take arrays apart costs more than what is done with them.
  const list = Object.entries(fields).map(([name, [offset, codec]]) => ({ name, offset, codec }));
  return {
    size,
    put: (writer, value: Partial<FieldValues<F>>) => {
      const at = writer.take(size);
      const end = writer.length;
      for (const { name, offset, codec } of list) {
        const number = value[name];
        if (!number) continue;
        writer.length = at + offset;
        codec.put(writer, number);
      }
      writer.length = end;
    },
    fill(into, view, start, end) {
      if (end - start < size) throw new RangeError(`a structure of ${end - start} bytes: expected ${size}`);
      for (const { name, offset, codec } of list) into[name] = codec.get(view, start + offset, end);
    },
    get(view, start, end) {
      const found: Record<string, unknown> = {};
      this.fill(found, view, start, end);
      return found as FieldValues<F>;
    },
  };
}

// biome-ignore lint/suspicious/noExplicitAny: each attribute has a value of its own type.
type Schema = Readonly<Record<string, readonly [type: number, codec: Codec<any>]>>;
export type AttributeValues<S extends Schema> = { [N in keyof S]?: ValueOf<S[N][1]> | undefined };

/**
 * Attributes up to the end, each with its type and its codec; those that are not in the schema are passed
 * over, and of several alike the last counts.
 */
export function attributes<S extends Schema>(schema: S): Filler<AttributeValues<S>> {
  const list = Object.entries(schema).map(([name, [type, codec]]) => ({ name, type, codec }));
  const byType = new Map(list.map((each) => [each.type, each]));
  return {
    put: (writer, values) => {
      for (const { name, type, codec } of list) {
        const value = values[name];
        if (value !== undefined) putAttribute(writer, type, codec, value);
      }
    },
    fill(into, view, start, end) {
      for (let at = start; at + ATTRIBUTE_HEADER <= end; ) {
        const length = view.getUint16(at, true);
        if (length < ATTRIBUTE_HEADER || at + length > end)
          throw new RangeError(`an attribute of ${length} bytes at ${at}`);
        const known = byType.get(view.getUint16(at + 2, true) & NLA_TYPE_MASK);
        if (known) into[known.name] = known.codec.get(view, at + ATTRIBUTE_HEADER, at + length);
        at += align(length);
      }
    },
    get(view, start, end) {
      const found: Record<string, unknown> = {};
      this.fill(found, view, start, end);
      return found as AttributeValues<S>;
    },
  };
}

/** Attributes of one type, in their order. */
export function list<T>(type: number, codec: Codec<T>): Codec<readonly T[]> {
  return {
    put: (writer, values) => {
      for (const value of values) putAttribute(writer, type, codec, value);
    },
    get: (view, start, end) => {
      const found: T[] = [];
      const one: Codec<T> = {
        put: codec.put,
        get: (...at) => {
          const value = codec.get(...at);
          found.push(value);
          return value;
        },
      };
      attributes({ one: [type, one] }).get(view, start, end);
      return found;
    },
  };
}

export function putAttribute<T>(writer: Writer, type: number, codec: Codec<T>, value: T): void {
  const at = writer.take(ATTRIBUTE_HEADER);
  codec.put(writer, value);
  const length = writer.length - at;
  if (length > MAX_ATTRIBUTE) throw new RangeError(`an attribute of ${length} bytes`);
  writer.view.setUint16(at, length, true);
  writer.view.setUint16(at + 2, type, true);
  writer.pad();
}

/**
 * A structure and the attributes behind it, as one object: the body of nearly every message. Fields of the
 * structure that are not given are zero.
 */
export function message<F extends Record<string, number>, S extends Schema>(
  header: Fixed<F> & Filler<F>,
  schema: S,
): Codec<F & AttributeValues<S>, Partial<F> & AttributeValues<S>> {
  const rest = attributes(schema);
  return {
    put: (writer, value) => {
      header.put(writer, value as unknown as F);
      writer.pad();
      rest.put(writer, value);
    },
    get: (view, start, end) => {
      const found: Record<string, unknown> = {};
      header.fill(found, view, start, end);
      rest.fill(found, view, start + align(header.size), end);
      return found as F & AttributeValues<S>;
    },
  };
}
