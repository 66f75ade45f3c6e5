/** Header blocks: room for headers that are not next to their payload. */
import { HEADER_BLOCK_SIZE, HEADER_BLOCKS, HEADERS } from '../src/core/abi';

let used: i32 = 0;

/** Frees all header blocks. */
export function clearBlocks(): void {
  used = 0;
}

/** How many are free. */
export function freeBlocks(): i32 {
  return HEADER_BLOCKS - used;
}

/** The next free header block, which is then used. */
export function takeBlock(): usize {
  return blockOf(used++);
}

/** The header block that goes with an inbound message: of each, the one with its number. */
export function blockOf(message: i32): usize {
  return <usize>(HEADERS + message * HEADER_BLOCK_SIZE);
}
