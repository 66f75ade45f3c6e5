/** What a host could not write: the counters of all and of the tunnel, what is known of the VM then, and what the container is told. */
import { describe, expect, test } from 'vitest';
import { abi, type PacketCore, tunnelsFrom } from '../src/core/index.ts';
import { cores, hex, messages } from './core.ts';
import * as wire from './packet.ts';
import { A, B, C, CONTAINER_C, coreOf, expectSums, MERGE_ALL, receive, send, sendPackets, VIRTIO } from './vms.ts';

const HOST_UNREACHABLE = 1;
const [NETWORK, PROHIBITED] = [0, 10];
const OWN = 0x0a102001;

const tunnelsOf = (core: PacketCore, now = 0) =>
  new Map(tunnelsFrom(core.tunnels.copy(now)).map((tunnel) => [tunnel.vm, tunnel]));
const replyBytes = (core: PacketCore) => core.messages.replies().map((reply) => hex(core.messages.bytes(reply)));
const notWritten = (core: PacketCore, direction: 'outbound' | 'inbound') =>
  core.counters(direction).drops[-abi.DROP_NOT_WRITTEN];

/** What the container is told about its packet. */
const told = (packet: Uint8Array) =>
  hex(
    wire.packetAround(
      { source: OWN, destination: 0x0a10205b, protocol: 1, tos: 0xc0, flags: wire.DONT_FRAGMENT },
      wire.icmpMessage(3, HOST_UNREACHABLE, 0, packet.subarray(0, 548)),
    ),
  );

