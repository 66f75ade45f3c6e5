/** The twins leave the same bytes: all of memory is compared, after mutated packets, nonsense and tunnel churn. */

import { readdirSync, readFileSync } from 'node:fs';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { abi, type CoreConfig, type PacketCore } from '../src/core/index.ts';
import { config, cores } from './core.ts';
import { ipv4Packet } from './packet.ts';

const folder = new URL('./vectors/', import.meta.url);
const seeds: Uint8Array[] = readdirSync(folder)
  .filter((name) => name.endsWith('.json'))
  .flatMap((name) => JSON.parse(readFileSync(new URL(name, folder), 'utf8')).vectors)
  .map((vector: { input: string }) => Uint8Array.from(Buffer.from(vector.input, 'hex')))
  .filter((packet: Uint8Array) => packet.length < 2000);

/** null three times out of four. */
const seldom = <T>(arbitrary: fc.Arbitrary<T>) =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(null) }, { weight: 1, arbitrary });

/** A vector with some bytes changed, and perhaps cut; its outer or only header checksum perhaps put right, so that it gets further. */
const mutated = fc
  .record({
    seed: fc.constantFrom(...seeds),
    edits: fc.array(fc.record({ at: fc.nat(60), byte: fc.nat(255) }), { maxLength: 4 }),
    cut: seldom(fc.nat(100)),
    fix: fc.boolean(),
  })
  .map(({ seed, edits, cut, fix }) => {
    const packet = seed.slice(0, cut === null ? undefined : seed.length - Math.min(cut, seed.length));
    for (const { at, byte } of edits) if (at < packet.length) packet[at] = byte;
    if (fix) fixChecksum(packet);
    return packet;
  });

const packet = fc.oneof({ weight: 4, arbitrary: mutated }, { weight: 1, arbitrary: fc.uint8Array({ maxLength: 100 }) });

/** A second mesh, 240.0.0.0/4 over 10.0.0.0/8, has so many VMs that more of them share a set of the tunnel table than it has ways. */
const large: CoreConfig = {
  local: 0x0a000001,
  mappings: [{ overlay: 0xf0000000, overlayLength: 4, underlay: 0x0a000000, underlayLength: 8 }],
};
const setOf = (vm: number) => Math.imul(vm, 0x9e3779b1) >>> (32 - abi.TUNNEL_SETS_LOG2);
const rivals: number[] = [];
for (let vm = 0x0a000002; rivals.length < 3 * abi.TUNNEL_WAYS; vm++) if (setOf(vm) < 2) rivals.push(vm);

/** Packets of the second mesh to VMs that share two sets, so that tunnels evict each other. */
const crowd = fc.constantFrom(...rivals).map((vm) => {
  const vmBits = (address: number) => (address & 0xffffff) << 4;
  return ipv4Packet((0xf0000002 | vmBits(large.local)) >>> 0, (0xf0000003 | vmBits(vm)) >>> 0, 4);
});

const prefixLength = fc.integer({ min: -1, max: 33 });
const address = fc.oneof(fc.constantFrom(0x0a000000, 0xc0a81020, 0xf0000000, 0), fc.nat(0xffffffff));
const mapping = fc.record({
  overlay: address,
  overlayLength: prefixLength,
  underlay: address,
  underlayLength: prefixLength,
});

/** Up to a whole batch, and often nearly that many: fast-check's own size is ten. */
const manyOf = <T>(arbitrary: fc.Arbitrary<T>) => fc.array(arbitrary, { maxLength: abi.BATCH_SIZE, size: 'medium' });

const batch = fc.record({
  outbound: fc.boolean(),
  packets: fc.oneof({ weight: 3, arbitrary: manyOf(packet) }, { weight: 1, arbitrary: manyOf(crowd) }),
  /** How many the call is told: more or fewer than there are. */
  extra: fc.constantFrom(0, 0, 0, -1, 1, 200, -2147483648, 2147483647),
  now: fc.nat(1000),
  expire: seldom(fc.nat(1000)),
  /** A descriptor with nonsense in it. */
  descriptor: seldom(
    fc.record({ index: fc.nat(abi.BATCH_SIZE - 1), address: fc.nat(0xffffffff), length: fc.nat(0xffffffff) }),
  ),
});

const setup = fc.record({
  base: fc.constantFrom(undefined, config, large),
  key: fc.option(fc.nat(0xffffffff), { nil: undefined }),
  local: fc.constantFrom(config.local, 0, 0xc0a81021),
  mappings: fc.array(mapping, { maxLength: 20 }),
});

function apply(
  core: PacketCore,
  { outbound, packets, extra, now, expire, descriptor }: typeof batch extends fc.Arbitrary<infer B> ? B : never,
): number[] {
  for (const [i, p] of packets.entries()) core.put(i, p);
  if (descriptor) {
    const words = new Uint32Array(core.memory, abi.DESCRIPTORS + descriptor.index * abi.DESCRIPTOR_SIZE, 2);
    words.set([descriptor.address, descriptor.length]);
  }
  const count = packets.length + extra;
  const forwarded = outbound ? core.encapsulate(count, now) : core.decapsulate(count, now);
  return [forwarded, expire === null ? 0 : core.expire(expire)];
}

/** Mappings that do not fit make `configure` throw, in both twins alike; those before them stay. */
function configure(core: PacketCore, options: CoreConfig): string {
  try {
    core.configure(options);
    return 'fits';
  } catch (error) {
    return String(error);
  }
}

function same(a: PacketCore, b: PacketCore): void {
  if (Buffer.compare(a.bytes, b.bytes) === 0) return;
  const at = a.bytes.findIndex((byte, i) => byte !== b.bytes[i]);
  expect.fail(`memory differs first at ${at}: ${a.name} ${a.bytes[at]}, ${b.name} ${b.bytes[at]}`);
}

test.each([
  ['wasm', 'typescript'],
  ['wasm, scalar', 'typescript'],
])('%s and %s leave the same memory', { timeout: 300_000 }, (left, right) => {
  const made = [left, right].map((name) => cores.find((c) => c.name === name)?.make() as PacketCore);
  const [a, b] = made as [PacketCore, PacketCore];
  let evictions = 0;
  fc.assert(
    fc.property(setup, fc.array(batch, { minLength: 1, maxLength: 5 }), ({ base, key, local, mappings }, batches) => {
      const options = {
        local: base === large ? large.local : local,
        key,
        mappings: [...(base?.mappings ?? []), ...mappings],
      };
      expect(configure(a, options)).toBe(configure(b, options));
      for (const each of batches) {
        expect(apply(a, each)).toEqual(apply(b, each));
        if (each.expire === null) evictions += a.closed().length;
      }
      same(a, b);
      for (const direction of ['outbound', 'inbound'] as const) {
        const { received, forwarded, drops } = a.counters(direction);
        expect(received).toBe(forwarded + drops.reduce((sum, n) => sum + n, 0));
      }
    }),
    { numRuns: Number(process.env['INLAY_FUZZ_RUNS'] ?? 1000), endOnFailure: false },
  );
  // The property has to have met what it is about.
  expect(evictions).toBeGreaterThan(0);
});

function fixChecksum(p: Uint8Array): void {
  const header = ((p[0] ?? 0) & 15) * 4;
  if (p.length < Math.max(header, 20)) return;
  p[10] = p[11] = 0;
  let sum = 0;
  for (let i = 0; i < header; i += 2) sum += (p[i] as number) * 256 + (p[i + 1] as number);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  p[10] = ~(sum >> 8) & 255;
  p[11] = ~sum & 255;
}
