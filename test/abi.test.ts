/** The Wasm modules are what docs/abi.md says: no imports, own fixed memory, the layout exported. */
import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { DROP_REASONS } from '../src/core/verdict.ts';

const root = new URL('../', import.meta.url);
const asconfig = JSON.parse(readFileSync(new URL('asconfig.json', root), 'utf8'));

const layout = new Map(Object.entries(abi));

/** Bytes that each module may have: a bound that a careless import of the runtime would break. */
const SIZE_BUDGET = 32768;

describe.each(['core.wasm', 'core-scalar.wasm'])('%s', (file) => {
  const bytes = readFileSync(new URL(`build/${file}`, root));
  const module = new WebAssembly.Module(bytes);
  const exports = new WebAssembly.Instance(module).exports as Record<string, unknown>;

  test('imports nothing', () => {
    expect(WebAssembly.Module.imports(module)).toEqual([]);
  });

  test('exports the functions, the memory and nothing else but the layout', () => {
    const names = Object.keys(exports).filter((name) => !(exports[name] instanceof WebAssembly.Global));
    const functions = [
      'addMapping',
      'attach',
      'configure',
      'decapsulate',
      'encapsulate',
      'expire',
      'learn',
      'narrow',
      'reach',
      'refuse',
      'share',
      'vmOf',
    ];
    expect(names.sort()).toEqual([...functions, 'memory'].sort());
    expect(functions.map((name) => typeof exports[name])).toEqual(functions.map(() => 'function'));
  });

  test('exports the layout of abi.ts', () => {
    const globals = Object.entries(exports).filter(
      (e): e is [string, WebAssembly.Global] => e[1] instanceof WebAssembly.Global,
    );
    expect(globals.length).toBeGreaterThan(10);
    // A global is an i32: what is larger comes out negative.
    for (const [name, global] of globals) expect([name, global.value]).toEqual([name, Number(layout.get(name)) | 0]);
  });

  test('exports what hosts write into its memory: options, offloads, encapsulations', () => {
    const bits = [...layout.keys()].filter((name) => /^(OPTION|OFFLOAD|ENCAPSULATION)_/.test(name));
    expect(bits.length).toBeGreaterThan(10);
    expect(bits.filter((name) => !(exports[name] instanceof WebAssembly.Global))).toEqual([]);
  });

  test('has memory of fixed size', () => {
    const memory = exports['memory'] as WebAssembly.Memory;
    expect(memory.buffer.byteLength).toBe(abi.MEMORY_SIZE);
    expect(() => memory.grow(1)).toThrow(RangeError);
  });

  test('begins with memory that is all zeros', () => {
    const { memory } = new WebAssembly.Instance(module).exports as { memory: WebAssembly.Memory };
    expect(new Uint8Array(memory.buffer).findIndex((byte) => byte !== 0)).toBe(-1);
  });

  test('is small', () => {
    expect(bytes.length).toBeLessThan(SIZE_BUDGET);
  });
});

test('asconfig.json asks for as much memory as the layout needs', () => {
  const { initialMemory, maximumMemory } = asconfig.options;
  expect([initialMemory, maximumMemory]).toEqual([abi.MEMORY_PAGES, abi.MEMORY_PAGES]);
  expect(abi.SLOTS + abi.BATCH_SIZE * abi.SLOT_SIZE).toBeLessThanOrEqual(abi.MEMORY_SIZE);
});

test('the regions follow each other without overlap', () => {
  const regions = [
    [abi.CONFIG, abi.CONFIG_SIZE],
    [abi.MAPPINGS, abi.MAPPING_SIZE * abi.MAX_MAPPINGS],
    [abi.OUTBOUND_COUNTERS, abi.COUNTERS_SIZE],
    [abi.INBOUND_COUNTERS, abi.COUNTERS_SIZE],
    [abi.ICMP_COUNTERS, abi.COUNTERS_SIZE],
    [abi.CHANGES, abi.CHANGES_SIZE],
    [abi.MESSAGE_COUNTS, 4 * (abi.MAX_PORTS + 1)],
    [abi.SCRATCH, abi.SCRATCH_SIZE],
    [abi.REPLY_BUCKETS, 8 * 2 ** abi.SOURCES_LOG2],
    [abi.REPLY_BUCKETS + abi.BUCKET_OF_ALL, 8],
    [abi.RELAY_BUCKETS, 8 * 2 ** abi.SOURCES_LOG2],
    [abi.RELAY_BUCKETS + abi.BUCKET_OF_ALL, 8],
    [abi.REPLIES, abi.REPLY_SIZE * abi.MESSAGES_PER_PORT],
    [abi.DESCRIPTORS, abi.DESCRIPTOR_SIZE * abi.BATCH_SIZE],
    [abi.CONTENTS, abi.CONTENT_SIZE * abi.ALL_MESSAGES],
    [abi.NAMES, abi.NAME_SIZE * abi.ALL_MESSAGES],
    [abi.CONTROLS, abi.CONTROL_SIZE * abi.ALL_MESSAGES],
    [abi.MESSAGE_TABLE, abi.MESSAGE_SIZE * abi.ALL_MESSAGES],
    [abi.IOVS, abi.IOV_SIZE * abi.IOVS_PER_MESSAGE * abi.ALL_MESSAGES],
    [abi.HEADERS, abi.HEADER_BLOCK_SIZE * abi.HEADER_BLOCKS],
    [abi.LEASE_BUCKETS, 8 * 2 ** abi.SOURCES_LOG2],
    [abi.OUTBOUND_SHARES, abi.SHARES_SIZE],
    [abi.INBOUND_SHARES, abi.SHARES_SIZE],
    [abi.TUNNEL_KEYS, 4 * abi.TUNNEL_CAPACITY],
    [abi.TUNNELS, abi.TUNNEL_SIZE * abi.TUNNEL_CAPACITY],
    [abi.SLOTS, abi.SLOT_SIZE * abi.BATCH_SIZE],
  ] as const;
  for (const [i, [start]] of regions.entries()) {
    expect(start % 8).toBe(0);
    const [before, size] = regions[i - 1] ?? [0, 0];
    expect(start).toBeGreaterThanOrEqual(before + size);
  }
  const [last, size] = regions.at(-1) as (typeof regions)[number];
  expect(last + size).toBeLessThanOrEqual(abi.MEMORY_SIZE);
});

