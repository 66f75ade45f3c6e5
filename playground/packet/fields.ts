/** What a dissection is made of: layers of named fields over the bytes of a packet. */
import { sum } from '../../src/core/typescript/checksum.ts';

/** What a layer is, which gives it its colour. */
export type LayerKind = 'outer' | 'udp' | 'gre' | 'inner' | 'transport' | 'payload';

export interface Field {
  name: string;
  /** Place of its bytes in the packet; several fields share a byte. */
  start: number;
  end: number;
  value: string;
  /** What the value means, or what is wrong with it. */
  note?: string;
  isWrong?: true;
}

export interface Layer {
  kind: LayerKind;
  name: string;
  start: number;
  end: number;
  fields: Field[];
}

/** Collects the fields of one layer. Reads nothing beyond `end`, whatever the packet says of its lengths. */
export class LayerReader {
  readonly view: DataView<ArrayBuffer>;
  readonly start: number;
  readonly end: number;
  readonly fields: Field[] = [];

  constructor(view: DataView<ArrayBuffer>, start: number, end: number) {
    this.view = view;
    this.start = start;
    this.end = Math.min(end, view.byteLength);
  }

  /** Bytes that are there from `offset` of the layer on. */
  left(offset = 0): number {
    return Math.max(0, this.end - this.start - offset);
  }

  /** The unsigned number of `size` bytes at `offset`. */
  number(offset: number, size: 1 | 2 | 4): number {
    const at = this.start + offset;
    return size === 1 ? this.view.getUint8(at) : size === 2 ? this.view.getUint16(at) : this.view.getUint32(at);
  }

  /** Notes a field of `size` bytes at `offset`. */
  add(name: string, offset: number, size: number, value: string | number, note?: string, isWrong = false): void {
    const start = this.start + offset;
    const more = { ...(note && { note }), ...(isWrong && { isWrong: true as const }) };
    this.fields.push({ name, start, end: Math.min(start + size, this.end), value: String(value), ...more });
  }

  /** Notes a checksum at `offset`, which is over `length` bytes of the layer and adds `pseudo` to them. */
  checksum(name: string, offset: number, length: number, pseudo = 0): void {
    const value = hex(this.number(offset, 2), 4);
    if (length > this.left()) {
      this.add(name, offset, 2, value, 'cannot be checked: the packet is cut');
      return;
    }
    // With its own checksum among them, the bytes add up to all ones (RFC 1071 §1).
    const total = sum(this.view, this.start, length) + pseudo;
    const isRight = total > 0 && total % 0xffff === 0;
    this.add(name, offset, 2, value, isRight ? 'right' : 'wrong', !isRight);
  }

  /** What lies between two offsets, or behind one, for another layer. */
  part(from: number, to = Number.POSITIVE_INFINITY): LayerReader {
    return new LayerReader(this.view, Math.min(this.start + from, this.end), Math.min(this.start + to, this.end));
  }

  /** The layer, which ends where its fields do, or at `end` of it. */
  layer(kind: LayerKind, name: string, end?: number): Layer {
    const last = Math.max(this.start, ...this.fields.map((field) => field.end));
    return { kind, name, start: this.start, end: end === undefined ? last : this.start + end, fields: this.fields };
  }
}

export function hex(number: number, digits: number): string {
  return `0x${number.toString(16).padStart(digits, '0')}`;
}

/** The names of the bits that are set, from the highest on. */
export function bitNames(value: number, names: readonly (readonly [number, string])[]): string {
  return names.flatMap(([bit, name]) => (value & bit ? [name] : [])).join(', ') || 'none';
}
