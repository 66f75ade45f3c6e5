/** Messages to VMs that nothing was ever heard of are marked: the host keeps room for the others. */
import { describe, expect, test } from 'vitest';
import { abi, type PacketCore } from '../src/core/index.ts';
import { cores } from './core.ts';
import * as wire from './packet.ts';
import { A, B, C, CONTAINER_C, coreOf, hear, send, VIRTIO, type Vm } from './vms.ts';

const long: wire.Parts = { payload: wire.payloadOf(2500) };

describe.each(cores)('$name', ({ make }) => {
  const marks = (core: PacketCore, frames: readonly Uint8Array[]) =>
    send(core, frames).map(({ index, peer }) => [peer, core.messages.isUnheard(index)]);
  const both = (core: PacketCore, frames: readonly Uint8Array[]) =>
    send(core, frames).map(({ index }) => [core.messages.isUnheard(index), core.messages.isWhole(index)]);

  test.each<{ name: string; vm?: Vm; frame: Uint8Array; messages: number; whole?: boolean }>([
    { name: 'a packet', frame: wire.frameOf(wire.packetOf({})), messages: 1 },
    { name: 'segments', frame: wire.superFrame(long, 1000), messages: 3 },
    { name: 'fragments', vm: { mtu: 1000 }, frame: wire.frameOf(wire.packetOf({ ...long, fragment: 0 })), messages: 3 },
    {
      name: 'fragments of segments',
      vm: { mtu: 700 },
      frame: wire.superFrame({ ...long, fragment: 0 }, 1000),
      messages: 5,
    },
    {
      name: 'a whole super-packet',
      vm: { offloads: VIRTIO | abi.OFFLOAD_GRE_SEGMENT },
      frame: wire.superFrame(long, 1000),
      messages: 1,
      whole: true,
    },
    {
      name: 'datagrams in one message',
      vm: { encapsulation: 'gre-udp', offloads: VIRTIO | abi.OFFLOAD_UDP_SEGMENT },
      frame: wire.superFrame(long, 1000),
      messages: 1,
    },
  ])('$name: until the VM is heard', ({ vm, frame, messages, whole = false }) => {
    const core = coreOf(make, { offloads: VIRTIO, ...vm });
    const all = (isUnheard: boolean) => Array.from({ length: messages }, () => [isUnheard, whole]);
    expect(both(core, [frame])).toEqual(all(true));
    expect(both(core, [frame])).toEqual(all(true));
    hear(core);
    expect(both(core, [frame])).toEqual(all(false));
  });

  test('each message has the mark of its VM, also in one call', () => {
    const core = coreOf(make, { offloads: VIRTIO });
    const toB = wire.frameOf(wire.packetOf({}));
    const toC = wire.frameOf(wire.packetOf({ destination: CONTAINER_C }));
    send(core, [toB]);
    hear(core);
    expect(marks(core, [toC, toB, toC, toB, toB])).toEqual([
      [C, true],
      [B, false],
      [C, true],
      [B, false],
      [B, false],
    ]);
  });

  test('what comes in has no mark, and ends that of its VM', () => {
    const core = coreOf(make, {});
    const put = (packet: Uint8Array) => core.put(0, packet);
    const out = wire.ipv4Packet(0x0a102005, 0x0a102107, 8);
    const mark = () => {
      put(out);
      core.encapsulate(0, 1, 0);
      return core.messages.isUnheard(0);
    };
    expect(mark()).toBe(true);
    put(wire.grePacket(B, A, wire.ipv4Packet(0x0a102107, 0x0a102005, 8)));
    core.decapsulate(0, 1, 0);
    expect([core.messages.count(), core.messages.isUnheard(0)]).toEqual([1, false]);
    expect(mark()).toBe(false);
  });
});
