/** Header blocks: room for headers that are not next to their payload, taken one after the other during a call (docs/abi.md). */
import * as abi from '../abi.ts';
import { loadU32, type Memory, storeU32 } from './bytes.ts';

/** u32 in SCRATCH, how many blocks this call has used. */
const USED = abi.SCRATCH + abi.SCRATCH_SIZE - 4;

/** Frees all header blocks. */
export function clearBlocks(memory: Memory): void {
  storeU32(memory, USED, 0);
}

/** How many header blocks are free. */
export function freeBlocks(memory: Memory): number {
  return abi.HEADER_BLOCKS - loadU32(memory, USED);
}

/** The place of the next free header block, which is then used. */
export function takeBlock(memory: Memory): number {
  const used = loadU32(memory, USED);
  storeU32(memory, USED, used + 1);
  return blockOf(used);
}

/** The place of the header block that goes with an inbound message. */
export function blockOf(message: number): number {
  return abi.HEADERS + message * abi.HEADER_BLOCK_SIZE;
}
