/** Kernel data plane over the kernel's GRE, in User-mode Linux: containers are told what the underlay's way to a VM takes, and that there is none. */
import { beforeAll, describe, expect, test } from 'vitest';
import { skip } from '../net/require.ts';
import { MACHINE_TIMEOUT, machineMissing, runInMachine } from '../uml/machine.ts';

interface End {
  sent: object;
  received: object;
}

/** What ways.mjs prints: pings in ping's own words, and lines of `ip route`. */
interface Facts {
  wide: string;
  stream: { client: End | null; server: End | null };
  narrow: { tunnels: object[]; mtu: number; slice: string; tooLong: string; cut: string };
  lost: { slice: string; said: string; tunnels: object[] };
  back: string;
}

const BYTES = 4 << 20;
/** Of the router, without IPv4 and GRE headers. */
const MTU = 1300 - 24;
const ALL_ANSWERED = ' 0% packet loss';

describe.skipIf(skip('kernel ways over gre', machineMissing('ping')))('kernel ways over gre', () => {
  let facts: Facts;
  beforeAll(async () => {
    facts = await runInMachine('ways.mjs', String(BYTES));
  }, MACHINE_TIMEOUT);

  test('a stream of super-packets completes through a router that takes less', () => {
    const { client, server } = facts.stream;
    expect(facts.wide).toContain(ALL_ANSWERED);
    expect(client?.sent).toMatchObject({ bytes: BYTES });
    expect(server?.received).toEqual(client?.sent);
    expect(client?.received).toEqual(server?.sent);
  });

  test('the route to the slice says what goes through; the device stays as it is', () => {
    const { tunnels, mtu, slice, tooLong, cut } = facts.narrow;
    expect(tunnels).toEqual([{ mtu: MTU }, { mtu: MTU }]);
    expect(mtu).toBe(1476);
    expect(slice).toContain(` mtu ${MTU}`);
    expect(tooLong).toContain(`mtu = ${MTU}`);
    expect(cut).toContain(ALL_ANSWERED);
  });

  test('without a route on the underlay senders are told, until it is back', () => {
    const { slice, said, tunnels } = facts.lost;
    expect(slice).toContain('via 10.16.33.0 ');
    expect(said).toContain('Destination Host Unreachable');
    expect(tunnels[0]).toMatchObject({ unreachable: 'network unreachable' });
    expect(facts.back).toContain(ALL_ANSWERED);
  });
});
