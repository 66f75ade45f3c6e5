/** The programs of the fast path beside the core: for every VM that there can be, for random packets, and for rounds of the fuzzer. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CONFIGS, overlayOf } from '../fast-path/configs.ts';
import { framed, placesOf, TCP, UDP, underlay } from '../fast-path/frames.ts';
import { enterNamespace, LINKS, macOf, UPLINK } from '../fast-path/namespace.mjs';
import { canRun } from '../fast-path/test-run.mjs';
import { ProgramTwin, why } from '../fast-path/twin.mjs';
import { makeTwins } from '../fuzz/cores.mjs';
import { ProgramJudge } from '../fuzz/programs.mjs';
import { runRound, seedOf } from '../fuzz/rounds.mjs';
import { skip } from '../net/require.ts';
import * as wire from '../packet.ts';
import { runs } from '../runs.ts';

const byName = (...names: string[]) => CONFIGS.filter(({ name }) => names.includes(name));
const LINK = LINKS[0] as number;

/** A value on the edge of something, or any. */
const byte = fc.oneof(
  fc.constantFrom(0, 1, 2, 5, 0x45, 0x46, 0x7f, 0x80, 0xfe, 0xff),
  fc.integer({ min: 0, max: 255 }),
);
const parts = fc.record({
  protocol: fc.constantFrom<6 | 17>(TCP, UDP),
  tos: byte,
  ttl: byte,
  id: fc.integer({ min: 0, max: 0xffff }),
  fragment: fc.constantFrom(0, 0x4000, 0x4000, 0x4000, 0x2000, 0x8000, 1, 0xffff),
  size: fc.oneof(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 1380, max: 1460 })),
  flags: byte,
});
/** Bytes of the headers that are then others, and whether checksums are right again. */
const changes = fc.array(fc.tuple(fc.integer({ min: 0, max: 63 }), byte), { maxLength: 2 });

function put(packet: Uint8Array, at: number, bytes: readonly (readonly [number, number])[], isRight: boolean): void {
  for (const [offset, value] of bytes) if (at + offset < packet.length) packet[at + offset] = value;
  if (!isRight) return;
  const header = Math.min(((packet[at] as number) & 15 || 5) * 4, packet.length - at);
  packet.set([0, 0], at + 10);
  const sum = ~wire.sum(packet.subarray(at, at + header)) & 0xffff;
  packet.set([sum >> 8, sum & 255], at + 10);
}

describe.skipIf(skip('fast path: properties', why()))('properties', () => {
  let leave: () => void;
  beforeAll(() => {
    leave = enterNamespace();
  });
  afterAll(() => leave());

  test.each(byName('gre', 'gre-udp'))('$name: to and from all 65,536 addresses of the underlay', ({ config }) => {
    const twin = new ProgramTwin(config);
    twin.careful = false;
    try {
      const { here, which } = placesOf(config);
      const prefix = (config.local & 0xffff0000) >>> 0;
      for (let number = 0; number < 0x10000; number++) {
        const vm = (prefix + number) >>> 0;
        const [source, destination] = [here(2), overlayOf(config, vm, 2 + (number % 250), which)];
        const out = wire.packetOf({ protocol: UDP, source, destination, payload: new Uint8Array(1) });
        const outbound = twin.check('outbound', framed(out, macOf(LINK)));
        const back = wire.packetOf({
          protocol: UDP,
          source: destination,
          destination: source,
          payload: new Uint8Array(1),
        });
        const inbound = twin.check('inbound', framed(underlay(config, back, { source: vm }), macOf(UPLINK)));
        if (outbound ?? inbound) expect.fail(`VM ${number}: ${outbound ?? inbound}`);
      }
      expect(twin.checkTotals()).toBeNull();
      // All but the network's own, its broadcast address, and this VM.
      const { outbound, inbound, datagram } = twin.met;
      expect({ outbound, inbound: inbound + datagram }).toEqual({ outbound: 65_533, inbound: 65_533 });
    } finally {
      twin.close();
    }
  });

  test.each(CONFIGS)('$name: random packets', ({ config }) => {
    const twin = new ProgramTwin(config);
    const { here, remote } = placesOf(config);
    const bits = fc.integer({ min: 0, max: 1 });
    const known = fc.record({
      heard: bits,
      outbound: bits,
      inbound: bits,
      limit: fc.constantFrom(0, 100, 1400, 65535),
    });
    const record = fc.oneof({ weight: 4, arbitrary: fc.constant({}) }, known);
    const index = fc.oneof({ weight: 2, arbitrary: fc.constant(2) }, fc.integer({ min: 0, max: 8 }));
    try {
      fc.assert(
        fc.property(
          fc.tuple(
            parts,
            fc.boolean(),
            fc.boolean(),
            index,
            index,
            changes,
            changes,
            fc.boolean(),
            record,
            fc.constantFrom(0, 0, 0, 1, 2, 4),
            byte,
          ),
          ([{ size, ...of }, isOut, isMarked, own, other, inner, outer, isRight, record, cut, tos]) => {
            const [source, destination] = isOut ? [here(own), remote(other)] : [remote(other), here(own)];
            const packet = wire.packetOf({ ...of, source, destination, payload: wire.payloadOf(size) });
            put(packet, 0, inner, isRight);
            const whole = isOut ? packet : underlay(config, packet, { tos: isMarked ? tos : of.tos });
            if (!isOut) put(whole, 0, outer, isRight);
            const frame = framed(whole.subarray(0, whole.length - cut), macOf(isOut ? LINK : UPLINK));
            if (!canRun(frame)) return;
            const link = twin.linkOf(source) ?? LINK;
            const sent = isOut ? { ifindex: link, frame: framed(whole, macOf(link)) } : { ifindex: UPLINK, frame };
            expect(
              twin.check(isOut ? 'outbound' : 'inbound', sent.frame, { ifindex: sent.ifindex, record }),
            ).toBeNull();
          },
        ),
        { numRuns: runs(300) },
      );
      // A property of nothing but passed frames would say nothing.
      expect(twin.met.outbound).toBeGreaterThan(0);
      expect(twin.met.inbound + twin.met.datagram).toBeGreaterThan(0);
    } finally {
      twin.close();
    }
  });

  test('rounds of the fuzzer', () => {
    const judge = new ProgramJudge(...makeTwins(false));
    try {
      for (let n = 0; n < runs(1); n++) expect(runRound(judge, seedOf(21, n)).wrong).toBeNull();
      expect(judge.frames).toBeGreaterThan(1000);
    } finally {
      judge.close();
    }
  });
});
