/** The table of tunnels: what is counted for each, which way is taken when a set is full, expiry. */
import { describe, expect, test } from 'vitest';
import { abi, type PacketCore, tunnelsFrom } from '../src/core/index.ts';
import { cores, putFrame } from './core.ts';
import * as wire from './packet.ts';
import { A, B, coreOf, MERGE_ALL, receive, VIRTIO } from './vms.ts';

const tunnelsOf = (core: PacketCore) => tunnelsFrom(core.tunnels.copy(0));

/** Two meshes: 10.0.0.0/8 over 100.64.0.0/10, of which the VMs are many, and 11.0.0.0/8 over 192.168.0.0/16. */
const mappings = [
  { overlay: 0x0a000000, overlayLength: 8, underlay: 0x64400000, underlayLength: 10 },
  { overlay: 0x0b000000, overlayLength: 8, underlay: 0xc0a80000, underlayLength: 16 },
];
const [FIRST, SECOND] = [0x64400000, 0xc0a80000];

describe.each(cores)('$name', ({ make }) => {
  function meshed(local: number): PacketCore {
    const core = make();
    core.configure({ local, mappings });
    return core;
  }

  test('packets are counted as they are on the wire: alone, cut, left whole, merged', () => {
    const nothing = { packets: 0, bytes: 0 };
    const frame = wire.superFrame({ payload: wire.payloadOf(2500) }, 1000);
    for (const offloads of [VIRTIO, VIRTIO | abi.OFFLOAD_GRE_SEGMENT]) {
      const core = coreOf(make, { offloads });
      putFrame(core, 0, wire.frameOf(wire.packetOf({})));
      putFrame(core, 1, frame);
      core.encapsulate(0, 1, 3);
      core.encapsulate(1, 2, 9);
      const outbound = { packets: 4, bytes: 140 + 2500 + 3 * 40 };
      expect(tunnelsOf(core)).toEqual([{ vm: B, lastUse: 9, outbound, inbound: nothing }]);
    }
    const core = coreOf(make, { local: B, offloads: MERGE_ALL });
    expect(receive(core, wire.burst(10)).length).toBe(1);
    const inbound = { packets: 10, bytes: 1400 };
    expect(tunnelsOf(core)).toEqual([{ vm: A, lastUse: 0, outbound: nothing, inbound }]);
  });

  test('a ninth VM of a set takes the way of the one used longest ago', () => {
    const core = meshed(SECOND + 1);
    const setOf = (vm: number) => Math.imul(vm, 0x9e3779b1) >>> (32 - abi.TUNNEL_SETS_LOG2);
    const rivals: number[] = [];
    for (let i = 1; rivals.length < 10; i++) if (setOf(FIRST + i) === 77) rivals.push(FIRST + i);
    const to = (i: number, now: number) => {
      const bits = (rivals[i] as number) - FIRST;
      core.put(0, wire.ipv4Packet(0x0b000105, 0x0a000001 + bits * 4, 0));
      expect([core.encapsulate(0, 1, now), core.verdict(0)]).toEqual([1, abi.FORWARD]);
    };
    for (let i = 0; i < 8; i++) to(i, 10 + i);
    to(0, 20);
    expect([core.tunnels.opened(), core.tunnels.closed()]).toEqual([[], []]);
    to(8, 21);
    expect([core.tunnels.opened(), core.tunnels.closed()]).toEqual([[rivals[8]], [rivals[1]]]);
    expect(core.expire(13)).toBe(1);
    to(9, 22);
    expect(tunnelsOf(core).map(({ vm }) => rivals.indexOf(vm))).toEqual([0, 8, 9, 3, 4, 5, 6, 7]);
  });

  test('65,536 are open at once, and expire in batches', () => {
    const core = meshed(SECOND + 1);
    for (let vm = 0; vm < 65536; vm += abi.BATCH_SIZE) {
      // Slices of 4; the first underlay address of all is no VM's.
      for (let i = 0; i < abi.BATCH_SIZE; i++) core.put(i, wire.ipv4Packet(0x0b000105, 0x0a000006 + (vm + i) * 4, 0));
      const now = vm * abi.LEASE_INTERVAL;
      expect([core.encapsulate(0, abi.BATCH_SIZE, now), core.tunnels.opened().length]).toEqual([
        abi.BATCH_SIZE,
        abi.BATCH_SIZE,
      ]);
    }
    expect([core.expire(0), core.tunnels.count]).toEqual([0, 65536]);
    // With so many, a call looks ahead; but not at descriptors that it is not told of.
    for (const first of [abi.BATCH_SIZE, 2 ** 29, 2 ** 31 - 1]) {
      expect([core.encapsulate(first, 1, 0), core.decapsulate(first, 1, 0)]).toEqual([1, 1]);
    }
    let closed = 0;
    for (let n: number = abi.BATCH_SIZE; n === abi.BATCH_SIZE; closed += n) n = core.expire(32768 * abi.LEASE_INTERVAL);
    expect([closed, core.tunnels.count]).toEqual([32768, 32768]);
    expect(Math.min(...tunnelsOf(core).map(({ lastUse }) => lastUse))).toBe(32768 * abi.LEASE_INTERVAL);
  });
});
