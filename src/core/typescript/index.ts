/** The packet core in TypeScript: the Wasm core's twin, its fallback and its oracle (docs/abi.md; GRE over IPv4, RFC 2784). */
import * as abi from '../abi.ts';
import { PacketCore } from '../core.ts';
import { addF64, type Memory, storeI32 } from './bytes.ts';
import { configure } from './config.ts';
import { decapsulatePacket } from './inbound.ts';
import { addMapping, vmOf } from './mapping.ts';
import { encapsulatePacket } from './outbound.ts';
import { clearChanges, expireTunnels } from './tunnels.ts';

/** A core with its own memory. */
export function typescriptCore(): PacketCore {
  const buffer = new ArrayBuffer(abi.MEMORY_SIZE);
  const memory: Memory = new DataView(buffer);
  // `| 0` converts arguments as a call into the Wasm core would.
  return new PacketCore('typescript', buffer, {
    configure: (local, keyed, key, ttl) => configure(memory, local, keyed | 0, key, ttl),
    addMapping: (overlay, overlayLength, underlay, underlayLength) =>
      addMapping(memory, overlay, overlayLength | 0, underlay, underlayLength | 0),
    vmOf: (address) => vmOf(memory, address | 0),
    encapsulate: (count, now) => run(memory, abi.OUTBOUND_COUNTERS, count | 0, now),
    decapsulate: (count, now) => run(memory, abi.INBOUND_COUNTERS, count | 0, now),
    expire: (before) => {
      clearChanges(memory);
      return expireTunnels(memory, before);
    },
  });
}

/** Handles the first `count` packets in one direction, which its counters' place names. Returns how many have FORWARD. */
function run(memory: Memory, counters: number, count: number, now: number): number {
  clearChanges(memory);
  const received = Math.min(Math.max(count, 0), abi.BATCH_SIZE);
  let forwarded = 0;
  let bytes = 0;
  for (let i = 0; i < received; i++) {
    const descriptor = abi.DESCRIPTORS + i * abi.DESCRIPTOR_SIZE;
    const result =
      counters === abi.OUTBOUND_COUNTERS
        ? encapsulatePacket(memory, descriptor, now)
        : decapsulatePacket(memory, descriptor, now);
    if (result < 0) {
      storeI32(memory, descriptor + abi.DESCRIPTOR_VERDICT, result);
      addF64(memory, counters + abi.COUNTERS_DROPS - 8 * result, 1);
    } else {
      storeI32(memory, descriptor + abi.DESCRIPTOR_VERDICT, abi.FORWARD);
      forwarded++;
      bytes += result;
    }
  }
  addF64(memory, counters + abi.COUNTERS_RECEIVED, received);
  addF64(memory, counters + abi.COUNTERS_FORWARDED, forwarded);
  addF64(memory, counters + abi.COUNTERS_BYTES, bytes);
  return forwarded;
}
