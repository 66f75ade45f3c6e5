/**
 * How long the packets were that the kernel has merged (GRO), or not cut yet (GSO), before a raw socket gets them: recvmsg(2) does not tell, but a program at
 * the socket can read `gso_size`. It writes that into a table in memory that this process shares, under a hash of the packet's headers; whoever receives the
 * packet finds it there. Packets that come as they were sent cost the program one comparison.
 *
 * A bucket of the table is one cache line, its newest entry first. An entry is lost only if eight newer ones of its bucket come before its packet is read. Behind
 * the buckets the program counts, so that nobody has to look for packets where none was merged, and a lost entry is missed.
 */
import { randomInt } from 'node:crypto';
import { NOT_MERGED } from '../../../core/abi.ts';
import type { PacketCore } from '../../../core/core.ts';
import {
  add,
  addAtomically,
  addRegister,
  and32,
  assemble,
  call,
  copy,
  copy32,
  exit,
  fromNetwork32,
  type Instruction,
  jumpIfEqual,
  jumpUnlessEqual,
  type Line,
  loadByte,
  loadDouble,
  loadMap,
  loadWord,
  MAP_LOOKUP,
  modulo32,
  multiply32,
  orRegister,
  SKB_LOAD_BYTES,
  STACK,
  set,
  shiftLeft,
  shiftLeft64,
  shiftRight,
  storeDoubleFrom,
  storeWord,
  xor32,
} from '../../../linux/bpf/assembler.ts';
import { BPF_F_MMAPABLE, BPF_MAP_TYPE_ARRAY, BpfMap } from '../../../linux/bpf/map.ts';
import { BPF_PROG_TYPE_SOCKET_FILTER, loadProgram } from '../../../linux/bpf/program.ts';
import { SKB_GSO_SIZE } from '../../../linux/bpf/skb.ts';
import * as native from '../../../linux/native.ts';
import { ALL, attachSocketProgram } from '../../../linux/socket-filter.ts';
import { GOLDEN_RATIO, type Share } from './share-filter.ts';

const WHAT = 'for segment sizes';

const BUCKETS_LOG2 = 11;
const BUCKET_SIZE = 64;
const ENTRY_SIZE = 8;
const BUCKETS = 1 << BUCKETS_LOG2;
/** The last one holds the count, a u64. */
const TABLE_SIZE = BUCKET_SIZE * (BUCKETS + 1);
const COUNT = (BUCKET_SIZE * BUCKETS) / 4;
/** ms after which a merged packet that was counted has been read, or did not get into the socket's buffer. */
const LATEST = 1000;
const OUTER_IPV4 = 20;

/** What the hash begins with, and is multiplied by: secret, so that nobody can make two packets meet. */
interface Seeds {
  starts: readonly [number, number];
  factors: readonly [number, number];
}

/** A table that a program fills. The descriptor is the caller's to close. */
export interface SizeTable {
  fd: number;
  seeds: Seeds;
}

/**
 * The words of a packet that tell it from others, in bytes from its start, given the outer headers' bytes: the outer total length; the inner identification,
 * TTL, protocol, header checksum, addresses, ports, and 12 bytes behind these. The last 8 may not be there.
 */
const wordsOf = (header: number) => [0, ...[4, 8, 12, 16, 20, 24, 28, 32].map((offset) => header + offset)];
/** Bytes from the inner packet's start that all merged packets have, and those of them that count if they are there. */
const LEAST_INNER = 28;
const MOST_INNER = 36;

/** Lets the kernel note segment sizes of what comes to the raw socket `fd`, which takes its share only. Throws if the kernel cannot. */
export function noteSegmentSizes(fd: number, share: Share): SizeTable {
  const { program, table } = loadSizeProgram(share);
  try {
    attachSocketProgram(fd, program);
  } catch (error) {
    native.close(table.fd);
    throw error;
  } finally {
    native.close(program);
  }
  return table;
}

