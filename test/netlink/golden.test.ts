/** Datagrams of real kernels, Linux 6.18 and, for GRE, 6.1, mean what they meant. */
import { describe, expect, test } from 'vitest';
import { acknowledgement, messagesIn } from '../../src/linux/netlink/message.ts';
import { goldens, kindOf } from './golden.ts';

describe('what kernels said', () => {
  test.each(goldens)('$name: $source', ({ hex, messages }) => {
    const found = [...messagesIn(Buffer.from(hex, 'hex'))].map((message) => {
      const { type, flags, view, start, end } = message;
      return { type, flags, value: kindOf(type)?.codec.get(view, start, end) ?? acknowledgement(message) };
    });
    expect(found).toEqual(messages);
  });

  // What the daemon acts upon; the rest of the values was compared with pyroute2's (pyroute2.test.ts).
  test('the kernel asks with 64 bytes for a neighbour that it does not know, and with 72 for one that it did', () => {
    const asked = goldens.filter(({ name }) => name.startsWith('the kernel asks'));
    expect(asked.map(({ hex }) => hex.length / 2)).toEqual([64, 64, 72]);
    expect(asked.map(({ messages }) => messages)).toMatchObject([
      [{ value: { state: 0x01, dst: Uint8Array.of(10, 20, 0, 9) } }],
      [{ value: { state: 0x01, dst: Uint8Array.of(10, 16, 33, 1) } }],
      [{ value: { state: 0x10, dst: Uint8Array.of(10, 16, 33, 2), lladdr: Uint8Array.of(192, 168, 16, 33) } }],
    ]);
  });
});
