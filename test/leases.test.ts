/** Leases: how many tunnels one container opens to VMs that nothing was ever heard of. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { abi, type PacketCore } from '../src/core/index.ts';
import { cores } from './core.ts';
import * as wire from './packet.ts';
import { runs } from './runs.ts';
import { A, B, coreOf } from './vms.ts';

const SLICE = 0x0a102000;

/** Sends a packet from container `index` to VM number `vm`, and answers the verdict. */
function to(core: PacketCore, vm: number, now: number, index = 5): number {
  core.put(0, wire.ipv4Packet(SLICE + index, 0x0a000007 + vm * 256, 8));
  expect(core.encapsulate(0, 1, now)).toBe(1);
  return core.verdict(0);
}

const opens = (core: PacketCore, vms: readonly number[], now: number, index?: number) =>
  vms.filter((vm) => to(core, vm, now, index) === abi.FORWARD).length;

const range = (start: number, end: number) => Array.from({ length: end - start }, (_, i) => start + i);

describe.each(cores)('$name', ({ make }) => {
  test('a burst, then so many a second; no tunnel, and no reply, for the rest', () => {
    const core = coreOf(make, {});
    expect(opens(core, range(1, 1001), 0)).toBe(abi.LEASE_BURST);
    expect([core.tunnels.count, core.messages.replies()]).toEqual([abi.LEASE_BURST, []]);
    expect(core.dropsFor('outbound', abi.DROP_TOO_MANY_TUNNELS)).toBe(1000 - abi.LEASE_BURST);
    expect(opens(core, range(1000, 2000), 1000)).toBe(64);
    // However long nothing was sent, there is one burst.
    expect(opens(core, range(2000, 3000), 1e9)).toBe(abi.LEASE_BURST);
  });

  test('each container has its own', () => {
    const core = coreOf(make, {});
    opens(core, range(0, 1000), 0, 5);
    expect(opens(core, range(1000, 1256), 0, 6)).toBe(256);
    expect(opens(core, range(1000, 1256), 0, 5)).toBe(256); // Those are leased by now.
  });

  test('within a lease packets pass freely, and none is needed once the VM has sent something', () => {
    const core = coreOf(make, {});
    expect(to(core, B & 0xffff, 500)).toBe(abi.FORWARD);
    opens(core, range(0, 300), 500);
    // Seconds are whole: it ends at 4,000.
    for (const now of [500, 3999]) expect(to(core, B & 0xffff, now)).toBe(abi.FORWARD);
    opens(core, range(300, 1000), 4000);
    expect(to(core, B & 0xffff, 4000)).toBe(abi.DROP_TOO_MANY_TUNNELS);
    const answered = coreOf(make, {});
    to(answered, B & 0xffff, 0);
    answered.put(0, wire.grePacket(B, A, wire.ipv4Packet(0x0a102107, SLICE + 5, 8)));
    answered.decapsulate(0, 1, 0);
    expect(answered.verdict(0)).toBe(abi.FORWARD);
    opens(answered, range(0, 1000), 0);
    for (const now of [0, 5000, 1e9]) {
      opens(answered, range(1000, 2000), now);
      expect(to(answered, B & 0xffff, now)).toBe(abi.FORWARD);
    }
  });

  test('a packet that has no room at first takes one token', () => {
    const core = coreOf(make, { offloads: abi.OFFLOAD_VIRTIO, encapsulation: 'gre-udp' });
    const frame = wire.superFrame({ payload: wire.payloadOf(128 * 128) }, 128);
    for (const i of [0, 1]) {
      core.bytes.set(frame, core.slot(i) - abi.VIRTIO_SIZE);
      core.describe(i, frame.length, core.slot(i) - abi.VIRTIO_SIZE);
    }
    expect(core.encapsulate(0, 2, 0)).toBe(1);
    expect(core.encapsulate(1, 2, 0)).toBe(2);
    const buckets = new Float64Array(core.memory, abi.LEASE_BUCKETS, 2 ** abi.SOURCES_LOG2);
    expect(buckets.reduce((sum, at) => sum + at, 0)).toBe(abi.LEASE_INTERVAL);
  });

  test('at most 512 leases of one source are alive at once, whatever it does', { timeout: 60_000 }, () => {
    const step = fc.record({ pause: fc.nat(3000), first: fc.nat(20_000), vms: fc.nat(400) });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 20, size: 'max' }), (steps) => {
        const core = coreOf(make, {});
        const until = new Map<number, number>();
        let now = 0;
        for (const { pause, first, vms } of steps) {
          now += pause;
          for (const vm of range(first, first + vms)) {
            const isAlive = (until.get(vm) ?? 0) > Math.floor(now / 1000);
            const verdict = to(core, vm, now);
            if (isAlive) expect(verdict).toBe(abi.FORWARD);
            else if (verdict === abi.FORWARD) until.set(vm, Math.floor(now / 1000) + abi.LEASE_LIFETIME);
          }
          const alive = [...until.values()].filter((end) => end > Math.floor(now / 1000)).length;
          expect(alive).toBeLessThanOrEqual(abi.LEASE_BURST + (abi.LEASE_LIFETIME * 1000) / abi.LEASE_INTERVAL);
        }
      }),
      { numRuns: runs(15) },
    );
  });
});