/** Loads the program for such a socket; its descriptor and the table's are the caller's to close. */
export function loadSizeProgram(share: Share): { program: number; table: SizeTable } {
  const random = () => randomInt(2 ** 32);
  const seeds: Seeds = { starts: [random(), random()], factors: [random() | 1, random() | 1] };
  const { fd } = new BpfMap(BPF_MAP_TYPE_ARRAY, BUCKET_SIZE, BUCKETS + 1, 1, BPF_F_MMAPABLE);
  try {
    const program = loadProgram(assemble(filter(fd, seeds, share)), WHAT, BPF_PROG_TYPE_SOCKET_FILTER);
    return { program, table: { fd, seeds } };
  } catch (error) {
    native.close(fd);
    throw error;
  }
}

/** Reads the sizes of received packets. */
export class SegmentSizes {
  readonly #table: Uint32Array;
  readonly #unmap: () => void;
  readonly #core: PacketCore;
  readonly #words: Uint32Array;
  readonly #seeds: Seeds;
  readonly #header: number;
  /** How many of the packets that the program has counted are done with, and how many this batch has brought. */
  #done = 0;
  #found = 0;
  /** The last count, since when it is so, and when a batch had all that waited, in ms. */
  #count = 0;
  #since = 0;
  #emptied = 0;

  /** `header` is that of the socket's share. */
  constructor({ fd, seeds }: SizeTable, header: number, core: PacketCore) {
    const { bytes, unmap } = native.mapped(fd, TABLE_SIZE, WHAT);
    this.#table = new Uint32Array(bytes);
    this.#unmap = unmap;
    this.#core = core;
    this.#words = new Uint32Array(core.memory);
    this.#seeds = seeds;
    this.#header = header / 4;
  }

