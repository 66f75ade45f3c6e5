/**
 * Shares: while there is more to do than can be done, each source gets as much of it as any other, or as it wants (max-min
 * fairness). What it has had is its height; a batch fills what is above the heights up to one level. As heights stay, those
 * who have had little get more, which is what start-time fair queueing does (Goyal, Vin and Cheng, 1996).
 */
import * as abi from '../abi.ts';
import { loadF64, loadU32, type Memory, storeF64, storeU32 } from './bytes.ts';

const SOURCE_MASK = (1 << abi.SOURCES_LOG2) - 1;

/** How much work a packet of `length` bytes is; `size` is that of its segments, 0 if it is not to be cut. */
export function workOf(length: number, size: number): number {
  const segments = size === 0 ? 0 : Math.min(Math.trunc(length / size), abi.MAX_WORK_SEGMENTS);
  return 1 + (length >> abi.WORK_BYTES_LOG2) + (segments >> abi.WORK_SEGMENTS_LOG2);
}

/** Notes that a packet from `source` is among the descriptors. */
export function demandShare(memory: Memory, shares: number, source: number, work: number): void {
  const record = recordOf(shares, source);
  const wanted = loadU32(memory, record + abi.SHARE_DEMAND);
  if (wanted === 0) {
    const lowest = loadF64(memory, shares + abi.SHARES_TOP) - abi.SHARE_WINDOW;
    storeF64(memory, record + abi.SHARE_HEIGHT, Math.max(loadF64(memory, record + abi.SHARE_HEIGHT), lowest));
    storeU32(memory, record + abi.SHARE_NEXT, loadU32(memory, shares + abi.SHARES_FIRST));
    storeU32(memory, shares + abi.SHARES_FIRST, (source & SOURCE_MASK) + 1);
  }
  storeU32(memory, record + abi.SHARE_DEMAND, wanted + work);
}

/**
 * Ends what `demandShare` began: sets the level at which the work of all, divided by `divisor`, goes on, and forgets what was
 * wanted. Returns the number of sources.
 */
export function setLevel(memory: Memory, shares: number, divisor: number): number {
  const records = takeRecords(memory, shares);
  const grounds = records.map((record) => loadF64(memory, record + abi.SHARE_HEIGHT));
  const demands = records.map((record) => loadU32(memory, record + abi.SHARE_DEMAND));
  for (const record of records) storeU32(memory, record + abi.SHARE_DEMAND, 0);
  const work = demands.reduce((sum, wanted) => sum + wanted, 0);
  const budget = Math.max(Math.trunc(work / Math.max(divisor, 1)), abi.LEAST_WORK, records.length);
  storeF64(memory, shares + abi.SHARES_LEVEL, budget < work ? levelOf(grounds, demands, budget) : 0);
  return records.length;
}

/** The records that `demandShare` linked, which are so no more. */
function takeRecords(memory: Memory, shares: number): number[] {
  const records: number[] = [];
  let link = loadU32(memory, shares + abi.SHARES_FIRST);
  storeU32(memory, shares + abi.SHARES_FIRST, 0);
  while (link !== 0) {
    const record = recordOf(shares, link - 1);
    records.push(record);
    link = loadU32(memory, record + abi.SHARE_NEXT);
    storeU32(memory, record + abi.SHARE_NEXT, 0);
  }
  return records;
}

/** The level up to which `budget` fills what is wanted above the grounds: all sources that want more share alike what rises above theirs. */
function levelOf(grounds: readonly number[], demands: readonly number[], budget: number): number {
  // Where the number of those who take part changes, each at a height: one more at its ground, one less where it has enough.
  const steps = grounds
    .flatMap((ground, i) => [
      { at: ground, more: 1 },
      { at: ground + (demands[i] as number), more: -1 },
    ])
    .sort((a, b) => a.at - b.at);
  let level = 0;
  let rising = 0;
  let left = budget;
  for (const { at, more } of steps) {
    const poured = rising * (at - level);
    if (poured > left) break;
    left -= poured;
    level = at;
    rising += more;
  }
  return rising === 0 ? level : level + Math.floor(left / rising);
}

/** Whether packets may be dropped because others wait. */
export function hasShares(memory: Memory, shares: number): boolean {
  return loadF64(memory, shares + abi.SHARES_LEVEL) !== 0;
}

/** Whether the source has had as much of the batch as it gets; only if there is a level. */
export function isOverShare(memory: Memory, shares: number, source: number): boolean {
  return loadF64(memory, recordOf(shares, source) + abi.SHARE_HEIGHT) >= loadF64(memory, shares + abi.SHARES_LEVEL);
}

/** Adds the work of a packet, whatever becomes of it, to what its source has had, while there is a level. That may be more than it gets: the rest counts the next time. Below 0, it gives work back. */
export function takeShare(memory: Memory, shares: number, source: number, work: number): void {
  const record = recordOf(shares, source);
  const height = loadF64(memory, record + abi.SHARE_HEIGHT) + work;
  storeF64(memory, record + abi.SHARE_HEIGHT, height);
  if (height > loadF64(memory, shares + abi.SHARES_TOP)) storeF64(memory, shares + abi.SHARES_TOP, height);
}

/** Lets everything go on again. */
export function endShares(memory: Memory, shares: number): void {
  storeF64(memory, shares + abi.SHARES_LEVEL, 0);
}

/** The record of a source, of which the low bits count. `shares` is everywhere the place of those of one direction. */
function recordOf(shares: number, source: number): number {
  return shares + (source & SOURCE_MASK) * abi.SHARE_SIZE;
}
