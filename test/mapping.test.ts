/** The mapping, in the cores and in the host, against a formula of its own: the bits as text, cut and pasted. */
import { describe, expect, test } from 'vitest';
import { abi, type PacketCore } from '../src/core/index.ts';
import { ipv4, parsePrefix } from '../src/mesh/address.ts';
import { Mapping } from '../src/mesh/mapping.ts';
import { cores, word } from './core.ts';
import { grePacket, ipv4Packet } from './packet.ts';

const plans = [
  ['10.0.0.0/8', '192.168.0.0/16'],
  ['240.0.0.0/4', '192.168.0.0/16'],
  ['240.0.0.0/4', '192.168.0.0/17'],
  ['10.0.0.0/8', '172.16.8.0/21'],
  ['10.128.0.0/9', '192.168.0.0/16'],
  ['100.64.0.0/10', '203.0.113.0/24'],
  ['10.0.0.0/30', '192.168.16.32/32'],
] as const;

const binary = (address: number) => (address >>> 0).toString(2).padStart(32, '0');
const prefixOf = (text: string) => {
  const prefix = parsePrefix(text);
  if (!prefix) throw new Error(text);
  return { ...prefix, number: Number(prefix.bits) };
};

/** Answers the VM of an overlay address by cutting text; 0 outside the overlay. */
function cutter(overlayText: string, underlayText: string): (address: number) => number {
  const [overlay, underlay] = [prefixOf(overlayText), prefixOf(underlayText)];
  const overlayBits = binary(overlay.number).slice(0, overlay.length);
  const underlayBits = binary(underlay.number).slice(0, underlay.length);
  return (address) => {
    const bits = binary(address);
    if (!bits.startsWith(overlayBits)) return 0;
    return Number.parseInt(underlayBits + bits.slice(overlay.length, overlay.length + 32 - underlay.length), 2);
  };
}

function configOf(overlayText: string, underlayText: string) {
  const [overlay, underlay] = [prefixOf(overlayText), prefixOf(underlayText)];
  const prefixes = { overlay: overlay.number, underlay: underlay.number };
  return { local: 1, mappings: [{ ...prefixes, overlayLength: overlay.length, underlayLength: underlay.length }] };
}

function configured(make: () => PacketCore, overlay: string, underlay: string): PacketCore {
  const core = make();
  core.configure(configOf(overlay, underlay));
  return core;
}

/** A xorshift generator with a fixed seed: every run tests the same addresses. */
function* randomAddresses(count: number): Generator<number> {
  let x = 0x1234abcd;
  for (let i = 0; i < count; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    yield x >>> 0;
  }
}

/** Compares without an `expect` for each of a million addresses. */
function firstDifference(addresses: Iterable<number>, a: (address: number) => number, b: (address: number) => number) {
  for (const address of addresses) if (a(address) !== b(address)) return { address, a: a(address), b: b(address) };
  return undefined;
}

function* wholeSlices(mapping: Mapping): Generator<number> {
  const size = 2 ** mapping.containerBits;
  const first = Number(mapping.overlay.bits);
  const last = first + 2 ** (32 - mapping.overlay.length);
  for (const slice of [first, first + size, Math.floor((first + last) / 2 / size) * size, last - size]) {
    for (let address = slice - 2; address < slice + size + 2; address++) if (address < 2 ** 32) yield address;
  }
}

describe.each(plans)('%s over %s', (overlay, underlay) => {
  const mapping = new Mapping(prefixOf(overlay), prefixOf(underlay));
  const expected = cutter(overlay, underlay);
  const inOverlay = (address: number) => expected(address) !== 0;

  test.each(cores)('$name: whole slices, and addresses of all of IPv4', ({ make }) => {
    const core = configured(make, overlay, underlay);
    const actual = (address: number) => core.vmOf(address);
    expect(firstDifference(wholeSlices(mapping), actual, expected)).toBeUndefined();
    expect(firstDifference(randomAddresses(200_000), actual, expected)).toBeUndefined();
  });

  test('host: whole slices, there and back', () => {
    const wrong = [...wholeSlices(mapping)].filter(inOverlay).find((address) => {
      const { vm, index } = mapping.explain(ipv4(address));
      return Number(vm.bits) !== expected(address) || Number(mapping.addressOf(vm, index).bits) !== address;
    });
    expect(wrong).toBeUndefined();
  });
});

