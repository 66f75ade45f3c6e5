/** `plan --containers`: whatever is asked for, a proposal is a mesh that has room, and takes no more of its network than that needs. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { InlayError } from '../src/errors.ts';
import { contains, formatPrefix, network, overlaps, type Prefix, parsePrefix } from '../src/mesh/address.ts';
import { Mapping } from '../src/mesh/mapping.ts';
import { overlaysBeside, propose, type Wanted } from '../src/mesh/propose.ts';

const prefix = (text: string) => parsePrefix(text) as Prefix;
const PRIVATE = ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '240.0.0.0/4'].map(prefix);

/**
 * Counted one by one, not by bits: hosts of the underlay (RFC 3021: without network and broadcast address, unless it has two addresses
 * or one), less one if 255.255.255.255 is in its slice; and indexes that a container may have.
 */
function room({ overlay, underlay }: Pick<Mapping, 'overlay' | 'underlay'>): { vms: number; containers: number } {
  const addresses = 2 ** (underlay.length - overlay.length);
  const isBroadcastInside = contains(overlay, { width: 32, bits: 0xffffffffn });
  const isLost = underlay.length > 30 && isBroadcastInside;
  return { vms: hosts(underlay.length) - (isLost ? 1 : 0), containers: addresses - 3 };
}

function hosts(length: number): number {
  return length > 30 ? 2 ** (32 - length) : 2 ** (32 - length) - 2;
}

const count = (most: number) => fc.oneof(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 1, max: most }));
/** Where an operator's VMs are: mostly in private networks, 10.0.0.0/8 first. */
const underlays = fc
  .tuple(
    fc.constantFrom(
      ...['10.0.0.0/8', '10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', '198.18.0.0/15'].map(prefix),
    ),
    fc.bigInt({ min: 0n, max: 0xffffffffn }),
    fc.integer({ min: 0, max: 24 }),
  )
  .map(([inside, bits, more]) => {
    const length = Math.min(inside.length + more, 32);
    const host = (1n << BigInt(32 - inside.length)) - 1n;
    return { ...network({ width: 32, bits: inside.bits | (bits & host) }, length), length };
  });

/** What is proposed; undefined if it is refused, which has to be with an error for the operator. */
function proposed(wanted: Wanted): Mapping[] | undefined {
  try {
    return propose(wanted);
  } catch (error) {
    expect(error).toBeInstanceOf(InlayError);
    expect(error).toMatchObject({ exitCode: 78, hint: expect.any(String) });
    return undefined;
  }
}

