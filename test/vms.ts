/** VMs in memory, for the suites that run on each core: what their containers send, what comes from another VM, what is made of it. */
import { expect } from 'vitest';
import { abi, type CoreConfig, type CoreDevices, type PacketCore } from '../src/core/index.ts';
import { config, hex, type Message, messages, putFrame } from './core.ts';
import * as wire from './packet.ts';

/** Two VMs; packets go from A to B unless said otherwise. A third, C, is another destination. */
export const [A, B, C] = [0xc0a81020, 0xc0a81021, 0xc0a81022];
export const CONTAINER_C = 0x0a102207;

export const VIRTIO = abi.OFFLOAD_VIRTIO;
export const MERGE_ALL = VIRTIO | abi.OFFLOAD_UDP_MERGE;

type Make = () => PacketCore;

/** Where nothing else is said, every packet fits: limits have suites of their own. */
export type Vm = CoreDevices & Partial<CoreConfig>;

export function coreOf(make: Make, { base, offloads, ports, ...rest }: Vm): PacketCore {
  const core = make();
  core.configure({ ...config, mtu: 65535, ...rest });
  core.attach({
    ...(base === undefined ? {} : { base }),
    ...(offloads === undefined ? {} : { offloads }),
    ...(ports === undefined ? {} : { ports }),
  });
  return core;
}

/** As if every VM that there is a tunnel to had sent something: no tunnel needs a lease. */
export function hear(core: PacketCore): void {
  const view = new DataView(core.memory);
  for (let i = 0; i < abi.TUNNEL_CAPACITY; i++) {
    if (view.getUint32(abi.TUNNEL_KEYS + 4 * i, true) === 0) continue;
    view.setFloat64(abi.TUNNELS + i * abi.TUNNEL_SIZE + abi.TUNNEL_INBOUND_PACKETS, 1, true);
  }
}

/** Handles `count` items, however many calls that takes, and answers all messages. */
function handle(
  core: PacketCore,
  direction: 'encapsulate' | 'decapsulate',
  count: number,
  put: (index: number, item: number) => void,
): Message[] {
  const made: Message[] = [];
  for (let start = 0; start < count; start += abi.BATCH_SIZE) {
    const size = Math.min(count - start, abi.BATCH_SIZE);
    for (let i = 0; i < size; i++) put(i, start + i);
    for (let first = 0; first < size; ) {
      const next = core[direction](first, size, 0);
      if (next <= first) throw new Error(`no progress at ${first}`);
      made.push(...messages(core));
      first = next;
    }
  }
  return made;
}

/** The containers send frames: virtio header and packet. */
export function send(core: PacketCore, frames: readonly Uint8Array[]): Message[] {
  return handle(core, 'encapsulate', frames.length, (i, n) => putFrame(core, i, frames[n] as Uint8Array));
}

/** The containers send packets, with no virtio header. */
export function sendPackets(core: PacketCore, packets: readonly Uint8Array[]): Message[] {
  return handle(core, 'encapsulate', packets.length, (i, n) => core.put(i, packets[n] as Uint8Array));
}

/** GRE packets with these in them come from A; `merged` is what the host says of each. */
export function receive(core: PacketCore, inner: readonly Uint8Array[], merged?: number): Message[] {
  return handle(core, 'decapsulate', inner.length, (i, n) => {
    const packet = wire.grePacket(A, B, inner[n] as Uint8Array);
    core.put(i, packet);
    core.describe(i, packet.length, core.slot(i), merged);
  });
}

/** Groups of GRE-in-UDP datagrams come from a VM, each group in one buffer, as UDP_GRO delivers it. */
export function receiveGroups(core: PacketCore, groups: readonly (readonly Uint8Array[])[], peer = A): Message[] {
  return handle(core, 'decapsulate', groups.length, (i, n) => {
    const bytes = Buffer.concat(groups[n] as Uint8Array[]);
    core.bytes.set(bytes, core.slot(i));
    core.describeDatagrams(i, bytes.length, groups[n]?.[0]?.length as number, peer);
  });
}

export const datagramOf = (inner: Uint8Array) => Uint8Array.from([0, 0, 8, 0, ...inner]);

/** What is on the wire, in order, without the outer headers. */
export function innerOf(sent: readonly Message[], outer = 24): Uint8Array[] {
  return sent.flatMap((message) => message.datagrams).map((datagram) => datagram.subarray(outer));
}

export const hexes = (packets: readonly Uint8Array[]) => packets.map(hex);
export const packetsIn = (all: readonly Message[]) => all.map((message) => message.content.packets);
export const view = (bytes: Uint8Array) => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

export function expectSums(core: PacketCore, direction: 'outbound' | 'inbound', made: readonly Message[]): void {
  const { received, forwarded, bytes, drops } = core.counters(direction);
  expect(received).toBe(forwarded + drops.reduce((sum, n) => sum + n, 0));
  expect(made.reduce((sum, { content }) => sum + content.packets, 0)).toBe(forwarded);
  expect(made.reduce((sum, { content }) => sum + content.bytes, 0)).toBe(bytes);
}
