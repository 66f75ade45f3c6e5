/** `inlay up` and the kernel's own GRE, in User-mode Linux: they understand each other, and the kernel beside the daemon keeps quiet. */
import { beforeAll, describe, expect, test } from 'vitest';
import { skip } from '../net/require.ts';
import { MACHINE_TIMEOUT, machineMissing, runInMachine } from './machine.ts';

/** `key` is the daemon's and that of the kernel's tunnel, `otherKey` is what the kernel sends with when nothing is to get through. */
interface Run {
  core: 'wasm' | 'typescript';
  key: number | null;
  otherKey: number | null;
  end: 'SIGTERM' | 'SIGKILL';
  /** Who connects to whom; the stream then carries both directions. */
  connection: [string, string];
}

interface Ping {
  from: string;
  to: string;
  sent: number;
  received: number;
  duplicates: number;
  errors: number;
}

interface TransferEnd {
  sent: { bytes: number; sha256: string };
  received: { bytes: number; sha256: string };
}

/** What scenario.mjs prints. */
interface Facts {
  kernel: string;
  control: { ping: Ping; unreachables: number };
  daemons: (Run & {
    tunnels: { shape: string; pings: Ping[] }[];
    transfer: { client: TransferEnd | null; server: TransferEnd | null };
    drops: Record<string, number>;
    lost: { pings: Ping[]; drops: Record<string, number> };
    unreachables: number;
    gre0: { up: boolean; addresses: string[] };
    exitStatus: number | null;
    /** After its end, before `down`. */
    stayed: string[];
    down: string;
    left: string[];
  })[];
}

// `otherKey` is a key too many, another one, and one too few.
const RUNS: Run[] = [
  { core: 'wasm', key: null, otherKey: 1, end: 'SIGTERM', connection: ['kernel', 'inlay'] },
  { core: 'wasm', key: 7, otherKey: 8, end: 'SIGKILL', connection: ['inlay', 'kernel'] },
  { core: 'typescript', key: 4294967295, otherKey: null, end: 'SIGTERM', connection: ['kernel', 'inlay'] },
];
const TRANSFER = 4 << 20;

describe.skipIf(skip('kernel GRE', machineMissing('ping')))('kernel GRE', () => {
  let facts: Facts;
  beforeAll(async () => {
    facts = await runInMachine('scenario.mjs', JSON.stringify(RUNS), String(TRANSFER));
  }, MACHINE_TIMEOUT);

  test('without a daemon the kernel answers GRE with ICMP errors', () => {
    expect(facts.control.ping).toMatchObject({ sent: 5, received: 0 });
    expect(facts.control.unreachables).toBeGreaterThan(0);
  });

  describe.each(RUNS.map((run, index) => ({ ...run, index })))(
    'core $core, key $key, $end',
    ({ index, otherKey, end }) => {
      const daemon = () => facts.daemons[index] as Facts['daemons'][number];

      describe.each(['point-to-point', 'multipoint'])('%s', (shape) => {
        const tunnel = () => daemon().tunnels.find((found) => found.shape === shape);

        test.each([
          ['kernel', 'inlay'],
          ['inlay', 'kernel'],
          ['kernel', 'container'],
          ['container', 'kernel'],
        ])('every ping from %s to %s is answered once', (from, to) => {
          const ping = tunnel()?.pings.find((found) => found.from === from && found.to === to);
          expect(ping).toEqual({ from, to, sent: 20, received: 20, duplicates: 0, errors: 0 });
        });
      });

      test('TCP carries both directions unchanged', () => {
        const { client, server } = daemon().transfer;
        expect(client?.sent.bytes).toBe(TRANSFER);
        expect(server?.sent.bytes).toBe(TRANSFER);
        expect(server?.received).toEqual(client?.sent);
        expect(client?.received).toEqual(server?.sent);
      });

      test('drops nothing', () => expect(daemon().drops).toEqual({}));

      test(`G7 nothing passes with key ${otherKey ?? 'none'}, and the drops are counted as gre-key`, () => {
        const { pings, drops } = daemon().lost;
        expect(pings.map(({ sent, received }) => ({ sent, received }))).toEqual([
          { sent: 5, received: 0 },
          { sent: 5, received: 0 },
        ]);
        // The kernel's requests arrive here. Ours end at the kernel, which has another key.
        expect(drops).toEqual({ 'gre-key': 5 });
      });

      test('no ICMP error goes back for GRE packets', () => expect(daemon().unreachables).toBe(0));

      test('gre0 is up without an address', () => expect(daemon().gre0).toEqual({ up: true, addresses: [] }));

      test(`after ${end} and down links, addresses, routes and sysctls are as before`, () => {
        if (end === 'SIGTERM') {
          expect(daemon().exitStatus).toBe(0);
          // Only the catch-all is left, the guard of the container's device, and the programs of the fast path.
          expect(daemon().stayed.filter((line) => !line.includes('veth0'))).toEqual([
            expect.stringMatching(/unreachable 10\.0\.0\.0\/8 proto 75 metric 1 *$/),
            expect.stringMatching(/^qdisc clsact ffff: dev eth0 parent ffff:fff1 *$/),
          ]);
          expect(daemon().down).toMatch(
            /^removed {2}program at the ingress of eth0\nremoved {2}clsact of eth0\nremoved {2}programs at containers' devices\n(removed {2}rule .*\n){2}removed {2}route unreachable .*\nremoved {2}settings of veth0\nremoved {2}directory \/run\/inlay\n$/,
          );
        } else expect(daemon().down).toMatch(/gre0/);
        expect(daemon().left).toEqual([]);
      });
    },
  );
});
