/** A small interpreter of classic BPF, and messages for it, as the codec writes them. */
import { expect } from 'vitest';
import { type Codec, Writer } from '../../src/linux/netlink/codec.ts';
import { putMessage } from '../../src/linux/netlink/message.ts';
import {
  ADD_X,
  ALL,
  JUMP,
  JUMP_IF_ANY_BIT,
  JUMP_IF_AT_LEAST,
  JUMP_IF_EQUAL,
  LD_BYTE,
  LD_HALF,
  LD_LENGTH,
  LD_WORD,
  LD_WORD_AT_X,
  LDX_HEADER_LENGTH,
  LDX_MEMORY,
  MODULO,
  MULTIPLY,
  RETURN,
  SHIFT_RIGHT,
  type SocketFilter,
  STORE,
  SUBTRACT_X,
} from '../../src/linux/socket-filter.ts';

/** What the filter returns for a packet (Documentation/networking/filter.rst): a load beyond the packet's end takes nothing. */
export function run(filter: SocketFilter, packet: Uint8Array): number {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  let [a, x] = [0, 0];
  const memory: number[] = [];
  const isThere = (at: number, size: number) => at + size <= packet.length;
  for (let pc = 0; pc < filter.length; pc++) {
    const [code, k, ifTrue = 0, ifFalse = 0] = filter[pc] as SocketFilter[number];
    switch (code) {
      case LD_WORD:
      case LD_HALF:
      case LD_BYTE: {
        const size = { [LD_WORD]: 4, [LD_HALF]: 2, [LD_BYTE]: 1 }[code] as number;
        if (!isThere(k, size)) return 0;
        a = size === 4 ? view.getUint32(k) : size === 2 ? view.getUint16(k) : view.getUint8(k);
        break;
      }
      case LD_WORD_AT_X:
        if (!isThere(x + k, 4)) return 0;
        a = view.getUint32(x + k);
        break;
      case LD_LENGTH:
        a = packet.length;
        break;
      case LDX_HEADER_LENGTH:
        if (!isThere(k, 1)) return 0;
        x = 4 * (view.getUint8(k) & 15);
        break;
      case STORE:
        memory[k] = a;
        break;
      case LDX_MEMORY:
        x = memory[k] ?? 0;
        break;
      case ADD_X:
        a = (a + x) >>> 0;
        break;
      case SUBTRACT_X:
        a = (a - x) >>> 0;
        break;
      case MULTIPLY:
        a = Math.imul(a, k) >>> 0;
        break;
      case SHIFT_RIGHT:
        a >>>= k;
        break;
      case MODULO:
        a %= k;
        break;
      case JUMP:
        pc += k;
        break;
      case JUMP_IF_EQUAL:
        pc += a === k ? ifTrue : ifFalse;
        break;
      case JUMP_IF_ANY_BIT:
        pc += (a & k) !== 0 ? ifTrue : ifFalse;
        break;
      case JUMP_IF_AT_LEAST:
        pc += a >= k ? ifTrue : ifFalse;
        break;
      case RETURN:
        return k;
      default:
        throw new Error(`instruction ${code} is not one of Inlay's filters`);
    }
  }
  throw new Error('the filter has no end');
}

/** Whether a socket with the filter takes a packet: all of it or nothing. */
export function takes(filter: SocketFilter, packet: Uint8Array): boolean {
  const result = run(filter, packet);
  expect([0, ALL]).toContain(result);
  return result === ALL;
}

export function messageOf<P>(type: number, port: number, codec: Codec<unknown, P>, body: P): Uint8Array {
  const writer = new Writer();
  putMessage(writer, { type, flags: 0, sequence: 1, port }, (w) => codec.put(w, body));
  return writer.bytes;
}
