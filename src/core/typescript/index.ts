/** The packet core in TypeScript: the Wasm core's twin, its fallback and its oracle (docs/abi.md; GRE over IPv4, RFC 2784). */
import * as abi from '../abi.ts';
import { PacketCore } from '../core.ts';
import { addF64, clear, loadI32, type Memory, putI32, storeI32 } from './bytes.ts';
import { checkGre, greLength, putGre } from './gre.ts';
import * as ipv4 from './ipv4.ts';
import { addMapping, findMapping, isReserved, isUnderlay, senderOf, vmIn, vmOf } from './mapping.ts';
import { clearChanges, expireTunnels, useTunnel } from './tunnels.ts';

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

function configure(memory: Memory, local: number, keyed: number, key: number, ttl: number): void {
  clear(memory, abi.CONFIG, abi.CONFIG_SIZE);
  storeI32(memory, abi.CONFIG + abi.CONFIG_LOCAL, local);
  storeI32(memory, abi.CONFIG + abi.CONFIG_KEYED, keyed === 0 ? 0 : 1);
  storeI32(memory, abi.CONFIG + abi.CONFIG_KEY, keyed === 0 ? 0 : key);
  storeI32(memory, abi.CONFIG + abi.CONFIG_TTL, ttl & 0xff);
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

/** Encapsulates one packet. Returns the inner total length in bytes, or a drop reason. */
function encapsulatePacket(memory: Memory, descriptor: number, now: number): number {
  const inner = loadI32(memory, descriptor + abi.DESCRIPTOR_ADDRESS);
  const available = loadI32(memory, descriptor + abi.DESCRIPTOR_LENGTH);
  if (!isInside(inner, available)) return abi.DROP_BAD_DESCRIPTOR;
  const check = ipv4.checkIpv4(memory, inner, available);
  if (check !== abi.FORWARD) return check;

  const local = loadI32(memory, abi.CONFIG + abi.CONFIG_LOCAL);
  const sender = senderOf(memory, ipv4.source(memory, inner));
  if (sender === 0 || sender !== local) return abi.DROP_FOREIGN_SOURCE;
  const destination = ipv4.destination(memory, inner);
  const mapping = findMapping(memory, destination);
  const vm = mapping === 0 ? 0 : vmIn(memory, mapping, destination);
  if (vm === 0) return abi.DROP_NO_MAPPING;
  if (vm === local) return abi.DROP_OWN_SLICE;
  if (isReserved(memory, mapping, destination)) return abi.DROP_RESERVED_ADDRESS;

  const keyed = loadI32(memory, abi.CONFIG + abi.CONFIG_KEYED);
  const headers = ipv4.IPV4_LENGTH + greLength(keyed);
  const length = ipv4.totalLength(memory, inner);
  if (headers + length > ipv4.MAX_TOTAL_LENGTH) return abi.DROP_TOO_LONG;

  const tunnel = useTunnel(memory, vm, now);
  addF64(memory, tunnel + abi.TUNNEL_OUTBOUND_PACKETS, 1);
  addF64(memory, tunnel + abi.TUNNEL_OUTBOUND_BYTES, length);
  const outer = inner - headers;
  const ttl = loadI32(memory, abi.CONFIG + abi.CONFIG_TTL);
  ipv4.putIpv4(memory, outer, headers + length, ttl, local, vm);
  putGre(memory, outer + ipv4.IPV4_LENGTH, keyed, loadI32(memory, abi.CONFIG + abi.CONFIG_KEY));
  describe(memory, descriptor, outer, headers + length, vm);
  return length;
}

/** Decapsulates one packet. Returns the inner total length in bytes, or a drop reason. */
function decapsulatePacket(memory: Memory, descriptor: number, now: number): number {
  const outer = loadI32(memory, descriptor + abi.DESCRIPTOR_ADDRESS);
  const available = loadI32(memory, descriptor + abi.DESCRIPTOR_LENGTH);
  if (!isInside(outer, available)) return abi.DROP_BAD_DESCRIPTOR;
  const outerCheck = ipv4.checkIpv4(memory, outer, available);
  if (outerCheck !== abi.FORWARD) return outerCheck;
  if (ipv4.protocol(memory, outer) !== ipv4.PROTOCOL_GRE) return abi.DROP_NOT_GRE;
  if (ipv4.isFragment(memory, outer)) return abi.DROP_FRAGMENT;
  const local = loadI32(memory, abi.CONFIG + abi.CONFIG_LOCAL);
  if (ipv4.destination(memory, outer) !== local) return abi.DROP_NOT_FOR_US;
  const vm = ipv4.source(memory, outer);
  if (vm === 0 || vm === local || !isUnderlay(memory, vm)) return abi.DROP_FOREIGN_UNDERLAY;

  const end = outer + ipv4.totalLength(memory, outer);
  const gre = outer + ipv4.headerLength(memory, outer);
  const keyed = loadI32(memory, abi.CONFIG + abi.CONFIG_KEYED);
  const header = checkGre(memory, gre, end - gre, keyed, loadI32(memory, abi.CONFIG + abi.CONFIG_KEY));
  if (header < 0) return header;
  const inner = gre + header;
  const innerCheck = ipv4.checkIpv4(memory, inner, end - inner);
  if (innerCheck !== abi.FORWARD) return innerCheck;

  if (senderOf(memory, ipv4.source(memory, inner)) !== vm) return abi.DROP_SPOOFED_SOURCE;
  const destination = ipv4.destination(memory, inner);
  const mapping = findMapping(memory, destination);
  if (mapping === 0 || vmIn(memory, mapping, destination) !== local) return abi.DROP_FOREIGN_DESTINATION;
  if (isReserved(memory, mapping, destination)) return abi.DROP_RESERVED_ADDRESS;

  const length = ipv4.totalLength(memory, inner);
  const tunnel = useTunnel(memory, vm, now);
  addF64(memory, tunnel + abi.TUNNEL_INBOUND_PACKETS, 1);
  addF64(memory, tunnel + abi.TUNNEL_INBOUND_BYTES, length);
  describe(memory, descriptor, inner, length, vm);
  return length;
}

/** Whether a packet lies in the slots behind the first headroom. Numbers of 2^31 and more are negative here: outside. */
function isInside(address: number, length: number): boolean {
  return address >= abi.SLOTS + abi.HEADROOM && length >= 0 && address <= abi.MEMORY_SIZE - length;
}

/** Says in the descriptor what to send on. */
function describe(memory: Memory, descriptor: number, address: number, length: number, vm: number): void {
  storeI32(memory, descriptor + abi.DESCRIPTOR_ADDRESS, address);
  storeI32(memory, descriptor + abi.DESCRIPTOR_LENGTH, length);
  putI32(memory, descriptor + abi.DESCRIPTOR_PEER, vm);
}
