/**
 * Where members of the kernel's structures are, and how values of its enumerations are called, by its own type
 * information (Documentation/bpf/btf.rst).
 */
import { readFileSync } from 'node:fs';

const HEADER = 24;
const [ARRAY, STRUCT, UNION, ENUM, FUNC_PROTO, VAR, DATASEC, DECL_TAG, ENUM64] = [3, 4, 5, 6, 13, 14, 15, 17, 19];
const INT = 1;

interface Member {
  name: string;
  type: number;
  /** Bytes from the beginning of the structure. */
  offset: number;
}

export class Btf {
  readonly #members = new Map<number, Member[]>();
  readonly #structs = new Map<string, number>();
  readonly #enums = new Map<string, Map<number, string>>();

  constructor(file = '/sys/kernel/btf/vmlinux') {
    const bytes = readFileSync(file);
    const [typesAt, typesLength, stringsAt] = [8, 12, 16].map((at) => bytes.readUInt32LE(at)) as [
      number,
      number,
      number,
    ];
    const text = (offset: number) => {
      const start = HEADER + stringsAt + offset;
      return bytes.toString('latin1', start, bytes.indexOf(0, start));
    };
    for (let at = HEADER + typesAt, id = 1; at < HEADER + typesAt + typesLength; id++) {
      const [name, info] = [bytes.readUInt32LE(at), bytes.readUInt32LE(at + 4)];
      const [kind, count, hasBits] = [(info >>> 24) & 31, info & 0xffff, info >>> 31];
      at += 12;
      if (kind === STRUCT || kind === UNION) {
        const members: Member[] = [];
        for (let i = 0; i < count; i++, at += 12) {
          const bits = bytes.readUInt32LE(at + 8);
          const offset = (hasBits ? bits & 0xffffff : bits) >>> 3;
          members.push({ name: text(bytes.readUInt32LE(at)), type: bytes.readUInt32LE(at + 4), offset });
        }
        this.#members.set(id, members);
        if (kind === STRUCT) this.#structs.set(text(name), id);
      } else if (kind === ENUM) {
        const values = new Map<number, string>();
        for (let i = 0; i < count; i++, at += 8) {
          values.set(bytes.readUInt32LE(at + 4), text(bytes.readUInt32LE(at)));
        }
        this.#enums.set(text(name), values);
      } else at += sizeAfter(kind, count);
    }
  }

  /** Bytes from the beginning of a structure to a member of it, or of what it has in it: `offset('net', 'ns', 'inum')`. */
  offset(struct: string, ...path: string[]): number {
    let id = this.#structs.get(struct) ?? 0;
    let sum = 0;
    for (const name of path) {
      const found = this.#find(id, name);
      if (!found) throw new Error(`struct ${struct} has no ${path.join('.')}`);
      sum += found.offset;
      id = found.type;
    }
    return sum;
  }

  /** How an enumeration calls a value. */
  nameOf(enumeration: string, value: number): string | undefined {
    return this.#enums.get(enumeration)?.get(value);
  }

  /** Members of anonymous structures count as those of what they are in. */
  #find(id: number, name: string): Member | undefined {
    for (const member of this.#members.get(id) ?? []) {
      if (member.name === name) return member;
      const inside = member.name === '' ? this.#find(member.type, name) : undefined;
      if (inside) return { ...inside, offset: member.offset + inside.offset };
    }
    return undefined;
  }
}

/** Bytes that follow the three words of a type. */
function sizeAfter(kind: number, count: number): number {
  if (kind === INT || kind === VAR || kind === DECL_TAG) return 4;
  if (kind === ARRAY) return 12;
  if (kind === FUNC_PROTO) return 8 * count;
  if (kind === DATASEC || kind === ENUM64) return 12 * count;
  return 0;
}
