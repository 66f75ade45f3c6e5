/** What the kernel's own GRE does with packets, in User-mode Linux: all that scripts.json says, and as our cores do but for what differences.json says. */
import { readFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import type { Direction } from '../../src/core/index.ts';
import { cores } from '../core.ts';
import { vectorFiles } from '../golden.ts';
import { skip } from '../net/require.ts';
import { MACHINE_TIMEOUT, machineMissing, runInMachine } from './machine.ts';
import { configOf, pass, scripts } from './scripts.ts';

/** What came of a packet: what left the tunnel device inwards, and what there was on the underlay and at the container. */
interface Seen {
  tunnel: string[];
  wire: string[];
  container: string[];
}

interface Difference {
  linux: string;
  why: string;
  /** Whom Linux sends something. */
  reaches: 'nobody' | 'container' | 'underlay';
  packets: string[];
}

const differences = JSON.parse(
  readFileSync(new URL('differences.json', import.meta.url), 'utf8'),
) as readonly Difference[];
const differing = differences.flatMap(({ packets }) => packets);

/** The inbound vectors for which the machine has a device. */
const vectors = vectorFiles
  .filter(({ file }) => ['inbound.json', 'keyed.json'].includes(file))
  .flatMap(({ file, vectors }) =>
    vectors.map((vector) => ({ ...vector, key: `${file.split('.')[0]}: ${vector.name}` })),
  )
  .filter(({ direction }) => direction === 'inbound');

const packetsOf = (some: typeof scripts) =>
  some.flatMap((script) => script.packets.map((packet) => [`${script.name}: ${packet.name}`, script, packet] as const));

/** A packet without what Linux chooses: the identification, and the header checksum that it is a part of. */
function plain(text: string): string {
  const packet = Buffer.from(text, 'hex');
  packet.writeUInt16BE(0, 4);
  packet.writeUInt16BE(0, 10);
  return packet.toString('hex');
}

describe.skipIf(skip('kernel GRE, packets', machineMissing()))('kernel GRE, packets', () => {
  let facts: Record<string, Seen>;
  const seen = (key: string) => facts[key] as Seen;

  beforeAll(async () => {
    facts = await runInMachine('packets.mjs');
  }, MACHINE_TIMEOUT);

  /** ICMP errors of the kernel's: that no tunnel takes a packet. */
  const answers = ({ wire }: Seen) => wire.filter((packet) => /^45c0.{14}01.{20}0303/.test(packet));

  /** What Linux makes of a packet, and what it answers. */
  function linux(key: string, direction: Direction): string[][] {
    const found = seen(key);
    if (direction === 'inbound') return [found.tunnel, answers(found)];
    return [found.wire.map(plain), found.container.map(plain)];
  }

  test.each(packetsOf(scripts))('Linux: %s', (key, { direction }, { output, answer = [] }) => {
    if (direction === 'inbound') expect(seen(key).tunnel).toEqual(output);
    else expect(linux(key, direction)).toEqual([output.map(plain), answer.map(plain)]);
  });

  function expectSame(key: string, direction: Direction, ours: string[][]): void {
    if (differing.includes(key)) expect(ours).not.toEqual(linux(key, direction));
    else expect(ours).toEqual(linux(key, direction));
  }

  test.each(vectors)('the vector as Linux, or as differences.json says: $key', ({ key, direction, output }) => {
    expectSame(key, direction, [output === undefined ? [] : [output], []]);
  });

  describe.each(cores)('$name', ({ make }) => {
    const made = new Map<string, string[][]>();
    beforeAll(() => {
      for (const script of scripts) {
        const core = make();
        core.attach({});
        core.configure(configOf(script.device));
        for (const packet of script.packets) {
          const [out, answers] = pass(core, script.direction, packet);
          const same = script.direction === 'outbound' ? plain : (text: string) => text;
          made.set(`${script.name}: ${packet.name}`, [out.map(same), answers.map(same)]);
        }
      }
    });

    test.each(packetsOf(scripts))(
      'E1, E2, E3, G1, G3, G6, G8, I1, I2, M2, M3, M4, M5, O1 as Linux, or as differences.json says: %s',
      (key, { direction }) => expectSame(key, direction, made.get(key) as string[][]),
    );
  });

  test('differences.json says nothing of other packets', () => {
    const known = [...vectors.map(({ key }) => key), ...packetsOf(scripts).map(([key]) => key)];
    expect(differing.filter((key) => !known.includes(key))).toEqual([]);
    expect(new Set(differing).size).toBe(differing.length);
  });

  test.each(differences)('Linux $linux: reaches $reaches', ({ packets, reaches }) => {
    for (const key of packets) {
      const { wire, container } = seen(key);
      const reached = wire.length > 0 ? 'underlay' : container.length > 0 ? 'container' : 'nobody';
      expect([key, reached]).toEqual([key, reaches]);
    }
  });
});