test('the first mapping that covers an address counts', () => {
  for (const { make } of cores) {
    const core = make();
    const over = { overlay: 0x0a000000, underlay: 0xc0a80000, underlayLength: 16 };
    core.configure({
      local: 1,
      mappings: [
        { ...over, overlayLength: 8 },
        { ...over, overlayLength: 12 },
      ],
    });
    expect(core.vmOf(0x0a10205b)).toBe(0xc0a81020);
  }
});

test('a slice of a quarter of all addresses', () => {
  for (const { make } of cores) {
    const core = make();
    const one = { overlay: 0x80000000, overlayLength: 2, underlay: 0x01020304, underlayLength: 32 };
    core.configure({ local: 1, mappings: [one] });
    expect([0xbf010203, 0x80000000, 0x7fffffff].map((address) => core.vmOf(address))).toEqual([
      0x01020304, 0x01020304, 0,
    ]);
  }
});

test('lengths that do not fit are refused, and a seventeenth mapping', () => {
  for (const { make } of cores) {
    const core = make();
    const over = { overlay: 0x0a000000, overlayLength: 8, underlay: 0x02000000, underlayLength: 10 };
    for (const [overlayLength, underlayLength] of [
      [0, 16],
      [33, 32],
      [8, 0],
      [8, 33],
      [8, 9],
    ] as const) {
      expect(() => core.configure({ local: 1, mappings: [{ ...over, overlayLength, underlayLength }] })).toThrow(
        RangeError,
      );
    }
    const many = (count: number) => ({ local: 1, mappings: Array.from({ length: count }, () => over) });
    expect(() => core.configure(many(16))).not.toThrow();
    expect(() => core.configure(many(17))).toThrow(RangeError);
  }
});

