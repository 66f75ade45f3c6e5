/** V1: what the core makes of a super-packet is what Linux makes of it, byte for byte; and Linux cuts what the core merged into what it was. */
import { readlinkSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { beforeAll, describe, expect, test } from 'vitest';
import { abi, type PacketCore } from '../../src/core/index.ts';
import { Lab } from '../../src/demo/lab.ts';
import { config, cores, hex, messages, putFrame } from '../core.ts';
import * as wire from '../packet.ts';
import { missing, skip } from './require.ts';

const FORWARD = fileURLToPath(new URL('forward.mjs', import.meta.url));

/** Lets the kernel forward frames, in a lab that is gone afterwards; answers the packets that each became. */
async function kernel(frames: readonly Uint8Array[]): Promise<Uint8Array[][]> {
  const lab = await Lab.open();
  try {
    const here = readlinkSync('/proc/self/ns/net');
    const lines = frames.map((frame) => `${hex(frame)}\n`).join('');
    const output = await lab.must(undefined, [process.execPath, FORWARD, here], lines);
    const lists: string[][] = output
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(lists.length).toBe(frames.length);
    return lists.map((list) => list.map((packet) => Uint8Array.from(Buffer.from(packet, 'hex'))));
  } finally {
    await lab.close();
  }
}

/** The frame as the kernel has it when it has forwarded it and not yet cut it. */
function afterRouting(frame: Uint8Array): Uint8Array {
  return Uint8Array.from([...frame.subarray(0, abi.VIRTIO_SIZE), ...wire.forwarded(frame.subarray(abi.VIRTIO_SIZE))]);
}

/** What the core puts on the wire for a frame, without the outer headers. */
function cutBy(core: PacketCore, frame: Uint8Array): Uint8Array[] {
  core.configure({ ...config, mtu: 65535 });
  core.attach({ offloads: abi.OFFLOAD_VIRTIO });
  putFrame(core, 0, frame);
  expect([core.encapsulate(0, 1, 0), core.verdict(0)]).toEqual([1, abi.FORWARD]);
  return messages(core).map((message) => message.bytes.subarray(24));
}

const { FIN, SYN, PSH, ACK, URG, ECE, CWR } = wire;
const timestamps = [1, 1, 8, 10, 0, 1, 2, 3, 4, 5, 6, 7];
const forty = [...timestamps, ...Array<number>(28).fill(1)];
const routerAlert = [148, 4, 0, 0];

interface SuperPacket {
  name: string;
  length: number;
  size: number;
  parts?: wire.Parts;
}

const tcp: SuperPacket[] = [
  { name: 'two segments', length: 2000, size: 1000 },
  { name: 'the last one shorter', length: 1448 * 5 + 1, size: 1448 },
  { name: 'odd segments, odd last one', length: 1447 * 4 + 3, size: 1447 },
  { name: 'odd segments, one byte in the last', length: 999 * 3 + 1, size: 999 },
  { name: 'nearly 64 KiB', length: 65483 - 20, size: 1448 },
  { name: 'nearly 64 KiB in two', length: 65000, size: 40000 },
  { name: 'as many as a core cuts', length: 65495, size: abi.LEAST_TCP_SEGMENT },
  { name: 'the least segments of Linux', length: 65495, size: 500 },
  { name: 'small and odd', length: 2011, size: 129 },
  { name: 'only one, just as long', length: 1000, size: 1000 },
  { name: 'only one, shorter', length: 500, size: 1000 },
  { name: 'only one, with FIN, PSH and CWR', length: 500, size: 1000, parts: { flags: ACK | FIN | PSH | CWR } },
  { name: 'PSH', length: 5000, size: 1400, parts: { flags: ACK | PSH } },
  { name: 'FIN and PSH', length: 5000, size: 1400, parts: { flags: ACK | FIN | PSH } },
  { name: 'ECE', length: 5000, size: 1400, parts: { flags: ACK | ECE } },
  { name: 'CWR', length: 5000, size: 1400, parts: { flags: ACK | CWR } },
  { name: 'CWR, ECE, FIN and PSH', length: 5000, size: 1400, parts: { flags: ACK | CWR | ECE | FIN | PSH } },
  { name: 'SYN', length: 3000, size: 1400, parts: { flags: SYN } },
  { name: 'URG and its pointer', length: 5000, size: 1400, parts: { flags: ACK | URG, urgent: 3000 } },
  { name: 'reserved bits', length: 5000, size: 1400, parts: { reserved: 0xe } },
  { name: 'timestamps', length: 10000, size: 1448, parts: { tcpOptions: timestamps } },
  { name: '40 bytes of TCP options', length: 10000, size: 1408, parts: { tcpOptions: forty } },
  { name: 'IP options', length: 10000, size: 1444, parts: { ipOptions: routerAlert } },
  { name: '40 bytes of IP options', length: 10000, size: 1400, parts: { ipOptions: Array<number>(40).fill(1) } },
  {
    name: 'all options there is room for',
    length: 9999,
    size: 1333,
    parts: { ipOptions: [...routerAlert, ...Array<number>(36).fill(1)], tcpOptions: forty },
  },
  { name: 'identification wraps', length: 10000, size: 1000, parts: { id: 65530 } },
  { name: 'sequence wraps', length: 10000, size: 1000, parts: { sequence: 0xffffffff - 4500 } },
  { name: 'sequence crosses 2^31', length: 10000, size: 1000, parts: { sequence: 0x7fffffff - 4500 } },
  { name: 'without DF', length: 10000, size: 1000, parts: { fragment: 0 } },
  { name: 'reserved bit of the fragment flags', length: 4000, size: 1000, parts: { fragment: 0x8000 } },
  { name: 'TOS', length: 4000, size: 1000, parts: { tos: 0xbb } },
  { name: 'other numbers', length: 4000, size: 777, parts: { window: 0xffff, acknowledgement: 0xfedcba98, id: 0 } },
];

const udp: SuperPacket[] = [
  { name: 'two segments', length: 2000, size: 1000 },
  { name: 'the last one shorter', length: 1472 * 5 + 1, size: 1472 },
  { name: 'odd segments, odd last one', length: 1471 * 4 + 3, size: 1471 },
  { name: 'nearly 64 KiB', length: 65400, size: 1472 },
  { name: 'small and odd', length: 2011, size: 65 },
  { name: 'as many as a core cuts', length: abi.MAX_UDP_SEGMENTS * abi.LEAST_UDP_SEGMENT, size: abi.LEAST_UDP_SEGMENT },
  { name: 'only one, just as long', length: 1000, size: 1000 },
  { name: 'only one, shorter', length: 500, size: 1000 },
  { name: 'IP options', length: 10000, size: 1444, parts: { ipOptions: routerAlert } },
  { name: 'identification wraps', length: 10000, size: 1000, parts: { id: 65530 } },
  { name: 'without DF', length: 10000, size: 1000, parts: { fragment: 0 } },
  { name: 'TOS', length: 4000, size: 1000, parts: { tos: 0xbb } },
];

/** A payload that makes the checksum of segment `n` come out as zero. */
function zeroSum(parts: wire.Parts, size: number, n: number): wire.Parts {
  const payload = parts.payload?.slice() as Uint8Array;
  const at = n * size;
  payload.set([0, 0], at);
  const segment = wire.cut(wire.packetOf({ ...parts, payload }), size)[n] as Uint8Array;
  const place = wire.headersLength(segment) - (parts.protocol === 17 ? 2 : 4);
  payload.set(segment.subarray(place, place + 2), at);
  return { ...parts, payload };
}

function partsOf(protocol: 6 | 17, { length, parts }: SuperPacket): wire.Parts {
  return { protocol, payload: wire.payloadOf(length), ...parts };
}

interface Case {
  name: string;
  frame: Uint8Array;
}

const cutCases: Case[] = [
  ...tcp.map((each) => ({ name: `TCP, ${each.name}`, frame: wire.superFrame(partsOf(6, each), each.size) })),
  ...udp.map((each) => ({ name: `UDP, ${each.name}`, frame: wire.superFrame(partsOf(17, each), each.size) })),
  ...([6, 17] as const).flatMap((protocol) => [
    ...[0, 1, 3].map((n) => ({
      name: `protocol ${protocol}, the checksum of segment ${n} is zero`,
      frame: wire.superFrame(zeroSum({ protocol, payload: wire.payloadOf(3500) }, 1000, n), 1000),
    })),
    {
      name: `protocol ${protocol}, only one, and its checksum is zero`,
      frame: wire.superFrame(zeroSum({ protocol, payload: wire.payloadOf(900) }, 1000, 0), 1000),
    },
  ]),
];

/** Packets that are not to be cut, but whose checksum is to be made. */
const checksumCases: Case[] = ([6, 17] as const).flatMap((protocol) => {
  const offset = protocol === 6 ? 16 : 6;
  const frame = (parts: wire.Parts, start = 20) =>
    wire.frameOf(wire.partial(wire.packetOf({ protocol, ...parts })), { flags: 1, start, offset });
  return [
    { name: `protocol ${protocol}, no payload`, frame: frame({ payload: new Uint8Array(0) }) },
    { name: `protocol ${protocol}, even`, frame: frame({ payload: wire.payloadOf(1000) }) },
    { name: `protocol ${protocol}, odd`, frame: frame({ payload: wire.payloadOf(1001) }) },
    { name: `protocol ${protocol}, IP options`, frame: frame({ ipOptions: routerAlert }, 24) },
    { name: `protocol ${protocol}, FIN and PSH`, frame: frame({ flags: ACK | FIN | PSH }) },
    {
      name: `protocol ${protocol}, the checksum is zero`,
      frame: frame(zeroSum({ protocol, payload: wire.payloadOf(100) }, 100, 0)),
    },
    { name: `protocol ${protocol}, nothing to do`, frame: wire.frameOf(wire.packetOf({ protocol })) },
    {
      name: `protocol ${protocol}, nothing to do and a wrong checksum`,
      frame: wire.frameOf(wire.partial(wire.packetOf({ protocol }))),
    },
  ];
});

const hexes = (packets: readonly Uint8Array[]) => packets.map(hex);

/** A flow that one VM sends and the other's core merges: super-packets that some sender once had, one after the other. */
interface Flow {
  name: string;
  packets: Uint8Array[];
  /** How many messages the core is to make of them. */
  messages: number;
  /** What the host knows of merging. */
  merged?: number;
  /** What the kernel is to send, if not the same. */
  becomes?: Uint8Array[];
}

function burst(length: number, size: number, parts: wire.Parts = {}): Uint8Array[] {
  return wire.cut(wire.packetOf({ payload: wire.payloadOf(length), ...parts }), size);
}

const udpBurst = (length: number, size: number, parts: wire.Parts = {}) =>
  burst(length, size, { protocol: 17, ...parts });

const flows: Flow[] = [
  { name: 'TCP', packets: burst(20000, 1448), messages: 1 },
  { name: 'TCP, without DF', packets: burst(20000, 1448, { fragment: 0, id: 65530 }), messages: 1 },
  {
    name: 'TCP, PSH, ECE and options',
    packets: burst(20001, 1447, { flags: ACK | PSH | ECE, tcpOptions: forty }),
    messages: 1,
  },
  { name: 'TCP, sequence wraps', packets: burst(9000, 999, { sequence: 0xfffff000 }), messages: 1 },
  { name: 'TCP, 64 packets of one byte', packets: burst(64, 1), messages: 1 },
  { name: 'TCP, 65 packets', packets: burst(65 * 100, 100), messages: 2 },
  {
    name: 'TCP, more than 64 KiB',
    packets: [0, 1].flatMap((n) => burst(40000, 10000, { id: 1 + 4 * n, sequence: 1 + 40000 * n })),
    messages: 2,
  },
  { name: 'UDP', packets: udpBurst(20000, 1472), messages: 1 },
  { name: 'UDP, without DF', packets: udpBurst(20000, 1472, { fragment: 0, id: 65530 }), messages: 1 },
  { name: 'UDP, odd', packets: udpBurst(3333, 111), messages: 1 },
  { name: 'UDP, 64 packets of one byte', packets: udpBurst(64, 1), messages: 1 },
  {
    name: 'one after another',
    packets: [
      ...burst(5000, 500),
      ...udpBurst(5000, 1000),
      // Longer ones, so that they are another super-packet.
      ...burst(5000, 1000, { id: 11, sequence: 5001 }),
    ],
    messages: 3,
  },
  {
    name: 'packets that nothing can be done with',
    packets: [
      wire.packetOf({ flags: ACK | SYN }),
      wire.packetOf({ flags: ACK | FIN }),
      wire.edited(wire.packetOf({}), 36, 0, 0),
    ],
    messages: 3,
  },
  ...([6, 17] as const).flatMap((protocol) =>
    [0, 500, protocol === 6 ? 512 : 1436].map((length) => {
      const packet = wire.packetOf({ protocol, payload: wire.payloadOf(length) });
      const name = `protocol ${protocol}, an open checksum, ${length} bytes`;
      return { name, packets: [wire.partial(packet)], messages: 1, becomes: [packet] };
    }),
  ),
  {
    name: 'TCP, an open checksum, nobody knows the size',
    packets: [
      wire.partial(wire.packetOf({ payload: wire.payloadOf(20000), flags: ACK | PSH, tcpOptions: timestamps })),
    ],
    messages: 1,
    becomes: burst(20000, abi.LEAST_PATH_MTU - 52, { flags: ACK | PSH, tcpOptions: timestamps }),
  },
  ...([6, 17] as const).flatMap((protocol) =>
    [
      [3000, 1000],
      [3001, 1000],
      [20000, 1400],
      [1001, 1000],
    ].map(([length, merged]) => {
      const parts = { protocol, payload: wire.payloadOf(length as number), flags: ACK | PSH };
      const name = `protocol ${protocol}, ${length} bytes that were merged from ${merged} each`;
      const becomes = wire.cut(wire.packetOf(parts), merged as number);
      return { name, packets: [wire.partial(wire.packetOf(parts))], messages: 1, merged: merged as number, becomes };
    }),
  ),
];

const [LOCAL, REMOTE] = [0xc0a81021, 0xc0a81020];

/** What the core of the VM that gets `packets` writes to its TUN device. */
function mergedBy(core: PacketCore, packets: readonly Uint8Array[], merged?: number): Uint8Array[] {
  core.configure({ ...config, local: LOCAL });
  core.attach({ offloads: abi.OFFLOAD_VIRTIO | abi.OFFLOAD_UDP_MERGE });
  for (const [i, packet] of packets.entries()) {
    const whole = wire.grePacket(REMOTE, LOCAL, packet);
    core.put(i, whole);
    core.describe(i, whole.length, core.slot(i), merged);
  }
  expect(core.decapsulate(0, packets.length, 0)).toBe(packets.length);
  return messages(core).map((message) => message.bytes);
}

const reason = await missing();
const skipped = skip('segmentation', reason);

/** A kernel without USO refuses super-packets of UDP. */
async function usoMissing(): Promise<string | undefined> {
  const [packets] = await kernel([wire.superFrame({ protocol: 17, payload: wire.payloadOf(200) }, 100)]);
  return packets?.length === 2 ? undefined : 'this kernel takes no UDP super-packets from a TUN device: Linux 6.2 does';
}

const withoutUdp = skipped || skip('segmentation of UDP', await usoMissing());
const isUdp = (packet: Uint8Array | undefined) => packet?.[9] === 17;

describe.skipIf(skipped)('segmentation', () => {
  const cut = cutCases.filter(({ frame }) => !withoutUdp || !isUdp(frame.subarray(abi.VIRTIO_SIZE)));
  const merged = flows.filter(({ packets }) => !withoutUdp || !packets.some(isUdp));
  const byKernel = new Map<string, string[]>();

  beforeAll(async () => {
    const cases = [...cut, ...checksumCases];
    const lists = await kernel(cases.map(({ frame }) => frame));
    for (const [i, { name }] of cases.entries()) byKernel.set(name, hexes(lists[i] as Uint8Array[]));
  });

  test('the kernel has cut them all, the core can, and no two names are the same', () => {
    const counts = cut.map(({ name }) => byKernel.get(name)?.length ?? 0);
    expect([Math.min(...counts), Math.max(...counts)]).toEqual([1, abi.MAX_SEGMENTS]);
    expect(cut.filter((_, i) => counts[i] === 1).every(({ name }) => name.includes('only one'))).toBe(true);
    expect(byKernel.size).toBe(cut.length + checksumCases.length);
  });

  // The unit suites measure the cores with it.
  describe('test/packet.ts', () => {
    test.each(cut)('V1 cuts as the kernel does: $name', ({ name, frame }) => {
      const size = new DataView(frame.buffer).getUint16(abi.VIRTIO_GSO_SIZE, true);
      const packet = afterRouting(frame).subarray(abi.VIRTIO_SIZE);
      expect(hexes(wire.cut(packet, size))).toEqual(byKernel.get(name));
    });
  });

  describe.each(cores)('$name', ({ make }) => {
    let core: PacketCore;
    beforeAll(() => {
      core = make();
    });

    test.each(cut)('V1 cuts as the kernel does: $name', ({ name, frame }) => {
      expect(hexes(cutBy(core, afterRouting(frame)))).toEqual(byKernel.get(name));
    });

    test.each(checksumCases)('makes the checksum that the kernel makes: $name', ({ name, frame }) => {
      expect(hexes(cutBy(core, afterRouting(frame)))).toEqual(byKernel.get(name));
    });

    test('V2 the kernel cuts what was merged into what it was', async () => {
      const written = merged.map(({ packets, merged: size }) => mergedBy(core, packets, size));
      expect(written.map((frames) => frames.length)).toEqual(merged.map(({ messages }) => messages));
      const lists = await kernel(written.flat());
      const sent = written.map((frames) => lists.splice(0, frames.length).flat());
      for (const [i, { name, packets, becomes = packets }] of merged.entries()) {
        expect({ name, packets: hexes(sent[i] as Uint8Array[]) }).toEqual({
          name,
          packets: hexes(becomes.map((packet) => wire.forwarded(packet))),
        });
      }
    });
  });
});
