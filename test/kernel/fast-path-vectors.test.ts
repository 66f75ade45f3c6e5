/** The golden packets through the programs of the fast path: what they take leaves as the vector says. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { Encapsulation } from '../../src/core/index.ts';
import { framed } from '../fast-path/frames.ts';
import { unforwarded } from '../fast-path/kernel-oracle.mjs';
import { enterNamespace, LINKS, macOf, UPLINK } from '../fast-path/namespace.mjs';
import { whyNot } from '../fast-path/setup.mjs';
import { canRun } from '../fast-path/test-run.mjs';
import { ProgramTwin, why } from '../fast-path/twin.mjs';
import { coreConfig, type Vector, vectorFiles } from '../golden.ts';
import { skip } from '../net/require.ts';

/** The container that a vector's packet comes from or goes to is at this link. */
const LINK = LINKS[0] as number;

/** The frame in which the packet of a vector comes, or why none can have it. */
function frameOf({ direction, input }: Vector): Uint8Array | string {
  const packet = Uint8Array.from(Buffer.from(input, 'hex'));
  if (direction === 'inbound') return framed(packet, macOf(UPLINK));
  if (packet.length < 20) return 'no header';
  // The kernel takes one off before the core sees it.
  if (packet[8] === 255) return 'time to live';
  return framed(unforwarded(packet), macOf(LINK));
}

const FORMATS: Encapsulation[] = ['gre', 'gre-udp'];
/** Of each file: how many are taken, are passed, and cannot come in a frame. */
const COUNTS: Record<string, [taken: number, passed: number, impossible: number]> = {
  'clamp.json': [1, 4, 0],
  'class-e.json': [2, 2, 0],
  'dscp-pipe.json': [2, 0, 0],
  'dscp-uniform.json': [1, 1, 0],
  'ecn-compatibility.json': [4, 0, 0],
  'ecn.json': [14, 6, 0],
  'inbound.json': [1, 50, 1],
  'keyed.json': [2, 5, 0],
  'merged.json': [1, 13, 0],
  'narrow.json': [1, 5, 0],
  'outbound.json': [5, 22, 2],
  'refused-narrow.json': [0, 1, 0],
  'refused.json': [4, 0, 0],
  'scope.json': [0, 14, 0],
  'several-mappings.json': [2, 1, 0],
};

const numberAt = (frame: Uint8Array, at: number) => (frame.length < at + 4 ? 0 : Buffer.from(frame).readUInt32BE(at));

/** The frame without one or more of its last bytes, as the kernel can be given it. */
const cutOff = (frame: Uint8Array) =>
  Array.from({ length: Math.min(frame.length - 1, 200) }, (_, length) => frame.subarray(0, length)).filter(canRun);

describe.skipIf(skip('fast path: vectors', why()))('vectors', () => {
  let leave: () => void;
  beforeAll(() => {
    leave = enterNamespace();
  });
  afterAll(() => leave());

  const done = vectorFiles.filter(({ config }) => whyNot(coreConfig(config)) === undefined);
  const others = vectorFiles.filter((file) => !done.includes(file)).map(({ file }) => file);

  test('only what the fast path does not do is left out', () => {
    expect(others.sort()).toEqual(['all-options.json']);
  });

  const cases = FORMATS.flatMap((encapsulation) => done.map((file) => ({ ...file, encapsulation })));
  test.each(cases)('$file, $encapsulation', ({ file, config, vectors, encapsulation }) => {
    const twin = new ProgramTwin({ ...coreConfig(config), mtu: config.mtu ?? 1476, encapsulation });
    const met = { taken: 0, passed: 0, impossible: 0 };
    try {
      const wrong = vectors.flatMap((vector) => {
        const frame = frameOf(vector);
        if (typeof frame === 'string' || !canRun(frame)) {
          met.impossible++;
          return [];
        }
        const address = vector.direction === 'outbound' ? numberAt(frame, 26) : innerDestination(vector);
        twin.place(address, LINK);
        const passed = twin.met.passed;
        const merged = vector.merged === undefined || vector.merged === 0xffffffff ? 0 : vector.merged;
        const difference = twin.check(vector.direction, frame, merged === 0 ? {} : { gsoSize: merged & 0xffff });
        const isTaken = twin.met.passed === passed;
        met[isTaken ? 'taken' : 'passed']++;
        const isForward = vector.verdict === 'forward' && (vector.outputs?.length ?? 1) === 1;
        const surprise = isTaken && !isForward ? [`${vector.name}: taken, though ${vector.verdict}`] : [];
        // G6, R1: what is cut off passes.
        const cut = isTaken ? cutOff(frame).find((each) => twin.check(vector.direction, each, { must: false })) : null;
        if (cut) return [`${vector.name}, ${cut.length} bytes: ${twin.check(vector.direction, cut, { must: false })}`];
        return difference === null ? surprise : [`${vector.name}: ${difference}`];
      });
      expect(wrong).toEqual([]);
      expect([met.taken, met.passed, met.impossible]).toEqual(COUNTS[file]);
    } finally {
      twin.close();
    }
  });
});

/** Where the inner packet of a vector goes. */
function innerDestination({ input }: Vector): number {
  const packet = Buffer.from(input, 'hex');
  if (packet.length < 24) return 0;
  const gre = (packet.readUInt8(0) & 15) * 4;
  if (gre + 2 > packet.length) return 0;
  const fields = [0x8000, 0x2000, 0x1000].filter((flag) => (packet.readUInt16BE(gre) & flag) !== 0).length;
  const at = gre + 4 + 4 * fields + 16;
  return at + 4 > packet.length ? 0 : packet.readUInt32BE(at);
}
