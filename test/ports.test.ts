/** The ports of GRE-in-UDP: where packets go (U1), and from where each flow comes (U2, U4). */
import { describe, expect, test } from 'vitest';
import { abi, type CoreDevices } from '../src/core/index.ts';
import { cores, hex, type Message, word } from './core.ts';
import { portOf } from './flow.ts';
import * as wire from './packet.ts';
import { coreOf, send, sendPackets, VIRTIO, type Vm } from './vms.ts';

const { SYN, MORE_FRAGMENTS } = wire;

describe.each(cores)('$name', ({ make }) => {
  const udpVm = (devices: CoreDevices): Vm => ({ encapsulation: 'gre-udp', ...devices });

  test('U1 the destination port is 4754, at the address of the VM', () => {
    const core = coreOf(make, udpVm({ ports: 8 }));
    const [message] = sendPackets(core, [wire.packetOf({})]) as [Message];
    const name = abi.NAMES + message.index * abi.NAME_SIZE;
    expect(hex(core.bytes.subarray(name, name + 8))).toBe(`0200${(4754).toString(16)}c0a81021`);
    const control = abi.MESSAGE_TABLE + message.index * abi.MESSAGE_SIZE + abi.MESSAGE_CONTROL_LENGTH;
    expect(word(core, control)).toBe(0);
  });

  test('U1 the format GRE names no port', () => {
    const core = coreOf(make, { ports: 8 });
    const flows = Array.from({ length: 9 }, (_, n) => wire.packetOf({ sourcePort: n }));
    expect(sendPackets(core, flows).map(({ port }) => port)).toEqual(flows.map(() => 0));
    const [message] = sendPackets(core, [wire.packetOf({})]) as [Message];
    const name = abi.NAMES + message.index * abi.NAME_SIZE;
    expect(hex(core.bytes.subarray(name, name + 8))).toBe('02000000c0a81021');
  });

  test.each([1, 2, 3, 7, 8])('U2 the port is that of the flow, and all %i are used', (ports) => {
    const core = coreOf(make, udpVm({ ports }));
    const flows = Array.from({ length: 400 }, (_, n) => ({
      protocol: n % 3 === 0 ? (17 as const) : (6 as const),
      sourcePort: 1024 + n * 7,
      destination: n % 2 === 0 ? 0x0a102107 : 0x0a102208,
    }));
    const used = new Map<number, number>();
    for (const flow of flows) {
      const first = wire.packetOf(flow);
      // Nothing but addresses, protocol and ports counts.
      const other = wire.packetOf({
        ...flow,
        ttl: 9,
        id: 99,
        tos: 4,
        sequence: 77,
        flags: SYN,
        payload: wire.payloadOf(3),
        ipOptions: [1, 1, 1, 1],
      });
      const made = sendPackets(core, [first, other]);
      const expected = portOf(first, ports);
      expect(made.map(({ port }) => port)).toEqual([expected, expected]);
      used.set(expected, (used.get(expected) ?? 0) + 1);
    }
    expect([...used.keys()].sort()).toEqual(Array.from({ length: ports }, (_, i) => i));
    // Nearly the same share for each.
    expect(Math.min(...used.values())).toBeGreaterThan(flows.length / ports / 2);
  });

  test.each([0, 1, 6, 17, 33, 46, 50, 132, 136, 255])('U2 protocol %i: ports where it has some', (protocol) => {
    const core = coreOf(make, udpVm({ ports: 8 }));
    const packets = Array.from({ length: 64 }, (_, n) =>
      wire.editedHeader(wire.packetOf({ sourcePort: n * 999 }), 9, protocol),
    );
    const made = new Set(packets.map((packet) => sendPackets(core, [packet])[0]?.port));
    expect(made.size > 1).toBe([6, 17, 33, 132, 136].includes(protocol));
    for (const packet of packets) {
      // Too short for ports: as if they were 0.
      for (const length of [20, 21, 23, 24]) {
        const short = wire.editedHeader(packet, 2, 0, length).subarray(0, length);
        expect(sendPackets(core, [short])[0]?.port).toBe(portOf(short, 8));
      }
      expect(sendPackets(core, [packet])[0]?.port).toBe(portOf(packet, 8));
    }
  });

  test('U2 the segments of a super-packet stay on one port', () => {
    const core = coreOf(make, { ...udpVm({ ports: 8 }), offloads: VIRTIO });
    for (let n = 0; n < 50; n++) {
      const parts = { sourcePort: 1000 + n, payload: wire.payloadOf(2000) };
      const made = send(core, [wire.superFrame(parts, 200)]);
      expect([made.length, new Set(made.map(({ port }) => port))]).toEqual([
        10,
        new Set([portOf(wire.packetOf(parts), 8)]),
      ]);
    }
  });

  test('U4 the fragments of a packet keep one port, whatever their first bytes', () => {
    const core = coreOf(make, udpVm({ ports: 8 }));
    const ports = new Set<number | undefined>();
    for (let n = 0; n < 64; n++) {
      const destination = 0x0a102102 + n;
      const fragments = [MORE_FRAGMENTS, MORE_FRAGMENTS | 10, 20, 0x1fff, MORE_FRAGMENTS | 0x8000].map((fragment, i) =>
        wire.packetOf({ protocol: 17, destination, fragment, sourcePort: n * 977 + i * 4099 }),
      );
      const used = new Set(fragments.map((fragment) => sendPackets(core, [fragment])[0]?.port));
      expect(used.size).toBe(1);
      for (const port of used) ports.add(port);
    }
    expect(ports.size).toBe(8);
  });
});
