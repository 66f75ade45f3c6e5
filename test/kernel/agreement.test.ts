/** The programs' verdicts are those of the packet core, whatever the addresses of a packet are. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type PacketCore, verdictName } from '../../src/core/index.ts';
import { typescriptCore } from '../../src/core/typescript.ts';
import { INBOUND, OUTBOUND } from '../../src/dataplane/check/counts.ts';
import { BELIEVED, loadMarkProgram, VERDICT } from '../../src/dataplane/check/mark.ts';
import { SourceCheck } from '../../src/dataplane/check/source-check.ts';
import * as native from '../../src/linux/native.ts';
import { ipv4, lowBits } from '../../src/mesh/address.ts';
import { covering, type Mapping, mappingsWith } from '../../src/mesh/mapping.ts';
import { skip } from '../net/require.ts';
import { grePacket, packetAround } from '../packet.ts';
import { address, difference, framed, framedTo, mapping, ON, outerTo, run, SHOT, VNI, vxlan, why } from './test-run.ts';

const RUNS = { numRuns: 1000 };
const TWO = [mapping('10.0.0.0/8', '192.168.0.0/16'), mapping('240.0.0.0/5', '172.16.0.0/16')];
const plans = [
  { name: '10/8 over /16', mappings: [mapping('10.0.0.0/8', '192.168.0.0/16')], local: '192.168.16.32' },
  { name: '240/4 over /17', mappings: [mapping('240.0.0.0/4', '192.168.0.0/17')], local: '192.168.16.32' },
  { name: 'two mappings, from the first', mappings: TWO, local: '192.168.16.32' },
  { name: 'two mappings, from the second', mappings: TWO, local: '172.16.200.7' },
  {
    name: 'two mappings of the same VMs',
    mappings: [mapping('10.0.0.0/8', '192.168.0.0/16'), mapping('240.0.0.0/4', '192.168.0.0/16')],
    local: '192.168.255.1',
  },
  { name: 'over /30', mappings: [mapping('10.0.0.0/24', '192.168.16.32/30')], local: '192.168.16.33' },
  { name: 'two VMs', mappings: [mapping('10.0.0.0/24', '192.168.16.32/31')], local: '192.168.16.32' },
  {
    name: 'two VMs, one of which cannot be',
    mappings: [mapping('255.0.0.0/8', '192.168.16.32/31')],
    local: '192.168.16.32',
  },
];
// A test run takes bytes 12 and 13 for the type of the frame: with an outer source in 8.0.0.0/16 they say IPv4.
const grePlans = [
  { name: 'over /16', mappings: [mapping('10.0.0.0/8', '8.0.0.0/16')], local: '8.0.16.32' },
  { name: 'over a part', mappings: [mapping('10.0.0.0/8', '8.0.16.0/20')], local: '8.0.16.32' },
  {
    name: 'two mappings',
    mappings: [mapping('10.0.0.0/8', '8.0.0.0/17'), mapping('11.0.0.0/8', '8.0.0.0/16')],
    local: '8.0.16.32',
  },
  { name: 'two VMs', mappings: [mapping('10.0.0.0/8', '8.0.16.32/31')], local: '8.0.16.32' },
];

function coreOf({ mappings, local }: (typeof plans)[number]): PacketCore {
  const core = typescriptCore();
  core.configure({
    local: Number(address(local).bits),
    mappings: mappings.map(({ overlay, underlay }) => ({
      ...{ overlay: Number(overlay.bits), overlayLength: overlay.length },
      ...{ underlay: Number(underlay.bits), underlayLength: underlay.length },
    })),
  });
  return core;
}

/** Addresses: any; of the overlay, its ends among them; and of our slice. */
function addressesOf(mappings: readonly Mapping[], local: string) {
  const any = fc.nat(0xffffffff);
  const ends = (bits: number) => {
    const most = Number(lowBits(bits));
    return fc.oneof(fc.nat(most), fc.constantFrom(0, Math.min(1, most), most, Math.max(0, most - 1)));
  };
  const within = ({ overlay, vmBits, containerBits }: Mapping) =>
    fc
      .tuple(ends(vmBits), ends(containerBits))
      .map(([vm, index]) => Number(overlay.bits) + vm * 2 ** containerBits + index);
  const own = fc.oneof(
    ...mappingsWith(mappings, address(local)).map((found) =>
      ends(found.containerBits).map((index) => Number(found.sliceOf(address(local)).bits) + index),
    ),
  );
  return { any, own, overlay: fc.oneof(any, ...mappings.map(within), own) };
}

const flip = (at: number, bit: number) => (bit > 31 ? at : (at ^ (1 << bit)) >>> 0);
const packetFrom = (source: number, destination: number, protocol: number) =>
  packetAround({ source, destination, protocol }, new Uint8Array(20));
const protocols = fc.constantFrom(6, 17, 47);