describe.each(cores)('$name', ({ make }) => {
  test.each<[overlay: string, fits: boolean]>([
    ['0.0.0.0/8', false],
    ['0.0.0.0/1', false],
    ['0.1.2.0/24', false],
    ['1.0.0.0/8', true],
    ['126.0.0.0/8', true],
    ['126.0.0.0/7', false],
    ['127.0.0.0/8', false],
    ['127.255.255.0/24', false],
    ['64.0.0.0/2', false],
    ['64.0.0.0/3', true],
    ['128.0.0.0/1', false],
    ['128.0.0.0/2', true],
    ['192.0.0.0/3', true],
    ['192.0.0.0/2', false],
    ['223.0.0.0/8', true],
    ['224.0.0.0/4', false],
    ['239.255.0.0/16', false],
    ['240.0.0.0/4', true],
    ['255.255.255.0/24', true],
    // Bits beyond the length do not count.
    ['127.0.0.1/8', false],
    ['127.0.0.1/1', false],
    ['129.255.255.255/2', true],
  ])("S7 no mapping has addresses that are no host's: %s: %s", (text, fits) => {
    const [address, length] = text.split('/') as [string, string];
    const overlay = address.split('.').reduce((sum, byte) => sum * 256 + Number(byte), 0);
    const mapping = { overlay, overlayLength: Number(length), underlay: 0xc0a81020, underlayLength: 32 };
    const core = make();
    const configure = () => core.configure({ local: 1, mappings: [mapping] });
    if (fits) {
      expect(configure).not.toThrow();
      expect(core.vmOf(overlay)).toBe(0xc0a81020);
    } else {
      // What is refused leaves the table as it was.
      const before = core.bytes.slice(abi.MAPPINGS, abi.OUTBOUND_COUNTERS);
      expect(configure).toThrow(RangeError);
      expect(core.bytes.slice(abi.MAPPINGS, abi.OUTBOUND_COUNTERS)).toEqual(before);
      expect([core.vmOf(overlay), word(core, abi.CONFIG + abi.CONFIG_MAPPINGS)]).toEqual([0, 0]);
    }
  });

  test('S7 all of the slice that holds the limited broadcast address is reserved', () => {
    const core = make();
    // Slices of 16 addresses; the last VM's is 255.255.255.240/28.
    const mapping = { overlay: 0xff000000, overlayLength: 8, underlay: 0x0a000000, underlayLength: 12 };
    const send = (source: number, destination: number) => {
      core.put(0, ipv4Packet(source, destination, 0));
      core.encapsulate(0, 1, 0);
      return core.verdict(0);
    };
    core.configure({ local: 0x0a000001, mappings: [mapping] });
    for (let index = 0; index < 16; index++) {
      expect(send(0xff000012, 0xfffffff0 + index)).toBe(abi.DROP_RESERVED_ADDRESS);
      const isHost = index !== 0 && index !== 15;
      expect(send(0xff000012, 0xffffffe0 + index)).toBe(isHost ? abi.FORWARD : abi.DROP_RESERVED_ADDRESS);
    }
    // Nor does anybody send from there: not what would be the VM itself, nor another, to this one.
    core.configure({ local: 0x0a0fffff, mappings: [mapping] });
    for (let index = 0; index < 16; index++) {
      expect(send(0xfffffff0 + index, 0xff000012)).toBe(abi.DROP_FOREIGN_SOURCE);
      core.put(0, grePacket(0x0a000001, 0x0a0fffff, ipv4Packet(0xff000012, 0xfffffff0 + index, 0)));
      core.decapsulate(0, 1, 0);
      expect(core.verdict(0)).toBe(abi.DROP_RESERVED_ADDRESS);
    }
    core.configure({ local: 0x0a000001, mappings: [mapping] });
    core.put(0, grePacket(0x0a0fffff, 0x0a000001, ipv4Packet(0xfffffff2, 0xff000012, 0)));
    core.decapsulate(0, 1, 0);
    expect(core.verdict(0)).toBe(abi.DROP_FOREIGN_UNDERLAY);
  });

  test.each<[overlay: string, underlay: string]>([
    ['10.0.0.0/8', '192.168.0.0/16'],
    ['10.0.0.0/8', '192.168.16.32/30'],
    // RFC 3021: two addresses, or one, are all hosts'.
    ['10.0.0.0/8', '192.168.16.32/31'],
    ['10.0.0.0/8', '192.168.16.32/32'],
    // Where the last slice of all has 255.255.255.255.
    ['240.0.0.0/4', '192.168.0.0/17'],
    ['240.0.0.0/4', '192.168.16.32/31'],
    ['240.0.0.0/4', '192.168.16.32/32'],
    ['240.0.0.0/5', '192.168.16.32/31'],
  ])('S7 who can be a VM, and which indexes a container can have: %s over %s', (overlay, underlay) => {
    const mapping = new Mapping(prefixOf(overlay), prefixOf(underlay));
    const first = Number(mapping.underlay.bits);
    const all = 2 ** mapping.vmBits;
    // Both ends of the underlay prefix, what is beside them, and one in the middle.
    const vms = [...new Set([-1, 0, 1, 2, all >> 1, all - 3, all - 2, all - 1, all])].map((n) => first + n);
    const last = 2 ** mapping.containerBits - 1;
    const indexes = [0, 1, 2, last - 1, last].map(BigInt);
    const at = (vm: number, index: bigint) => Number(mapping.addressOf(ipv4(vm), index).bits);
    const isHost = (vm: number, index: bigint) => mapping.canBeVm(ipv4(vm)) && index !== 0n && index !== BigInt(last);
    const core = configured(make, overlay, underlay);
    const inside = vms.filter((vm) => vm >= first && vm < first + all);
    for (const local of inside) {
      core.configure({ ...configOf(overlay, underlay), local });
      for (const remote of vms.filter((vm) => vm !== local)) {
        const isInside = inside.includes(remote);
        for (const [own, other] of indexes.flatMap((a) => indexes.map((b) => [a, b] as const))) {
          const [here, there] = [at(local, own), at(remote, other)];
          if (isInside) {
            core.put(0, ipv4Packet(here, there, 0));
            core.encapsulate(0, 1, 0);
            const bad = isHost(remote, other) ? abi.FORWARD : abi.DROP_RESERVED_ADDRESS;
            expect(core.verdict(0)).toBe(isHost(local, own) ? bad : abi.DROP_FOREIGN_SOURCE);
          }
          core.put(0, grePacket(remote, local, ipv4Packet(there, here, 0)));
          core.decapsulate(0, 1, 0);
          const bad = isHost(local, own) ? abi.FORWARD : abi.DROP_RESERVED_ADDRESS;
          const spoofed = isHost(remote, other) ? bad : abi.DROP_SPOOFED_SOURCE;
          expect(core.verdict(0)).toBe(mapping.canBeVm(ipv4(remote)) ? spoofed : abi.DROP_FOREIGN_UNDERLAY);
        }
      }
    }
  });
});
