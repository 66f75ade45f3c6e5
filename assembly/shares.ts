/**
 * Fair shares of a busy VM: where more is to be done than can be, `share` says how much of a batch goes on, and no source takes another's part of it.
 *
 * A source has a height, the work that it has had. A batch is poured in like water over uneven ground, up to the level at which it is as much as may go on:
 * max-min fair, and over time, since who has had less stands lower (as with the start tags of start-time fair queueing, Goyal, Vin and Cheng, 1996).
 */
import {
  LEAST_WORK,
  MAX_WORK_SEGMENTS,
  SHARE_DEMAND,
  SHARE_HEIGHT,
  SHARE_NEXT,
  SHARE_SIZE,
  SHARE_WINDOW,
  SHARES_FIRST,
  SHARES_LEVEL,
  SHARES_SOURCES,
  SHARES_TOP,
  SHARES_WORK,
  SOURCES_LOG2,
  WORK_BYTES_LOG2,
  WORK_SEGMENTS_LOG2,
} from '../src/core/abi';

/** The work of a packet of `length` bytes that is to be cut into segments of `size` bytes, if that is not 0. */
export function workOf(length: i32, size: i32): i32 {
  const segments = size === 0 ? 0 : min(length / size, MAX_WORK_SEGMENTS);
  return 1 + (length >> WORK_BYTES_LOG2) + (segments >> WORK_SEGMENTS_LOG2);
}

/** Notes that a packet of `from` waits. */
export function demandShare(shares: usize, from: u32, work: i32): void {
  const record = recordOf(shares, from);
  const before = load<u32>(record + SHARE_DEMAND);
  if (before === 0) meet(shares, record, from);
  store<u32>(record + SHARE_DEMAND, before + <u32>work);
  addU32(shares + SHARES_WORK, <u32>work);
}

/** The first packet of a source. */
function meet(shares: usize, record: usize, from: u32): void {
  const least = load<f64>(shares + SHARES_TOP) - SHARE_WINDOW;
  store<f64>(record + SHARE_HEIGHT, max(load<f64>(record + SHARE_HEIGHT), least));
  store<u32>(record + SHARE_NEXT, load<u32>(shares + SHARES_FIRST));
  store<u32>(shares + SHARES_FIRST, 1 + (from & ((1 << SOURCES_LOG2) - 1)));
  addU32(shares + SHARES_SOURCES, 1);
}

/** Sets the level so that one part in `divisor` of what waits goes on; answers how many sources there are. */
export function setLevel(shares: usize, divisor: i32): i32 {
  const sources = load<u32>(shares + SHARES_SOURCES);
  const work = load<u32>(shares + SHARES_WORK);
  const budget = max(max(work / <u32>max(divisor, 1), <u32>LEAST_WORK), sources);
  store<f64>(shares + SHARES_LEVEL, budget < work ? levelFor(shares, <f64>budget) : 0);
  forget(shares);
  return <i32>sources;
}

/** The highest level, a whole number, at which no more than `budget` goes on, of more than that. */
function levelFor(shares: usize, budget: f64): f64 {
  let low = Infinity;
  let high: f64 = 0;
  for (let r = firstOf(shares); r !== 0; r = nextOf(shares, r)) {
    const height = load<f64>(r + SHARE_HEIGHT);
    low = min(low, height);
    high = max(high, height + <f64>load<u32>(r + SHARE_DEMAND));
  }
  while (high - low > 1) {
    const level = floor((low + high) / 2);
    if (filled(shares, level) <= budget) low = level;
    else high = level;
  }
  return low;
}

/** How much goes on at this level. */
function filled(shares: usize, level: f64): f64 {
  let sum: f64 = 0;
  for (let r = firstOf(shares); r !== 0; r = nextOf(shares, r)) {
    sum += min(max(level - load<f64>(r + SHARE_HEIGHT), 0), <f64>load<u32>(r + SHARE_DEMAND));
  }
  return sum;
}

/** What waited is no more needed. */
function forget(shares: usize): void {
  for (let r = firstOf(shares); r !== 0; ) {
    const next = nextOf(shares, r);
    store<u32>(r + SHARE_DEMAND, 0);
    store<u32>(r + SHARE_NEXT, 0);
    r = next;
  }
  store<u32>(shares + SHARES_FIRST, 0);
  store<u32>(shares + SHARES_SOURCES, 0);
  store<u32>(shares + SHARES_WORK, 0);
}

/** Whether the batch that is handled has shares. */
export function hasShares(shares: usize): bool {
  return load<f64>(shares + SHARES_LEVEL) !== 0;
}

/** Whether `from` has had its share of a batch that has shares. */
export function isOverShare(shares: usize, from: u32): bool {
  return load<f64>(recordOf(shares, from) + SHARE_HEIGHT) >= load<f64>(shares + SHARES_LEVEL);
}

/**
 * Counts a packet of `from` that is handled, of a batch that has shares, whatever becomes of it: who sends what nobody gets takes part of the work, too. Its last
 * one may take a source above the level: it has to make up for that. `work` below 0 gives it back.
 */
export function takeShare(shares: usize, from: u32, work: i32): void {
  const record = recordOf(shares, from);
  const height = load<f64>(record + SHARE_HEIGHT) + <f64>work;
  store<f64>(record + SHARE_HEIGHT, height);
  store<f64>(shares + SHARES_TOP, max(load<f64>(shares + SHARES_TOP), height));
}

/** The batch has been handled. */
export function endShares(shares: usize): void {
  store<f64>(shares + SHARES_LEVEL, 0);
}

function recordOf(shares: usize, from: u32): usize {
  return shares + <usize>(SHARE_SIZE * <i32>(from & ((1 << SOURCES_LOG2) - 1)));
}

function firstOf(shares: usize): usize {
  return linked(shares, load<u32>(shares + SHARES_FIRST));
}

function nextOf(shares: usize, record: usize): usize {
  return linked(shares, load<u32>(record + SHARE_NEXT));
}

/** The record of source `link` - 1; 0 if `link` is. */
function linked(shares: usize, link: u32): usize {
  return link === 0 ? 0 : recordOf(shares, link - 1);
}

function addU32(p: usize, value: u32): void {
  store<u32>(p, load<u32>(p) + value);
}