describe.each(cores)('$name', ({ make }) => {
  test.each(['gre', 'gre-udp'] as const)('%s: without a code, only the counters are others', (encapsulation) => {
    const core = coreOf(make, { encapsulation });
    sendPackets(core, [wire.packetOf({}), wire.packetOf({ destination: CONTAINER_C })]);
    core.encapsulate(0, 2, 5);
    const made = messages(core);
    expectSums(core, 'outbound', [...made, ...made]);
    core.refuse(made.find(({ peer }) => peer === B)?.index as number);
    const { received, forwarded, bytes, drops } = core.counters('outbound');
    expect([received, forwarded, bytes, drops[-abi.DROP_NOT_WRITTEN]]).toEqual([4, 3, 420, 1]);
    const tunnels = tunnelsOf(core);
    expect(tunnels.get(B)).toMatchObject({ outbound: { packets: 1, bytes: 140 } });
    expect(tunnels.get(B)).not.toHaveProperty('unreachable');
    expect(tunnels.get(C)).toMatchObject({ outbound: { packets: 2, bytes: 280 } });
    expect([core.messages.replies(), core.tunnels.learnt()]).toEqual([[], []]);
  });

  test('a message is refused once', () => {
    const core = coreOf(make, {});
    sendPackets(core, [wire.packetOf({})]);
    for (let i = 0; i < 3; i++) core.refuse(0, NETWORK, 0);
    expect(core.counters('outbound')).toMatchObject({ received: 1, forwarded: 0, bytes: 0, replies: 1 });
    expect(notWritten(core, 'outbound')).toBe(1);
  });

  test.each([NETWORK, 1, PROHIBITED, 15])('with code %d, the tunnel says so, and the container is told', (code) => {
    const core = coreOf(make, {});
    const packet = wire.packetOf({});
    sendPackets(core, [packet]);
    core.refuse(0, code, 7000);
    expect(replyBytes(core)).toEqual([told(packet)]);
    expect(core.tunnels.learnt()).toEqual([{ vm: B, unreachable: code }]);
    expect(tunnelsOf(core, 7000).get(B)).toMatchObject({ unreachable: code, outbound: { packets: 0, bytes: 0 } });
    const end = 7000 + abi.UNREACHABLE_LIFETIME * 1000;
    expect(tunnelsOf(core, end - 1).get(B)).toHaveProperty('unreachable');
    expect(tunnelsOf(core, end).get(B)).not.toHaveProperty('unreachable');
  });

  test.each([-1, -2147483648, 16, 2147483647])('code %d is none', (code) => {
    const core = coreOf(make, {});
    sendPackets(core, [wire.packetOf({})]);
    core.refuse(0, code, 0);
    expect([core.messages.replies(), core.tunnels.learnt(), notWritten(core, 'outbound')]).toEqual([[], [], 1]);
  });

  test('what goes out to the VM makes it reachable again', () => {
    const core = coreOf(make, {});
    sendPackets(core, [wire.packetOf({})]);
    core.refuse(0, NETWORK, 0);
    sendPackets(core, [wire.packetOf({})]);
    expect(tunnelsOf(core).get(B)).toMatchObject({ unreachable: NETWORK });
    core.reach(B, 0);
    expect(core.tunnels.learnt()).toEqual([{ vm: B }]);
    expect(tunnelsOf(core).get(B)).not.toHaveProperty('unreachable');
    // That is no news a second time, nor about a VM that nothing is known of.
    core.reach(B, 0);
    core.reach(C, 0);
    core.reach(0, 0);
    expect(core.tunnels.learnt().length).toBe(1);
  });

  test.each<[name: string, frame: Uint8Array, offloads: number, mtu: number, packets: number[]]>([
    ['cut', wire.superFrame({ payload: wire.payloadOf(2500) }, 1000), VIRTIO, 65535, [1, 1, 1]],
    ['whole', wire.superFrame({ payload: wire.payloadOf(2500) }, 1000), VIRTIO | abi.OFFLOAD_GRE_SEGMENT, 65535, [3]],
    [
      'fragmented',
      wire.frameOf(wire.packetOf({ fragment: 0, payload: wire.payloadOf(2500) })),
      VIRTIO,
      1000,
      [1, 1, 1],
    ],
    [
      'cut and fragmented',
      wire.superFrame({ fragment: 0, payload: wire.payloadOf(2500) }, 1400),
      VIRTIO,
      1000,
      [1, 1, 1, 1],
    ],
  ])('%s: the packet is quoted as the container sent it', (_, frame, offloads, mtu, packets) => {
    const core = coreOf(make, { offloads, mtu });
    const made = send(core, [frame]);
    expect(made.map(({ content }) => content.packets)).toEqual(packets);
    for (const { index } of made) core.refuse(index, NETWORK, 0);
    // Once, however many messages it became.
    const [reply, ...others] = core.messages.replies();
    expect(others).toEqual([]);
    const quoted = core.messages.bytes(reply as number).subarray(abi.VIRTIO_SIZE + 28);
    expect(hex(quoted.subarray(0, 28))).toBe(hex(frame.subarray(abi.VIRTIO_SIZE, abi.VIRTIO_SIZE + 28)));
    expect(quoted.length).toBe(548);
    const { received, forwarded, bytes } = core.counters('outbound');
    expect([received, forwarded, bytes]).toEqual([packets.reduce((sum, n) => sum + n), 0, 0]);
    expect(tunnelsOf(core).get(B)).toMatchObject({ outbound: { packets: 0, bytes: 0 } });
  });

  test('datagrams in one message: all are counted, and one reply is about the first', () => {
    const core = coreOf(make, { encapsulation: 'gre-udp', ports: 1, offloads: abi.OFFLOAD_UDP_SEGMENT });
    const packets = [1, 2, 3].map((n) => wire.packetOf({ payload: wire.payloadOf(100, n) }));
    expect(sendPackets(core, packets).map(({ content }) => content.packets)).toEqual([3]);
    core.refuse(0, NETWORK, 0);
    expect(replyBytes(core)).toEqual([told(packets[0] as Uint8Array)]);
    expect([core.counters('outbound').forwarded, notWritten(core, 'outbound')]).toEqual([0, 3]);
  });

  test('I1 what must not be answered is not', () => {
    const core = coreOf(make, {});
    sendPackets(core, [wire.packetAround({ protocol: 1 }, wire.icmpMessage(3, 1, 0, [1, 2]))]);
    core.refuse(0, NETWORK, 0);
    expect([core.messages.replies(), tunnelsOf(core).get(B)?.unreachable]).toEqual([[], NETWORK]);
  });

  test('I4 replies are as few as others', () => {
    const core = coreOf(make, {});
    const packets = Array.from({ length: 128 }, (_, n) => wire.packetOf({ source: 0x0a102002 + n }));
    for (const { index } of sendPackets(core, packets)) core.refuse(index, NETWORK, 0);
    expect(core.counters('outbound')).toMatchObject({ replies: 50, suppressed: 78 });
  });

  test('there is room for a reply to each packet of a call', () => {
    const core = coreOf(make, {});
    const away = { destination: 0x0b000001 };
    for (let i = 0; i < 128; i++) core.put(i, wire.packetOf(i < 28 ? { ...away, source: 0x0a102002 + i } : {}));
    expect(core.encapsulate(0, 128, 0)).toBe(128);
    const before = hex(core.bytes.subarray(abi.DESCRIPTORS, abi.CONTENTS));
    // A host whose clock runs away: no limit holds.
    for (let message = 0; message < 100; message++) core.refuse(message, NETWORK, message * 1000);
    expect([core.messages.replies().length, core.counters('outbound').replies]).toEqual([128, 128]);
    expect(hex(core.bytes.subarray(abi.DESCRIPTORS, abi.CONTENTS))).toBe(before);
  });

  test.each([0, MERGE_ALL])('inbound, with offloads %d: the tunnel that the packets came by', (offloads) => {
    const core = coreOf(make, { local: B, offloads });
    const made = receive(core, wire.burst(10));
    core.refuse(made[0]?.index as number, NETWORK, 0);
    const packets = 10 - (made[0]?.content.packets as number);
    expect(core.counters('inbound')).toMatchObject({ received: 10, forwarded: packets, bytes: 140 * packets });
    const [tunnel] = tunnelsOf(core).values();
    expect(tunnel?.inbound).toEqual({ packets, bytes: 140 * packets });
    // Nobody is told: the code is about what goes out.
    expect(tunnel).not.toHaveProperty('unreachable');
    expect(core.messages.replies()).toEqual([]);
  });

  test.each([0, VIRTIO, MERGE_ALL])('inbound, merged, with offloads %d: the tunnel that it came by', (offloads) => {
    for (const protocol of [6, 17] as const) {
      const core = coreOf(make, { local: B, offloads });
      const merged = wire.partial(wire.packetOf({ protocol, payload: wire.payloadOf(2500) }));
      const made = receive(core, [merged], 1000);
      const before = tunnelsOf(core).get(A)?.inbound;
      core.refuse(made[0]?.index as number, -1, 0);
      const { packets, bytes } = made[0]?.content ?? { packets: 0, bytes: 0 };
      expect([before?.packets, notWritten(core, 'inbound')]).toEqual([3, packets]);
      const rest = { packets: 3 - packets, bytes: (before?.bytes as number) - bytes };
      expect(tunnelsOf(core).get(A)?.inbound).toEqual(rest);
    }
  });

  test('inbound, cut: no bytes of the payload are taken for the address of another VM', () => {
    const core = coreOf(make, { local: B, offloads: VIRTIO });
    core.put(0, wire.grePacket(C, B, wire.packetOf({ source: CONTAINER_C })));
    core.decapsulate(0, 1, 0);
    const payload = wire.payloadOf(2500);
    payload.set([0x0a, 0x10, 0x22, 0x07], 12);
    const made = receive(core, [wire.partial(wire.packetOf({ protocol: 17, payload }))], 1000);
    for (const { index } of made) core.refuse(index, -1, 0);
    const tunnels = tunnelsOf(core);
    expect([A, C].map((vm) => tunnels.get(vm)?.inbound.packets)).toEqual([0, 1]);
  });

  test.each([-1, 1, 127, 128, abi.MESSAGES - 1, abi.MESSAGES, abi.ALL_MESSAGES, 2 ** 31 - 1, -(2 ** 31)])(
    'message %d, which there is not, is nothing',
    (message) => {
      const core = coreOf(make, {});
      sendPackets(
        core,
        Array.from({ length: 128 }, () => wire.packetOf({})),
      );
      sendPackets(core, [wire.packetOf({})]);
      const before = core.bytes.slice(0, abi.SLOTS);
      core.refuse(message, NETWORK, 0);
      expect(Buffer.compare(core.bytes.subarray(0, abi.SLOTS), before)).toBe(0);
    },
  );

  test('nor is a reply, or a message of a call before', () => {
    const core = coreOf(make, {});
    sendPackets(core, [wire.packetOf({})]);
    sendPackets(core, [wire.packetOf({ destination: 0x0b000001 })]);
    expect(core.messages.replies().length).toBe(1);
    const before = core.bytes.slice(0, abi.SLOTS);
    for (const message of [0, ...core.messages.replies()]) core.refuse(message, NETWORK, 0);
    expect(Buffer.compare(core.bytes.subarray(0, abi.SLOTS), before)).toBe(0);
  });

  test('a tunnel that has gone since, or has been opened anew, has counted less', () => {
    const core = coreOf(make, {});
    sendPackets(core, [wire.packetOf({})]);
    core.expire(1);
    core.refuse(0, NETWORK, 0);
    expect([core.tunnels.count, notWritten(core, 'outbound')]).toEqual([0, 1]);
    // The container is told all the same.
    expect(core.messages.replies().length).toBe(1);
  });

  test('a message that is put back is refused as it was made', () => {
    for (const encapsulation of ['gre', 'gre-udp'] as const) {
      const core = coreOf(make, { encapsulation, ports: 8 });
      const packet = wire.packetOf({ sourcePort: 7 });
      const [message] = sendPackets(core, [packet]);
      sendPackets(core, [wire.packetOf({ destination: CONTAINER_C })]);
      core.messages.recall(message?.peer as number, packet);
      core.refuse(0, NETWORK, 0);
      expect(replyBytes(core)).toEqual([told(packet)]);
      expect(tunnelsOf(core).get(B)).toMatchObject({ unreachable: NETWORK, outbound: { packets: 0, bytes: 0 } });
      expect(tunnelsOf(core).get(C)).toMatchObject({ outbound: { packets: 1, bytes: 140 } });
      expect(core.counters('outbound')).toMatchObject({ received: 2, forwarded: 1, bytes: 140 });
    }
  });
});
