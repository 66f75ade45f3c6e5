/** The fast path on Linux 6.1, in User-mode Linux: its programs, and meshes with the kernel's own GRE. */
import { beforeAll, describe, expect, test } from 'vitest';
import type { Encapsulation } from '../../src/core/index.ts';
import { CONFIGS } from '../fast-path/configs.ts';
import { COUNTS, goldenFrames } from '../fast-path/vectors.ts';
import { coreConfig, vectorFiles } from '../golden.ts';
import { skip } from '../net/require.ts';
import { MACHINE_TIMEOUT, machineMissing, runInMachine } from './machine.ts';

interface End {
  sent: { bytes: number; sha256: string };
  received: { bytes: number; sha256: string };
}

interface Ping {
  from: string;
  to: string;
  sent: number;
  received: number;
}

interface Meeting {
  pings: Ping[];
  transfers: { client: End | null; server: End | null }[];
  /** By namespace: what it says of itself, and packets that it took meanwhile. */
  fastPaths: Record<string, { state: string; obstacle?: string; outbound: number; inbound: number }>;
}

/** What fast-path.mjs prints. */
interface Facts {
  kernel: string;
  golden: { file: string; encapsulation: Encapsulation; wrong: string[]; taken: number; passed: number }[];
  load: { capabilities: string; found: Record<string, string> };
  device: Meeting;
  plane: Meeting;
  udp: Meeting;
  withoutPort: Ping[];
  encap: string;
  lacking: Meeting;
}

const BYTES = 1 << 20;
/** Where a ping's first packets go their ordinary way, and one or the other at each sweep. */
const MOST = 30;
const FORMATS: Encapsulation[] = ['gre', 'gre-udp'];
const FILES = ['ecn', 'dscp-uniform', 'inbound', 'keyed', 'outbound', 'clamp', 'class-e', 'several-mappings'];

/** CAP_NET_ADMIN and CAP_BPF (<linux/capability.h>). */
const LEAST = ((1n << 12n) | (1n << 39n)).toString(16).padStart(16, '0');

const cases = vectorFiles.flatMap(({ file, config, vectors }) =>
  FILES.includes(file.replace('.json', ''))
    ? FORMATS.map((encapsulation) => ({
        file,
        config: { ...coreConfig(config), mtu: config.mtu ?? 1476, encapsulation },
        frames: goldenFrames(vectors).map(({ frame, ...rest }) => ({
          ...rest,
          frame: Buffer.from(frame).toString('hex'),
        })),
      }))
    : [],
);

describe.skipIf(skip('fast path, Linux 6.1', machineMissing('ping', 'setpriv', 'rmmod')))('fast path', () => {
  let facts: Facts;
  beforeAll(async () => {
    facts = await runInMachine('fast-path.mjs', String(BYTES), JSON.stringify(CONFIGS), JSON.stringify(cases));
  }, MACHINE_TIMEOUT);

  test('both programs of every configuration are loaded, with CAP_NET_ADMIN and CAP_BPF alone', () => {
    expect(facts.kernel).toMatch(/^6\.1\./);
    const found = Object.fromEntries(CONFIGS.map(({ name }) => [name, 'loaded']));
    expect(facts.load).toEqual({ capabilities: LEAST, found });
  });

  test.each(cases.map(({ file, config: { encapsulation } }) => ({ file, encapsulation })))(
    'golden packets: $file, $encapsulation',
    ({ file, encapsulation }) => {
      const found = facts.golden.find((each) => each.file === file && each.encapsulation === encapsulation);
      const [taken, passed] = COUNTS[file] as [number, number, number];
      expect(found).toEqual({ file, encapsulation, wrong: [], taken, passed });
    },
  );

  const answered = (pings: Ping[]) => {
    expect(pings.map(({ received }) => received)).toEqual(pings.map(({ sent }) => sent));
    expect(pings.every(({ sent }) => sent === 20)).toBe(true);
  };
  const unchanged = ({ transfers }: Meeting) => {
    for (const { client, server } of transfers) {
      expect([client?.sent.bytes, server?.sent.bytes]).toEqual([BYTES, BYTES]);
      expect([client?.received, server?.received]).toEqual([server?.sent, client?.sent]);
    }
    expect(transfers).toHaveLength(1);
  };
  /** More than pings: TCP is among them, too. */
  const tookAll = ({ fastPaths }: Meeting) => {
    for (const { state, obstacle, outbound, inbound } of Object.values(fastPaths)) {
      expect([state, obstacle]).toEqual(['on', undefined]);
      expect(outbound).toBeGreaterThan(MOST + BYTES / 65536);
      expect(inbound).toBeGreaterThan(MOST + BYTES / 65536);
    }
  };

  test('a mesh with the GRE device of a peer that knows nothing of Inlay', () => {
    answered(facts.device.pings);
    unchanged(facts.device);
    tookAll(facts.device);
  });

  test('a mesh of both data planes, wasm and kernel, each with its fast path', () => {
    expect(Object.keys(facts.plane.fastPaths)).toEqual(['kernel', 'inlay']);
    answered(facts.plane.pings);
    unchanged(facts.plane);
    tookAll(facts.plane);
  });

  test("the kernel's GRE device takes plain GRE, and GRE-in-UDP as soon as there is a port for it", () => {
    // To the VM itself: no fast path takes that.
    const toVm = { from: 'inlay', to: 'kernel' };
    expect(facts.plane.pings).toContainEqual(expect.objectContaining({ ...toVm, received: 20 }));
    expect(facts.udp.pings).toContainEqual(expect.objectContaining({ ...toVm, received: 20 }));
    expect(facts.withoutPort.map(({ sent, received }) => [sent, received])).toEqual([
      [3, 0],
      [3, 0],
    ]);
  });

  test('formats that differ by direction: each fast path takes what its VM does', () => {
    answered(facts.udp.pings);
    const { kernel, inlay } = facts.udp.fastPaths;
    // A VM that sends plain GRE takes nothing else by the fast path.
    expect(kernel?.inbound).toBe(0);
    for (const count of [kernel?.outbound, inlay?.outbound, inlay?.inbound]) expect(count).toBeGreaterThan(MOST);
  });

  test('this kernel makes no device that sends GRE-in-UDP, so that no mesh has one', () => {
    expect(facts.encap).toMatch(/Invalid argument/);
  });

  test('without filters that run programs the mesh goes on, and status says why the fast path is off', () => {
    answered(facts.lacking.pings);
    expect(facts.lacking.fastPaths['inlay']).toEqual({
      state: 'off',
      obstacle: expect.stringMatching(/./),
      outbound: 0,
      inbound: 0,
    });
  });
});
