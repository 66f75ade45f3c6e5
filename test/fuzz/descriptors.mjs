/** Descriptors that no host would write: they point nowhere, or at what others have. */
import { abi } from 'inlay/core';
import { ALIAS, NOWHERE } from './batch.mjs';

const LEAST = abi.SLOTS + abi.HEADROOM - abi.VIRTIO_SIZE;

/** Adds one; only an identical batch gets those that point into packets. */
export function addOddDescriptor(batch, random, peer) {
  const segment = random.pick([0, 0, 1, 2, 100, 0x7fffffff, 0x80000000, 0xffffffff]);
  const add = (kind, place, length) =>
    batch.addDescriptor(kind, place >>> 0, length, segment, peer, random.u32(), random.u32());
  if (batch.identical && random.chance(50)) return add(ALIAS, random.u32(), random.below(2000));
  if (random.chance(50)) {
    const address = random.pick([0, LEAST - 1, abi.DESCRIPTORS, random.below(LEAST)]);
    return add(NOWHERE, address, random.pick([0, 100, 0xffffffff, random.u32()]));
  }
  const end = abi.MEMORY_SIZE;
  const address = random.pick([LEAST, end - 1, end, 0x80000000, 0xffffffff, LEAST + random.u32()]);
  const rest = Math.max(end - (address >>> 0), 0);
  const length = rest + 1 + random.pick([0, 0, 0x7fffffff - rest, random.below(2 ** 31)]);
  return add(NOWHERE, address, Math.min(length, 0xffffffff));
}
