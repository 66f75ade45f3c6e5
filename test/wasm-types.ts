/** The types of a module's functions, read from its bytes: engines do not tell them. WebAssembly core specification, chapter 5 (binary format). */

export interface Signature {
  parameters: string[];
  results: string[];
}

const VALUE_TYPES: Record<number, string> = { 127: 'i32', 126: 'i64', 125: 'f32', 124: 'f64', 123: 'v128' };
const [TYPE_SECTION, IMPORT_SECTION, FUNCTION_SECTION, EXPORT_SECTION] = [1, 2, 3, 7];
const FUNCTION_TYPE = 0x60;
const FUNCTION_EXPORT = 0;
/** Magic and version. */
const PREAMBLE = 8;

class Reader {
  #at: number;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array, at = 0) {
    this.#bytes = bytes;
    this.#at = at;
  }

  get isOver(): boolean {
    return this.#at >= this.#bytes.length;
  }

  byte(): number {
    const byte = this.#bytes[this.#at++];
    if (byte === undefined) throw new RangeError('the module ends too soon');
    return byte;
  }

  /** An unsigned number in LEB128. */
  number(): number {
    for (let value = 0, shift = 0; ; shift += 7) {
      const byte = this.byte();
      value += (byte & 0x7f) * 2 ** shift;
      if (byte < 0x80) return value;
    }
  }

  take(length: number): Uint8Array {
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  vector<T>(read: () => T): T[] {
    return Array.from({ length: this.number() }, read);
  }
}

/** The exported functions of a module that imports nothing. */
export function signaturesOf(module: Uint8Array): Map<string, Signature> {
  const reader = new Reader(module, PREAMBLE);
  const sections = new Map<number, Reader>();
  while (!reader.isOver) {
    const id = reader.byte();
    sections.set(id, new Reader(reader.take(reader.number())));
  }
  if (sections.has(IMPORT_SECTION)) throw new Error('imports are not expected: they come first among the functions');
  const section = (id: number) => sections.get(id) ?? new Reader(Uint8Array.of(0));
  const types = section(TYPE_SECTION);
  const valueType = () => VALUE_TYPES[types.byte()] ?? 'unknown';
  const signatures = types.vector((): Signature => {
    if (types.byte() !== FUNCTION_TYPE) throw new Error('only function types are expected');
    return { parameters: types.vector(valueType), results: types.vector(valueType) };
  });
  const functions = section(FUNCTION_SECTION);
  const typeOf = functions.vector(() => functions.number());
  const exported = section(EXPORT_SECTION);
  const entries = exported.vector(() => {
    const name = new TextDecoder().decode(exported.take(exported.number()));
    return { name, kind: exported.byte(), index: exported.number() };
  });
  const ofFunctions = entries.filter(({ kind }) => kind === FUNCTION_EXPORT);
  return new Map(ofFunctions.map(({ name, index }) => [name, signatures[typeOf[index] as number] as Signature]));
}
