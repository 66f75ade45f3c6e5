/** Messages as the kernel takes them: several datagrams in one, records with pointers, and what the configuration says. */
import { describe, expect, test } from 'vitest';
import { abi, type CoreConfig, type CoreDevices } from '../src/core/index.ts';
import { config, cores, hex, word } from './core.ts';
import { portOf } from './flow.ts';
import * as wire from './packet.ts';
import {
  A,
  B,
  C,
  CONTAINER_C,
  coreOf,
  expectSums,
  hexes,
  innerOf,
  packetsIn,
  send,
  sendPackets,
  VIRTIO,
  type Vm,
} from './vms.ts';

describe.each(cores)('$name', ({ make }) => {
  const udpVm = (devices: CoreDevices): Vm => ({ encapsulation: 'gre-udp', ...devices });

  test.each<[name: string, lengths: number[], expected: number[]]>([
    ['one length', [100, 100, 100], [3]],
    ['the last one shorter', [100, 100, 50], [3]],
    ['nothing follows a shorter one', [100, 50, 50, 50], [2, 2]],
    ['nothing follows a shorter one, not even the first length', [100, 50, 100], [2, 1]],
    ['a longer one', [50, 100, 100], [1, 2]],
    ['64 at most', [...Array<number>(127).fill(60), 59], [64, 64]],
    ['64 at most, even if a shorter one comes', [...Array<number>(64).fill(60), 59], [64, 1]],
    ['65,507 bytes, just', Array<number>(13).fill(5039 - 4), [13]],
    ['65,507 bytes and 13 more', Array<number>(13).fill(5040 - 4), [12, 1]],
    ['a shorter one that fits 65,507 bytes', [...Array<number>(12).fill(5040 - 4), 5027 - 4], [13]],
    ['a shorter one that does not', [...Array<number>(12).fill(5040 - 4), 5028 - 4], [12, 1]],
    ['the largest', [65535 - 32], [1]],
  ])('datagrams of one size are one message: %s', (_, lengths, expected) => {
    const packets = lengths.map((length, n) => wire.packetOf({ payload: wire.payloadOf(length - 40, n) }));
    const core = coreOf(make, udpVm({ ports: 1, offloads: abi.OFFLOAD_UDP_SEGMENT }));
    const made = sendPackets(core, packets);
    expect(packetsIn(made)).toEqual(expected);
    expect(hexes(innerOf(made, 4))).toEqual(hexes(packets));
    // Each in a message of its own, where the socket cannot divide them.
    const single = sendPackets(coreOf(make, udpVm({ ports: 1 })), packets.slice(0, 3));
    expect(single.map(({ bytes }) => hex(bytes.subarray(4)))).toEqual(hexes(packets.slice(0, 3)));
  });

  test('datagrams to different VMs are different messages, and to different ports', () => {
    const core = coreOf(make, udpVm({ ports: 8, offloads: abi.OFFLOAD_UDP_SEGMENT }));
    const [b, c] = [wire.packetOf({}), wire.packetOf({ destination: CONTAINER_C })];
    const made = sendPackets(coreOf(make, udpVm({ ports: 1, offloads: abi.OFFLOAD_UDP_SEGMENT })), [b, b, c, b, b]);
    expect(made.map(({ peer, content }) => [peer, content.packets])).toEqual([
      [B, 2],
      [C, 1],
      [B, 2],
    ]);
    const flows = Array.from({ length: 20 }, (_, n) => wire.packetOf({ sourcePort: n }));
    const spread = sendPackets(core, [...flows, ...flows]);
    expect(spread.map(({ port }) => port)).toEqual([...new Set(flows.map((flow) => portOf(flow, 8)))].sort());
    expectSums(core, 'outbound', spread);
  });

  /** Control messages as they lie in memory: UDP_SEGMENT, IP_TOS, IP_TTL, each in 24 bytes, and 8 that are free. */
  const controls = (segment: number, tos: number, ttl: number) => {
    const bytes = Buffer.alloc(80);
    // struct cmsghdr: length, level, type; then the number.
    for (const [at, length, level, type, value] of [
      [0, 18, 17, 103, segment],
      [24, 20, 0, 1, tos],
      [48, 20, 0, 2, ttl],
    ] as const) {
      bytes.writeUInt32LE(length, at);
      bytes.writeUInt32LE(level, at + 8);
      bytes.writeUInt32LE(type, at + 12);
      bytes.writeUInt32LE(value, at + 16);
    }
    return hex(bytes);
  };

  test('the control message of several datagrams, and none for one', () => {
    const core = coreOf(make, udpVm({ ports: 1, offloads: abi.OFFLOAD_UDP_SEGMENT }));
    const one = wire.packetOf({});
    sendPackets(core, [one, one]);
    const said = () => hex(core.bytes.subarray(abi.CONTROLS, abi.CONTROLS + abi.CONTROL_SIZE));
    expect(said()).toBe(controls(144, 0, 64));
    expect(word(core, abi.MESSAGE_TABLE + abi.MESSAGE_CONTROL_LENGTH)).toBe(24);
    sendPackets(core, [one]);
    expect(word(core, abi.MESSAGE_TABLE + abi.MESSAGE_CONTROL_LENGTH)).toBe(0);
    expect(said()).toBe(controls(0, 0, 64));
  });

  test('a message that could not be sent: all its packets are drops, and the sums stay exact', () => {
    const core = coreOf(make, { offloads: VIRTIO | abi.OFFLOAD_UDP_SEGMENT, encapsulation: 'gre-udp' });
    const longer = wire.packetOf({ payload: wire.payloadOf(201) });
    const made = send(core, [wire.superFrame({ payload: wire.payloadOf(2000) }, 200), wire.frameOf(longer)]);
    expect(packetsIn(made)).toEqual([10, 1]);
    core.refuse(made[0]?.index as number);
    const { received, forwarded, bytes, drops } = core.counters('outbound');
    expect([received, forwarded, bytes, drops[-abi.DROP_NOT_WRITTEN]]).toEqual([11, 1, 241, 10]);
  });

  test.each([0, 0x7fffffff, 0xffffffff, 2 ** 32, 0x7f1234567000, 2 ** 53 - 1])(
    'messages point into memory at %d',
    (base) => {
      const core = coreOf(make, {
        base,
        offloads: VIRTIO | abi.OFFLOAD_UDP_SEGMENT,
        encapsulation: 'gre-udp',
        ports: 8,
      });
      const memory = new DataView(core.memory);
      const pointer = (at: number) => memory.getBigUint64(at, true) - BigInt(base);
      const pointers = Array.from({ length: abi.ALL_MESSAGES }, (_, i) => {
        const message = abi.MESSAGE_TABLE + i * abi.MESSAGE_SIZE;
        return [abi.MESSAGE_NAME, abi.MESSAGE_IOV, abi.MESSAGE_CONTROL].map((field) =>
          Number(pointer(message + field)),
        );
      });
      expect(pointers).toEqual(
        Array.from({ length: abi.ALL_MESSAGES }, (_, i) => [
          abi.NAMES + i * abi.NAME_SIZE,
          abi.IOVS + i * abi.IOVS_PER_MESSAGE * abi.IOV_SIZE,
          abi.CONTROLS + i * abi.CONTROL_SIZE,
        ]),
      );
      const parts = { payload: wire.payloadOf(2500) };
      const made = send(core, [wire.superFrame(parts, 1000), wire.frameOf(wire.packetOf({}))]);
      const frames = [...wire.cut(wire.packetOf(parts), 1000), wire.packetOf({})];
      expect(hexes(innerOf(made, 4))).toEqual(hexes(frames));
      // Piece for piece, as the kernel follows them.
      const first = made[0]?.index as number;
      const iovs = Number(pointer(abi.MESSAGE_TABLE + first * abi.MESSAGE_SIZE + abi.MESSAGE_IOV));
      const pieces = Array.from({ length: 6 }, (_, i) => {
        const iov = iovs + i * abi.IOV_SIZE;
        const [start, length] = [Number(pointer(iov)), Number(memory.getBigUint64(iov + abi.IOV_LENGTH, true))];
        return core.bytes.slice(start, start + length);
      });
      expect(hex(Buffer.concat(pieces))).toBe(hex(made[0]?.bytes as Uint8Array));
      expect(pieces.map((piece) => piece.length)).toEqual([44, 1000, 44, 1000, 44, 500]);
      expect(Number(memory.getBigUint64(abi.CONFIG + abi.CONFIG_BASE, true))).toBe(base);
    },
  );

  test('what the devices can do is clamped, and said in the configuration', () => {
    const core = make();
    const said = () => [abi.CONFIG_OFFLOADS, abi.CONFIG_PORTS].map((field) => word(core, abi.CONFIG + field));
    for (const [devices, expected] of [
      [{}, [0, 1]],
      [{ offloads: 0xffffffff, ports: 100 }, [15, 8]],
      [{ offloads: 5, ports: -1 }, [5, 1]],
      [{ offloads: 16, ports: 0 }, [0, 1]],
      [{ ports: 3 }, [0, 3]],
    ] as const) {
      core.attach(devices);
      expect(said()).toEqual(expected);
    }
    // The configuration does not touch it, nor the other way round.
    core.attach({ offloads: 3, ports: 4 });
    core.configure({ ...config, key: 9, encapsulation: 'gre-udp' });
    expect(said()).toEqual([3, 4]);
    core.attach({});
    expect(word(core, abi.CONFIG + abi.CONFIG_ENCAPSULATION)).toBe(abi.ENCAPSULATION_GRE_UDP);
    expect(word(core, abi.CONFIG + abi.CONFIG_KEY)).toBe(9);
  });

  test('attach writes what stays the same in every message', () => {
    const core = coreOf(make, { encapsulation: 'gre-udp', ports: 8, offloads: VIRTIO | abi.OFFLOAD_UDP_SEGMENT });
    const said = () =>
      Array.from({ length: abi.ALL_MESSAGES }, (_, i) => {
        const [name, control] = [abi.NAMES + i * abi.NAME_SIZE, abi.CONTROLS + i * abi.CONTROL_SIZE];
        return [
          word(core, abi.MESSAGE_TABLE + i * abi.MESSAGE_SIZE + abi.MESSAGE_NAME_LENGTH),
          hex(core.bytes.subarray(name, name + abi.NAME_SIZE)),
          hex(core.bytes.subarray(control, control + abi.CONTROL_SIZE)),
        ];
      });
    const fresh = [abi.NAME_SIZE, '02'.padEnd(32, '0'), controls(0, 0, 0)];
    expect(said()).toEqual(Array(abi.ALL_MESSAGES).fill(fresh));
    send(core, [wire.superFrame({ payload: wire.payloadOf(1000) }, 200)]);
    expect(said()).not.toEqual(Array(abi.ALL_MESSAGES).fill(fresh));
    core.attach({});
    expect(said()).toEqual(Array(abi.ALL_MESSAGES).fill(fresh));
  });

  test('configure: what attach was told stays, all else is new', () => {
    const core = make();
    core.attach({ base: 2 ** 32 + 5, offloads: 15, ports: 3 });
    const words = new Uint32Array(core.memory, abi.CONFIG, abi.CONFIG_SIZE / 4);
    const told = [15, 3, 5, 1];
    core.configure({ ...config, local: B, key: 7, encapsulation: 'gre-udp' });
    expect([...words]).toEqual([B, 1, 7, 64, 1, 1, ...told, 1464, 0, 36, 0, 0, 0]);
    core.configure({ local: A, ttl: 257, dscp: 65, mtu: 9000, mappings: [] });
    expect([...words]).toEqual([A, 0, 0, 1, 0, 0, ...told, 9000, 1, 24, 0, 0, 0]);
    core.configure({ local: 1, mtu: -2, mappings: [] });
    core.attach({});
    expect([...words]).toEqual([1, 0, 0, 64, 0, 0, 0, 1, 0, 0, 68, 0, 24, 0, 0, 0]);
    const all: Partial<CoreConfig> = { greChecksum: true, greSequence: true, pathMtuDiscovery: false, clampMss: true };
    core.configure({ ...config, ...all, key: 3, ttl: 'inherit', ecn: 'compatibility', dscp: 'uniform' });
    expect([...words].slice(1, 4)).toEqual([255, 3, 64]);
  });

  test.each<[vm: Vm, most: number]>([
    [{}, 65511],
    [{ key: 1 }, 65507],
    [{ key: 1, greChecksum: true, greSequence: true }, 65499],
    [{ encapsulation: 'gre-udp' }, 65503],
    [{ encapsulation: 'gre-udp', key: 1, greChecksum: true, greSequence: true }, 65491],
  ])('M1 the mtu is at least 68 and leaves room for the overhead: %j', (vm, most) => {
    for (const [mtu, expected] of [
      [-2147483648, 68],
      [67, 68],
      [69, 69],
      [most, most],
      [most + 1, most],
      [2147483647, most],
    ] as const) {
      const core = coreOf(make, { ...vm, mtu });
      expect([mtu, word(core, abi.CONFIG + abi.CONFIG_MTU)]).toEqual([mtu, expected]);
    }
  });
});
