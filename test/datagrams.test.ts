/** Datagrams of GRE-in-UDP that lie in one buffer, as UDP_GRO delivers them. */
import { describe, expect, test } from 'vitest';
import { abi } from '../src/core/index.ts';
import { config, cores, hex } from './core.ts';
import * as wire from './packet.ts';
import { A, B, C, coreOf, datagramOf, receiveGroups, VIRTIO } from './vms.ts';

describe.each(cores)('$name', ({ make }) => {
  const packet = wire.packetOf({});
  const good = datagramOf(packet);
  const bad = wire.edited(good, 2, 0x86);

  test('each has its own way, the descriptor the last word', () => {
    const core = coreOf(make, { local: B });
    for (const [group, verdict] of [
      [[good, bad, good], abi.FORWARD],
      [[good, good, bad], abi.FORWARD],
      [[bad, wire.edited(good, 0, 0x40), bad.subarray(0, 2)], abi.DROP_TRUNCATED],
      [[bad, wire.edited(good, 1, 1)], abi.DROP_GRE_VERSION],
    ] as const) {
      const before = core.counters('inbound').received;
      const made = receiveGroups(core, [group]);
      expect([core.verdict(0), made.length]).toEqual([verdict, group.filter((d) => d === good).length]);
      expect(made.every(({ bytes }) => hex(bytes) === hex(packet))).toBe(true);
      expect(core.counters('inbound').received - before).toBe(group.length);
      expect(core.peer(0)).toBe(A);
    }
  });

  test('S1, S4 the peer is checked as an outer source is', () => {
    const core = coreOf(make, { local: B });
    for (const [peer, verdict] of [
      [A, abi.FORWARD],
      [B, abi.DROP_FOREIGN_UNDERLAY],
      [C, abi.DROP_SPOOFED_SOURCE],
      [0, abi.DROP_FOREIGN_UNDERLAY],
      [0xc0a90001, abi.DROP_FOREIGN_UNDERLAY],
    ] as const) {
      receiveGroups(core, [[good, good]], peer);
      expect([peer, core.verdict(0)]).toEqual([peer, verdict]);
    }
    expect(core.counters('inbound')).toMatchObject({ received: 10, forwarded: 2 });
  });

  test('S4 a peer of 0 is nobody, even where the underlay prefix has it', () => {
    const core = coreOf(make, { local: B });
    const [mapping] = config.mappings as [(typeof config.mappings)[number]];
    core.configure({ local: 0x1021, mappings: [{ ...mapping, underlay: 0 }] });
    receiveGroups(core, [[datagramOf(wire.packetOf({ source: 0x0a000005 }))]], 0);
    expect(core.verdict(0)).toBe(abi.DROP_FOREIGN_UNDERLAY);
  });

  test('nothing at all is one empty datagram', () => {
    const core = coreOf(make, { local: B });
    core.describeDatagrams(0, 0, 100, A);
    expect([core.decapsulate(0, 1, 0), core.verdict(0)]).toEqual([1, abi.DROP_TRUNCATED]);
    expect(core.counters('inbound').received).toBe(1);
  });

  test('more than there are messages, and just as many', () => {
    const core = coreOf(make, { local: B });
    core.describeDatagrams(0, abi.MESSAGES + 1, 1, A);
    expect([core.decapsulate(0, 1, 0), core.verdict(0)]).toEqual([1, abi.DROP_BAD_DESCRIPTOR]);
    expect(core.counters('inbound').received).toBe(1);
    core.describeDatagrams(0, abi.MESSAGES, 1, A);
    expect([core.decapsulate(0, 1, 0), core.verdict(0)]).toEqual([1, abi.DROP_TRUNCATED]);
    expect(core.counters('inbound').received).toBe(1 + abi.MESSAGES);
    core.describeDatagrams(0, abi.MESSAGES * 2 - 1, 2, A);
    expect([core.decapsulate(0, 1, 0), core.verdict(0)]).toEqual([1, abi.DROP_TRUNCATED]);
  });

  test.each([good.length + 1, 0x7fffffff, 0x80000000, 0xffffffff])('a size of %d is that of the only one', (size) => {
    const core = coreOf(make, { local: B });
    core.bytes.set(good, core.slot(0));
    core.describeDatagrams(0, good.length, size, A);
    expect([core.decapsulate(0, 1, 0), core.verdict(0), core.messages.count()]).toEqual([1, abi.FORWARD, 1]);
    expect(hex(core.messages.bytes(0))).toBe(hex(packet));
  });

  test('what does not fit the tables is left for the next call, whole', () => {
    const core = coreOf(make, { local: B, offloads: VIRTIO });
    const group = Buffer.concat(Array.from({ length: 400 }, () => good));
    for (let i = 0; i < 4; i++) {
      core.bytes.set(group, core.slot(i));
      core.describeDatagrams(i, group.length, good.length, A);
    }
    core.put(3, wire.grePacket(A, B, packet));
    expect([core.decapsulate(0, 4, 0), core.messages.count()]).toEqual([2, 800]);
    expect(core.counters('inbound').received).toBe(800);
    expect([core.decapsulate(2, 4, 0), core.messages.count()]).toEqual([4, 401]);
    expect(core.counters('inbound')).toMatchObject({ received: 1201, forwarded: 1201 });
  });
});
