/** Which messages a socket is given while its buffer is filled, with system calls that are played. */
import { beforeEach, expect, test, vi } from 'vitest';
import type { PacketCore } from '../src/core/index.ts';
import { typescriptCore } from '../src/core/typescript.ts';
import { Sender } from '../src/dataplane/wasm/linux/sender.ts';
import * as native from '../src/linux/native.ts';
import * as wire from './packet.ts';
import { CONTAINER_C, coreOf, hear, sendPackets } from './vms.ts';

const SIZE = 1 << 20;
const kernel = { taken: 0, room: Infinity, calls: [] as number[] };

vi.mock('../src/linux/native.ts', async (original) => ({
  ...(await original<typeof native>()),
  errno: () => native.EAGAIN,
  getsockopt: (_fd: number, _level: number, _name: number, value: Uint8Array) => put(value, SIZE),
  ioctl: (_fd: number, _request: number, value: Uint8Array) => put(value, kernel.taken),
  sendmmsg: (_fd: number, _table: number, count: number) => {
    const sent = Math.min(count, kernel.room);
    kernel.room -= sent;
    kernel.calls.push(count);
    return sent === 0 ? -1 : sent;
  },
}));

function put(value: Uint8Array, number: number): number {
  value.set(native.int(number));
  return 0;
}

/** Sends packets to B, which was heard from, and C, which was not, as the letters say; answers which messages were sent, and which refused. */
function trace(letters: string): { sent: number[]; refused: number[] } {
  const core: PacketCore = coreOf(typescriptCore, {});
  const toB = wire.packetOf({});
  sendPackets(core, [toB]);
  hear(core);
  sendPackets(
    core,
    [...letters].map((letter) => (letter === 'B' ? toB : wire.packetOf({ destination: CONTAINER_C }))),
  );
  const [sent, refused]: [number[], number[]] = [[], []];
  const sender = new Sender(3, core, {
    onSent: (from, end) => {
      for (let i = from; i < end; i++) sent.push(i);
    },
    onRefused: (errno, message) => {
      expect(errno).toBe(native.EAGAIN);
      refused.push(message);
    },
  });
  sender.send(0, letters.length);
  return { sent, refused };
}

beforeEach(() => Object.assign(kernel, { taken: 0, room: Infinity, calls: [] }));

test('all at once while there is room', () => {
  kernel.taken = SIZE / 4;
  expect(trace('BCCBC')).toEqual({ sent: [0, 1, 2, 3, 4], refused: [] });
  expect(kernel.calls).toEqual([5]);
});

test.each([
  ['BCCBC', [0, 3], [1, 2, 4], [1, 1]],
  ['CBBC', [1, 2], [0, 3], [2]],
  ['CC', [], [0, 1], []],
  ['BB', [0, 1], [], [2]],
])('%s, with a quarter taken: those to B alone', (letters, sent, refused, calls) => {
  kernel.taken = SIZE / 4 + 1;
  expect(trace(letters)).toEqual({ sent, refused });
  expect(kernel.calls).toEqual(calls);
});

test('a full socket refuses the rest, each once', () => {
  Object.assign(kernel, { taken: SIZE, room: 1 });
  expect(trace('BCBBC')).toEqual({ sent: [0], refused: [1, 2, 3, 4] });
  Object.assign(kernel, { taken: 0, room: 2 });
  expect(trace('CBBC')).toEqual({ sent: [0, 1], refused: [2, 3] });
});