  /** Whether any of the packets that were just received may be merged; `isAll` if no other waits. To be asked once for each batch, before `of`. */
  mayBeMerged(isAll: boolean, now = performance.now()): boolean {
    this.#done = (this.#done + this.#found) >>> 0;
    this.#found = 0;
    const count = this.#table[COUNT] as number;
    if (count === this.#done) return false;
    if (count !== this.#count) {
      this.#count = count;
      this.#since = now;
    }
    // What was counted and has not come by then never will.
    if (this.#emptied - this.#since > LATEST) this.#done = count;
    if (isAll) this.#emptied = now;
    return count !== this.#done;
  }

  /** Of the packet of `length` bytes at `address`, a multiple of 4 in the core's memory, what DESCRIPTOR_MERGED is to say. */
  of(address: number, length: number): number {
    const words = this.#words;
    const { starts, factors } = this.#seeds;
    const inner = address / 4 + this.#header;
    const known = length / 4 - this.#header >= MOST_INNER / 4;
    let a = starts[0] | 0;
    let b = starts[1] | 0;
    for (let i = 0; i < 9; i++) {
      const word = i === 0 ? words[address / 4] : i < 7 || known ? words[inner + i] : 0;
      a = Math.imul(a ^ (word as number), factors[0]);
      a ^= a >>> 15;
      b = Math.imul(b ^ a, factors[1]);
    }
    const table = this.#table;
    const bucket = (a >>> (32 - BUCKETS_LOG2)) * (BUCKET_SIZE / 4);
    for (let at = bucket; at < bucket + BUCKET_SIZE / 4; at += ENTRY_SIZE / 4) {
      if ((table[at + 1] as number) !== b >>> 0) continue;
      const low = table[at] as number;
      if (low >>> 16 !== (a & 0xffff)) continue;
      this.#found++;
      return low & 0xffff;
    }
    // Nobody sends packets that long: its entry may be one of those that are missing.
    const isMerged = this.#isMissing() && length - 4 * this.#header > this.#core.mtu;
    return isMerged ? 0 : NOT_MERGED;
  }

  /** Gives the table's memory back: nothing can be asked any more. */
  close(): void {
    this.#unmap();
  }

  /** Whether packets that the program has counted were not found yet. */
  #isMissing(): boolean {
    return this.#table[COUNT] !== (this.#done + this.#found) >>> 0;
  }
}

/** r6: the packet, r7 and r8: both halves of the hash, r9: the segment size, r1 to r5: arguments, r0: result. */
function filter(table: number, seeds: Seeds, share: Share): Line[] {
  const { header } = share;
  const most = header + MOST_INNER;
  const key = -most - 4;
  const load = (offset: Instruction, to: number, length: number): Line[] => [
    copy(1, 6),
    offset,
    copy(3, STACK),
    add(3, to),
    set(4, length),
    call(SKB_LOAD_BYTES),
  ];
  const mix = (offset: number): Line[] => [
    loadWord(1, STACK, offset - most),
    xor32(7, 1),
    multiply32(7, seeds.factors[0]),
    copy32(1, 7),
    shiftRight(1, 15),
    xor32(7, 1),
    xor32(8, 7),
    multiply32(8, seeds.factors[1]),
  ];
  const lookUp = [...loadMap(1, table), copy(2, STACK), add(2, key), call(MAP_LOOKUP), jumpIfEqual(0, 0, 'take')];
  const older = Array.from({ length: BUCKET_SIZE / ENTRY_SIZE - 1 }, (_, i) => BUCKET_SIZE - (i + 1) * ENTRY_SIZE);
  return [
    copy(6, 1),
    ...(share.count > 1 ? shareOf(share, load) : []),
    loadWord(9, 6, SKB_GSO_SIZE),
    jumpIfEqual(9, 0, 'take'),
    ...load(set(2, 0), -most, header + LEAST_INNER),
    jumpUnlessEqual(0, 0, 'take'),
    // Where these are not there, they become 0.
    ...load(set(2, header + LEAST_INNER), -most + header + LEAST_INNER, MOST_INNER - LEAST_INNER),
    set(7, seeds.starts[0] | 0),
    set(8, seeds.starts[1] | 0),
    ...wordsOf(header).flatMap(mix),
    copy32(1, 7),
    shiftRight(1, 32 - BUCKETS_LOG2),
    storeWord(STACK, key, 1),
    ...lookUp,
    ...older.flatMap((at) => [loadDouble(1, 0, at - ENTRY_SIZE), storeDoubleFrom(0, at, 1)]),
    shiftLeft(7, 16),
    orRegister(7, 9),
    copy32(8, 8),
    shiftLeft64(8, 32),
    orRegister(8, 7),
    storeDoubleFrom(0, 0, 8),
    set(1, BUCKETS),
    storeWord(STACK, key, 1),
    ...lookUp,
    set(1, 1),
    addAtomically(0, 0, 1),
    { label: 'take' },
    set(0, ALL),
    exit,
    // The verifier refuses what cannot be reached.
    ...(share.count > 1 ? [{ label: 'leave' }, set(0, 0), exit] : []),
  ];
}

/** As in share-filter.ts, whose filter a socket cannot have besides. */
function shareOf(
  { index, count, header }: Share,
  load: (offset: Instruction, to: number, length: number) => Line[],
): Line[] {
  return [
    ...load(set(2, 0), -8, 4),
    loadByte(7, STACK, -8),
    and32(7, 15),
    shiftLeft(7, 2),
    add(7, header - OUTER_IPV4 + 12),
    ...load(copy(2, 7), -8, 8),
    jumpUnlessEqual(0, 0, index === 0 ? 'take' : 'leave'),
    loadWord(7, STACK, -8),
    fromNetwork32(7),
    loadWord(8, STACK, -4),
    fromNetwork32(8),
    addRegister(7, 8),
    multiply32(7, GOLDEN_RATIO),
    shiftRight(7, 16),
    modulo32(7, count),
    jumpUnlessEqual(7, index, 'leave'),
  ];
}
