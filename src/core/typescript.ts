/** The packet core in TypeScript: the Wasm core's twin, for hosts without WebAssembly, as a baseline and as an oracle. */
import { MEMORY_SIZE } from './abi.ts';
import { PacketCore } from './core.ts';
import * as twin from './typescript/index.ts';

/** A core with a memory of its own. */
export function typescriptCore(): PacketCore {
  const buffer = new ArrayBuffer(MEMORY_SIZE);
  const memory = new DataView(buffer);
  // `| 0` converts arguments as a call into the Wasm core would, but for those of which only some bits are stored.
  return new PacketCore('typescript', buffer, {
    configure: (local, options, key, ttl, dscp, encapsulation, mtu) =>
      twin.configure(memory, local, options, key, ttl, dscp, encapsulation | 0, mtu | 0),
    attach: (base, offloads, ports) => twin.attach(memory, base, offloads, ports | 0),
    addMapping: (overlay, overlayLength, underlay, underlayLength) =>
      twin.addMapping(memory, overlay, overlayLength | 0, underlay, underlayLength | 0),
    vmOf: (address) => twin.vmOf(memory, address | 0),
    share: (inbound, count, divisor) => twin.share(memory, inbound | 0, count | 0, divisor | 0),
    encapsulate: (first, count, now) => twin.encapsulate(memory, first | 0, count | 0, now),
    decapsulate: (first, count, now) => twin.decapsulate(memory, first | 0, count | 0, now),
    learn: (first, count, now) => twin.learn(memory, first | 0, count | 0, now),
    narrow: (vm, mtu, now) => twin.narrow(memory, vm | 0, mtu | 0, now),
    refuse: (message, code, now) => twin.refuse(memory, message | 0, code | 0, now),
    reach: (vm, now) => twin.reach(memory, vm | 0, now),
    expire: (before) => twin.expire(memory, before),
  });
}
