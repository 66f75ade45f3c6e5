/** The program at the raw socket, run by the kernel itself, and whether its sizes are found again. */
import { readFileSync } from 'node:fs';
import { beforeEach, describe, expect, test } from 'vitest';
import { NOT_MERGED } from '../../src/core/abi.ts';
import { typescriptCore } from '../../src/core/typescript.ts';
import { loadSizeProgram, SegmentSizes } from '../../src/dataplane/wasm/linux/segment-sizes.ts';
import { shareFilter } from '../../src/dataplane/wasm/linux/share-filter.ts';
import * as native from '../../src/linux/native.ts';
import { ALL } from '../../src/linux/socket-filter.ts';
import { config } from '../core.ts';
import { skip } from '../net/require.ts';
import { edited, greHeader, ipv4Around, type Parts, packetOf, payloadOf } from '../packet.ts';
import { run as filtered } from './classic-bpf.ts';
import { framed, run, why } from './test-run.ts';

describe.skipIf(skip('segment sizes', why()))('segment sizes', () => {
  const core = typescriptCore();
  beforeEach(() => core.configure({ ...config, mtu: 8000 }));

  /** A program and its reader, for sockets whose packets have such GRE headers. */
  function opened(gre: { key?: number; checksum?: boolean; sequence?: number }, work: (opened: Opened) => void) {
    const header = 20 + greHeader(gre, new Uint8Array(20)).length;
    const { program, table } = loadSizeProgram({ index: 0, count: 1, header });
    const sizes = new SegmentSizes(table, header, core);
    try {
      work({
        sizes,
        of: (packet) => {
          core.put(0, packet);
          return sizes.of(core.slot(0), packet.length);
        },
        pass: (packet, gsoSize) => expect(run(program, framed(packet), 0, gsoSize).verdict).toBe(ALL),
      });
    } finally {
      sizes.close();
      for (const fd of [program, table.fd]) native.close(fd);
    }
  }
  interface Opened {
    sizes: SegmentSizes;
    of: (packet: Uint8Array) => number;
    pass: (packet: Uint8Array, gsoSize: number) => void;
  }
  const around = (gre: object, parts: Parts) => {
    const inner = packetOf(parts);
    return ipv4Around({ source: 0xc0a81021, destination: 0xc0a81020 }, [...greHeader(gre, inner), ...inner]);
  };

  test.each([
    ['plain', {}],
    ['a key', { key: 7 }],
    ['all', { key: 7, checksum: true, sequence: 5 }],
  ])('are found for every merged packet, and for no other: GRE, %s', (_, gre) => {
    opened(gre, ({ of, pass }) => {
      const packets = ([6, 17] as const).flatMap((protocol) =>
        [2, 3, 4, 7, 8, 9, 16, 1000, 3000].map((length) => around(gre, { protocol, payload: payloadOf(length) })),
      );
      for (const packet of packets) {
        expect(of(packet)).toBe(NOT_MERGED);
        pass(packet, 0);
        expect(of(packet)).toBe(NOT_MERGED);
      }
      for (const [i, packet] of packets.entries()) pass(packet, i + 1);
      expect(packets.map(of)).toEqual(packets.map((_, i) => i + 1));
      pass(packets[3] as Uint8Array, 1400);
      expect(of(packets[3] as Uint8Array)).toBe(1400);
    });
  });

  test('every byte that tells packets apart does', () => {
    opened({}, ({ of, pass }) => {
      const packet = around({}, { payload: payloadOf(1000) });
      pass(packet, 100);
      expect(of(packet)).toBe(100);
      // The outer total length; from the inner identification on what is said of the packet and its flow.
      for (const at of [2, 3, ...Array.from({ length: 32 }, (_, i) => 28 + i)]) {
        for (const bit of [1, 128]) expect(of(edited(packet, at, (packet[at] as number) ^ bit))).toBe(NOT_MERGED);
      }
    });
  });

  test('thousands are kept, the newest best', () => {
    opened({}, ({ of, pass }) => {
      const packets = Array.from({ length: 6000 }, (_, i) => around({}, { id: i & 0xffff, sequence: i * 1000 }));
      for (const [i, packet] of packets.entries()) pass(packet, (i % 1000) + 1);
      const found = packets.map(of);
      expect(found.slice(-2000)).toEqual(packets.slice(-2000).map((_, i) => (i % 1000) + 1));
      // Eight of 2,048 buckets each: those that are lost are not taken for others.
      expect(found.filter((size, i) => size !== (i % 1000) + 1 && size !== NOT_MERGED)).toEqual([]);
    });
  });

  test('a packet whose size was lost is not said to be as it was sent, if it is longer than any that was', () => {
    const packets = Array.from({ length: 10_000 }, (_, i) => around({}, { sequence: i * 1000 }));
    const length = (packets[0] as Uint8Array).length - 24;
    for (const [mtu, lost] of [
      [length, NOT_MERGED],
      [length - 1, 0],
    ] as const) {
      opened({}, ({ sizes, of, pass }) => {
        core.configure({ ...config, mtu });
        for (const packet of packets) pass(packet, 60);
        expect(sizes.mayBeMerged(false)).toBe(true);
        expect(new Set(packets.map(of))).toEqual(new Set([lost, 60]));
      });
    }
    opened({}, ({ sizes, of, pass }) => {
      const [a, b] = packets as [Uint8Array, Uint8Array];
      pass(a, 60);
      expect([sizes.mayBeMerged(true), of(a)]).toEqual([true, 60]);
      // Nothing is missing: the other VM has a larger MTU.
      expect(of(b)).toBe(NOT_MERGED);
    });
  });

  test('the table is mapped as long as somebody reads it', () => {
    const mappings = () => readFileSync('/proc/self/maps', 'utf8').split('bpf-map').length - 1;
    const before = mappings();
    opened({}, () => expect(mappings()).toBe(before + 1));
    expect(mappings()).toBe(before);
  });

  test('nobody looks for merged packets where there are none', () => {
    opened({}, ({ sizes, of, pass }) => {
      const packets = [1, 2, 3].map((id) => around({}, { id, payload: payloadOf(1000) }));
      const [a, b, c] = packets as [Uint8Array, Uint8Array, Uint8Array];
      let now = 1000;
      const looks = (isAll = true, ms = 10) => {
        now += ms;
        return sizes.mayBeMerged(isAll, now);
      };
      expect(looks()).toBe(false);
      pass(a, 0);
      expect(looks()).toBe(false);
      pass(a, 100);
      pass(b, 100);
      // Both have been counted, and come one after the other.
      expect([looks(false), of(c), of(a)]).toEqual([true, NOT_MERGED, 100]);
      expect([looks(), of(b)]).toEqual([true, 100]);
      expect([looks(), looks()]).toEqual([false, false]);
      // One is lost: it is waited for until it must have come, as nothing has waited for a long while.
      pass(a, 100);
      expect([looks(false), looks(false, 5000), looks(true, 5000), looks()]).toEqual([true, true, true, false]);
      // The count is right again.
      pass(c, 100);
      expect([looks(), of(c), looks()]).toEqual([true, 100, false]);
    });
  });

  test.each([2, 3, 8])('each of %i sockets takes the share that it takes without sizes', (count) => {
    const shares = Array.from({ length: count }, (_, index) => loadSizeProgram({ index, count, header: 24 }));
    const filters = shares.map((_, index) => shareFilter({ index, count, header: 24 }));
    const takers = (packet: Uint8Array) => {
      const verdicts = shares.map(({ program }) => run(program, framed(packet), 0, 100).verdict);
      expect(filters.map((filter) => filtered(filter, packet))).toEqual(verdicts);
      return verdicts.flatMap((verdict, index) => (verdict === ALL ? [index] : []));
    };
    const options = (packet: Uint8Array) => {
      const longer = Uint8Array.from([...packet.subarray(0, 20), 1, 1, 1, 1, ...packet.subarray(20)]);
      return edited(longer, 0, 0x46, 0, longer.length >> 8, longer.length & 255);
    };
    for (let i = 0; i < 100; i++) {
      const [source, destination] = [(0x0a102102 + i * 0x01010101) >>> 0, 0x0a10205b];
      const expected = (Math.imul(source + destination, 0x9e3779b1) >>> 16) % count;
      const packet = around({}, { source, destination });
      expect([takers(packet), takers(options(packet))]).toEqual([[expected], [expected]]);
    }
    for (const length of [20, 24, 43]) expect(takers(around({}, {}).subarray(0, length))).toEqual([0]);
    for (const { program, table } of shares) for (const fd of [program, table.fd]) native.close(fd);
  });
});
