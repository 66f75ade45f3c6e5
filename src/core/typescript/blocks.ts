/** Header blocks: room for headers that are not next to their payload, taken one after the other during a call (docs/abi.md). */
import * as abi from '../abi.ts';
import { loadI32, type Memory, storeI32 } from './bytes.ts';

/** How many header blocks this call has used. */
const USED_BLOCKS = abi.SCRATCH;

/** Frees all header blocks. */
export function clearBlocks(memory: Memory): void {
  storeI32(memory, USED_BLOCKS, 0);
}

/** How many header blocks are free. */
export function freeBlocks(memory: Memory): number {
  return abi.HEADER_BLOCKS - loadI32(memory, USED_BLOCKS);
}

/** The place of the next free header block, which is then used. */
export function takeBlock(memory: Memory): number {
  const used = loadI32(memory, USED_BLOCKS);
  storeI32(memory, USED_BLOCKS, used + 1);
  return abi.HEADERS + used * abi.HEADER_BLOCK_SIZE;
}
