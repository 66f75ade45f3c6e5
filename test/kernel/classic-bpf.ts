/** A small interpreter of classic BPF, and messages for it, as the codec writes them. */
import { expect } from 'vitest';
import { type Codec, Writer } from '../../src/linux/netlink/codec.ts';
import { putMessage } from '../../src/linux/netlink/message.ts';
import {
  ALL,
  JUMP,
  JUMP_IF_AT_LEAST,
  JUMP_IF_EQUAL,
  LD_BYTE,
  LD_HALF,
  LD_WORD,
  RETURN,
  type SocketFilter,
} from '../../src/linux/socket-filter.ts';

/** What the filter returns for a packet (Documentation/networking/filter.rst): a load beyond the packet's end takes nothing. */
export function run(filter: SocketFilter, packet: Uint8Array): number {
  const view = new DataView(packet.buffer, packet.byteOffset, packet.length);
  let a = 0;
  for (let pc = 0; pc < filter.length; pc++) {
    const [code, k, ifTrue = 0, ifFalse = 0] = filter[pc] as SocketFilter[number];
    switch (code) {
      case LD_WORD:
      case LD_HALF:
      case LD_BYTE: {
        const size = { [LD_WORD]: 4, [LD_HALF]: 2, [LD_BYTE]: 1 }[code] as number;
        if (k + size > packet.length) return 0;
        a = size === 4 ? view.getUint32(k) : size === 2 ? view.getUint16(k) : view.getUint8(k);
        break;
      }
      case JUMP:
        pc += k;
        break;
      case JUMP_IF_EQUAL:
        pc += a === k ? ifTrue : ifFalse;
        break;
      case JUMP_IF_AT_LEAST:
        pc += a >= k ? ifTrue : ifFalse;
        break;
      case RETURN:
        return k;
      default:
        throw new Error(`instruction ${code} is not one of a filter of messages`);
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