describe.skipIf(skip('agreement', why()))('agreement', () => {
  const vmsOf = (mappings: readonly Mapping[], at: number) => {
    const found = covering(mappings, ipv4(at));
    return found && Number(found.explain(ipv4(at)).vm.bits);
  };

  describe.each(plans)('$name', (plan) => {
    const { mappings } = plan;
    const local = address(plan.local);
    const { any, own, overlay } = addressesOf(mappings, plan.local);
    const core = coreOf(plan);

    test.each([
      { name: 'VXLAN', isVxlan: true, overhead: 50, wrap: framedTo },
      { name: 'GRE', isVxlan: false, overhead: 24, wrap: outerTo },
    ])('outbound, $name', ({ isVxlan, overhead, wrap }) => {
      const check = new SourceCheck({ mappings, local, isVxlan, overhead });
      fc.assert(
        fc.property(fc.oneof(own, overlay), overlay, protocols, fc.nat(63), (source, destination, protocol, bit) => {
          const packet = packetFrom(source, destination, protocol);
          core.put(0, packet);
          core.encapsulate(0, 1, 0);
          const vm = vmsOf(mappings, destination) ?? 0;
          const next = flip(vm, bit);
          const verdict = core.verdict(0);
          const expected = verdict < 0 ? verdictName(verdict) : next === vm ? undefined : 'diverted';
          const counts = difference(check, OUTBOUND, () =>
            expect(run(check.egress, wrap(next, packet)).verdict).toBe(expected ? SHOT : ON),
          );
          expect(counts).toEqual(expected ? { [expected]: 1 } : { packets: 1, bytes: 40 });
        }),
        RUNS,
      );
      check.close();
    });

    test('inbound, VXLAN', () => {
      const check = new SourceCheck({ mappings, local, isVxlan: true, overhead: 50 });
      const program = loadMarkProgram({ mappings, local, port: 4789, vni: VNI, linkHeader: 14 });
      const outerSource = fc.oneof(any, fc.constant(undefined), fc.constant(undefined));
      fc.assert(
        fc.property(
          ...([overlay, fc.oneof(own, overlay), protocols, fc.nat(63), outerSource, any] as const),
          (source, destination, protocol, bit, other, before) => {
            const packet = packetFrom(source, destination, protocol);
            const outer = flip(other ?? vmsOf(mappings, source) ?? 0, bit);
            core.put(0, grePacket(outer, Number(local.bits), packet));
            core.decapsulate(0, 1, 0);
            const named = core.verdict(0) < 0 ? verdictName(core.verdict(0)) : undefined;
            // The mark does not tell who else is no VM.
            const isForeign = named === 'foreign-underlay' && outer !== Number(local.bits);
            const expected = isForeign ? 'spoofed-source' : named;
            const frame = framed(packet);
            const { mark } = run(program, framed(vxlan(outer, Number(local.bits), frame)), before);
            expect(mark & ~VERDICT).toBe(before & ~VERDICT);
            if (!expected) expect(mark & VERDICT).toBe(BELIEVED);
            const counts = difference(check, INBOUND, () =>
              expect(run(check.ingress, frame, mark)).toEqual({
                verdict: expected ? SHOT : ON,
                mark: (before & ~VERDICT) >>> 0,
              }),
            );
            expect(counts).toEqual(expected ? { [expected]: 1 } : { packets: 1, bytes: 40 });
          },
        ),
        RUNS,
      );
      native.close(program);
      check.close();
    });
  });

  test.each(grePlans)('inbound, GRE, $name', (plan) => {
    const { mappings } = plan;
    const local = address(plan.local);
    const { own, overlay } = addressesOf(mappings, plan.local);
    const core = coreOf(plan);
    const check = new SourceCheck({ mappings, local, isVxlan: false, overhead: 24 });
    const some = fc.nat(0xffff).map((low) => 0x08000000 + low);
    fc.assert(
      fc.property(
        ...([overlay, fc.oneof(own, overlay), protocols, fc.nat(31), fc.boolean(), some] as const),
        (source, destination, protocol, bit, isOther, other) => {
          const packet = packetFrom(source, destination, protocol);
          const vm = vmsOf(mappings, source);
          const outer = isOther || vm === undefined ? other : flip(vm, bit > 15 ? 32 : bit);
          const wire = grePacket(outer, Number(local.bits), packet);
          core.put(0, wire);
          core.decapsulate(0, 1, 0);
          const expected = core.verdict(0) < 0 ? verdictName(core.verdict(0)) : undefined;
          const counts = difference(check, INBOUND, () =>
            expect(run(check.ingress, wire).verdict).toBe(expected ? SHOT : ON),
          );
          expect(counts).toEqual(expected ? { [expected]: 1 } : { packets: 1, bytes: 40 });
        },
      ),
      RUNS,
    );
    check.close();
  });
});