describe('proposals', () => {
  const wanted: fc.Arbitrary<Wanted> = fc.oneof(
    fc.record({ vms: count(2 ** 20), containers: count(2 ** 18) }),
    fc.record({ containers: count(2 ** 18), underlay: underlays }),
    fc.record({ vms: count(2 ** 14), containers: count(2 ** 14), underlay: underlays }),
  );

  test('are valid, have room, are inside a private network and beside the underlay', () => {
    fc.assert(
      fc.property(wanted, (asked) => {
        for (const mapping of proposed(asked) ?? []) {
          const { overlay, underlay } = mapping;
          // The constructor checks a pair as a configuration's is.
          expect(new Mapping(overlay, underlay)).toEqual(mapping);
          expect(PRIVATE.some((each) => contains(each, overlay) && each.length <= overlay.length)).toBe(true);
          expect(overlaps(overlay, underlay)).toBe(false);
          if (asked.underlay) expect(underlay).toEqual(asked.underlay);
          const { vms, containers } = room(mapping);
          expect(vms).toBeGreaterThanOrEqual(asked.vms ?? 1);
          expect(containers).toBeGreaterThanOrEqual(asked.containers);
        }
      }),
    );
  });

  test('the first of each network is the smallest: half of it has no room; and without an underlay, half of that has none for the VMs', () => {
    fc.assert(
      fc.property(wanted, (asked) => {
        const all = proposed(asked) ?? [];
        for (const each of PRIVATE) {
          const [first] = all.filter(({ overlay }) => contains(each, overlay));
          if (!first) continue;
          const half = { ...first.overlay, length: first.overlay.length + 1 };
          const containers = 2 ** (32 - half.length - first.vmBits) - 3;
          expect(containers < asked.containers).toBe(true);
          const { vms } = room({
            overlay: first.overlay,
            underlay: { ...first.underlay, length: first.underlay.length + 1 },
          });
          if (!asked.underlay && first.vmBits > 0) expect(vms).toBeLessThan(asked.vms ?? 1);
        }
      }),
    );
  });

  test('what is refused has no room anywhere: every part of every private network was too small', () => {
    fc.assert(
      fc.property(wanted, (asked) => {
        if (proposed(asked)) return;
        const { underlay, vms = 1, containers } = asked;
        if (underlay && vms > hosts(underlay.length)) return;
        const longest = Array.from({ length: 33 }, (_, i) => i).findLast((each) => hosts(each) >= vms) as number;
        const length = underlay?.length ?? longest;
        for (const each of PRIVATE)
          for (const part of partsOf(each)) {
            if (underlay && overlaps(part, underlay)) continue;
            const addresses = 2 ** (length - part.length);
            expect(addresses - 3).toBeLessThan(containers);
          }
      }),
    );
  });

  /** A network, and its halves: the largest parts that can be beside an underlay inside it. */
  function partsOf(whole: Prefix): Prefix[] {
    const length = whole.length + 1;
    const upper = { ...whole, bits: whole.bits | (1n << BigInt(32 - length)), length };
    return [whole, { ...whole, length }, upper];
  }
});

describe('known cases', () => {
  const text = ({ overlay, underlay }: Mapping) => `${formatPrefix(overlay)} over ${formatPrefix(underlay)}`;

  test.each<[name: string, wanted: Wanted, proposals: string[]]>([
    [
      '8,192 addresses for each of 2,046 VMs',
      { vms: 2046, containers: 8189 },
      ['10.0.0.0/8 over 192.168.0.0/21', '240.0.0.0/8 over 192.168.0.0/21', '240.0.0.0/4 over 192.168.0.0/21'],
    ],
    [
      'two VMs more than a /21 has addresses for hosts',
      { vms: 2048, containers: 8189 },
      ['240.0.0.0/7 over 192.168.0.0/20', '240.0.0.0/4 over 192.168.0.0/20'],
    ],
    [
      'a VPC of 10.0.0.0/16',
      { containers: 250, underlay: prefix('10.0.0.0/16') },
      ['240.0.0.0/8 over 10.0.0.0/16', '240.0.0.0/4 over 10.0.0.0/16'],
    ],
    [
      'a subnet of 10.0.0.0/8: the half that it is not in',
      { containers: 2000, underlay: prefix('10.200.16.0/20') },
      ['10.0.0.0/9 over 10.200.16.0/20', '240.0.0.0/9 over 10.200.16.0/20', '240.0.0.0/4 over 10.200.16.0/20'],
    ],
    // With one VM the overlay is its slice, and 255.255.255.255 would be in it.
    ['one VM in all of class E', { vms: 1, containers: 2 ** 28 - 3 }, []],
  ])('%s', (_, wanted, proposals) => {
    expect((proposed(wanted) ?? []).map(text)).toEqual(proposals);
  });

  test('overlays beside a VPC: where it is in 10.0.0.0/8, half of that', () => {
    expect(overlaysBeside(prefix('10.1.0.0/16')).map(text)).toEqual([
      '10.128.0.0/9 over 10.1.0.0/16',
      '172.16.0.0/12 over 10.1.0.0/16',
      '100.64.0.0/10 over 10.1.0.0/16',
      '240.0.0.0/4 over 10.1.0.0/16',
    ]);
  });
});