/** Records that the kernel reads, with 64-bit pointers: size and fields as the C structures have them. */
test('the records for the kernel are those of 64-bit Linux', () => {
  expect({
    mmsghdr: [abi.MESSAGE_SIZE, abi.MESSAGE_NAME, abi.MESSAGE_NAME_LENGTH, abi.MESSAGE_IOV, abi.MESSAGE_IOV_COUNT],
    control: [abi.MESSAGE_CONTROL, abi.MESSAGE_CONTROL_LENGTH, abi.MESSAGE_LENGTH],
    iovec: [abi.IOV_SIZE, abi.IOV_BASE, abi.IOV_LENGTH],
    sockaddr_in: [abi.NAME_SIZE, abi.NAME_FAMILY, abi.NAME_PORT, abi.NAME_ADDRESS],
    cmsghdr: [abi.CONTROL_LENGTH, abi.CONTROL_LEVEL, abi.CONTROL_TYPE, abi.CONTROL_SEGMENT],
    virtio_net_hdr: [abi.VIRTIO_SIZE, abi.VIRTIO_FLAGS, abi.VIRTIO_GSO_TYPE, abi.VIRTIO_HEADER_LENGTH],
    virtio_numbers: [abi.VIRTIO_GSO_SIZE, abi.VIRTIO_CHECKSUM_START, abi.VIRTIO_CHECKSUM_OFFSET],
  }).toEqual({
    mmsghdr: [64, 0, 8, 16, 24],
    control: [32, 40, 56],
    iovec: [16, 0, 8],
    sockaddr_in: [16, 0, 2, 4],
    cmsghdr: [0, 8, 12, 16],
    virtio_net_hdr: [10, 0, 1, 2],
    virtio_numbers: [4, 6, 8],
  });
  // CMSG_SPACE of a u16, and of an int: three of them one after the other.
  expect([abi.CONTROL_ITEM_SIZE, abi.CONTROL_TOS, abi.CONTROL_TTL]).toEqual([24, 24 + 16, 48 + 16]);
  expect(abi.CONTROL_SIZE).toBeGreaterThanOrEqual(3 * 24);
});

test('capacities fit each other', () => {
  // A packet of the largest size with its virtio header ends within its slot.
  expect(abi.SLOT_SIZE - abi.HEADROOM).toBeGreaterThanOrEqual(65535);
  // Outer headers, or a virtio header, go before a packet.
  expect(abi.HEADROOM).toBeGreaterThanOrEqual(abi.VIRTIO_SIZE + 20 + 16);
  expect(abi.HEADER_BLOCK_SIZE).toBeGreaterThanOrEqual(20 + 16 + 60 + 60);
  expect(abi.IOVS_PER_MESSAGE).toBe(2 * abi.PACKETS_PER_MESSAGE);
  expect(abi.MESSAGES_PER_PORT * abi.MAX_PORTS).toBe(abi.MESSAGES);
  // One packet always has room in empty tables, or a host would call again for ever.
  expect(abi.MESSAGES).toBeGreaterThanOrEqual(abi.MAX_SEGMENTS);
  expect(abi.MESSAGES_PER_PORT * abi.PACKETS_PER_MESSAGE).toBeGreaterThanOrEqual(abi.MAX_SEGMENTS);
  expect(abi.HEADER_BLOCKS).toBeGreaterThanOrEqual(abi.MAX_SEGMENTS);
  // Of the least size, 64 KiB are so many segments.
  expect(Math.ceil((65535 - 40) / abi.LEAST_TCP_SEGMENT)).toBe(abi.MAX_SEGMENTS);
  // Every packet of a call may be answered, and about every one something be learnt.
  expect(abi.MESSAGES_PER_PORT).toBeGreaterThanOrEqual(abi.BATCH_SIZE);
  expect(abi.REPLY_ICMP + 8).toBeLessThanOrEqual(abi.REPLY_SIZE);
  expect([abi.REPLY_IPV4 - abi.REPLY_VIRTIO, abi.REPLY_ICMP - abi.REPLY_IPV4]).toEqual([abi.VIRTIO_SIZE, 20]);
  // Every inbound message may have a header block of its own.
  expect(abi.HEADER_BLOCKS).toBeGreaterThanOrEqual(abi.MESSAGES);
});

test('every drop reason has a verdict, a name and a meaning of its own', () => {
  expect(DROP_REASONS.map((r) => r.verdict)).toEqual(DROP_REASONS.map((_, i) => -1 - i));
  expect(DROP_REASONS.length).toBe(abi.VERDICTS - 1);
  expect(new Set(DROP_REASONS.map((r) => r.name)).size).toBe(DROP_REASONS.length);
  const constants = Object.entries(abi).filter(([name]) => name.startsWith('DROP_'));
  expect(constants.map(([name, value]) => [name.slice(5).toLowerCase().replaceAll('_', '-'), value])).toEqual(
    DROP_REASONS.map((r) => [r.name, r.verdict]),
  );
});
