/** The golden packets as frames that the programs of the fast path are given, and what becomes of them. */
import type { Direction } from '../../src/core/index.ts';
import type { Vector } from '../golden.ts';
import { framed } from './frames.ts';
import { unforwarded } from './kernel-oracle.mjs';
import { LINKS, macOf, UPLINK } from './namespace.mjs';
import { canRun } from './test-run.mjs';

/** The container that a vector's packet comes from or goes to is at this link. */
const LINK = LINKS[0] as number;

/** Of each file: how many are taken, are passed, and cannot come in a frame. */
export const COUNTS: Record<string, [taken: number, passed: number, impossible: number]> = {
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

export interface GoldenFrame {
  name: string;
  direction: Direction;
  frame: Uint8Array;
  /** The container that it comes from or goes to, at `link`. */
  address: number;
  link: number;
  gsoSize?: number;
  verdict: string;
  /** The core makes one packet of it. */
  isForwarded: boolean;
}

/** Of the vectors that can come in a frame. */
export function goldenFrames(vectors: readonly Vector[]): GoldenFrame[] {
  return vectors.flatMap((vector) => {
    const { name, direction, verdict, merged = 0, outputs } = vector;
    const frame = frameOf(vector);
    if (frame === undefined || !canRun(frame)) return [];
    const isMerged = merged !== 0 && merged !== 0xffffffff;
    return {
      ...{ name, direction, verdict, frame, link: LINK },
      address: direction === 'outbound' ? numberAt(frame, 26) : innerDestination(vector),
      ...(isMerged && { gsoSize: merged & 0xffff }),
      isForwarded: verdict === 'forward' && (outputs?.length ?? 1) === 1,
    };
  });
}

/** The frame in which the packet of a vector comes; undefined if none can have it. */
function frameOf({ direction, input }: Vector): Uint8Array | undefined {
  const packet = Uint8Array.from(Buffer.from(input, 'hex'));
  if (direction === 'inbound') return framed(packet, macOf(UPLINK));
  // The kernel takes one off the time to live before the core sees it.
  return packet.length < 20 || packet[8] === 255 ? undefined : framed(unforwarded(packet), macOf(LINK));
}

const numberAt = (frame: Uint8Array, at: number) => (frame.length < at + 4 ? 0 : Buffer.from(frame).readUInt32BE(at));

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
