/** Addresses without a database, against a kernel in memory: who has a number, who gets the next, and that nobody gets one too early. */
import fc from 'fast-check';
import { beforeEach, describe, expect, test, vi } from 'vitest';
import { aliasOf } from '../src/containers/alias.ts';
import { Claims } from '../src/containers/claim.ts';
import { listContainers } from '../src/containers/list.ts';
import { ContainerError } from '../src/containers/reasons.ts';
import { Slice } from '../src/containers/slice.ts';
import { deleteLink } from '../src/containers/veth.ts';
import { messagesIn, type Request } from '../src/linux/netlink/message.ts';
import { Netlink } from '../src/linux/netlink/netlink.ts';
import { RTM_DELROUTE, RTM_NEWROUTE, RTN_UNREACHABLE, RTNLGRP_IPV4_ROUTE, route } from '../src/linux/netlink/route.ts';
import { CONTAINER_PROTOCOL } from '../src/machine/state.ts';
import { type Address, formatAddress, type Prefix, parseAddress, parsePrefix } from '../src/mesh/address.ts';
import { Mapping } from '../src/mesh/mapping.ts';
import { FakeKernel } from './netlink/fake-kernel.ts';
import { runs } from './runs.ts';

/** Seconds since boot. */
const clock = vi.hoisted(() => ({ now: 0 }));
vi.mock('../src/linux/native.ts', async (original) => ({
  ...(await original<object>()),
  secondsSinceBoot: () => clock.now,
}));

const COOL_DOWN = 60;
/** Who had an address, and who wants it then. */
const [BEFORE, AFTER] = [1, 2];
/** Overlays for two VMs, by how many containers each may have. */
const OVERLAYS = { 1: '10.0.0.0/29', 5: '10.0.0.0/28', 29: '10.0.0.0/26' };
type Capacity = keyof typeof OVERLAYS;

let kernel: FakeKernel;
beforeEach(() => {
  kernel = new FakeKernel();
  kernel.dumps.partSize = 64;
  clock.now = 1000;
});

function sliceOf(capacity: Capacity): Slice {
  const prefix = (text: string) => parsePrefix(text) as Prefix;
  const mappings = [new Mapping(prefix(OVERLAYS[capacity]), prefix('192.168.16.32/31'))];
  return new Slice({ mappings, local: parseAddress('192.168.16.32') as Address, mtu: 1476, coolDown: COOL_DOWN });
}

/** What a process on the machine knows of claims. */
function claimsOf(capacity: Capacity = 5, coolDown = COOL_DOWN): Claims {
  return new Claims(new Netlink(kernel.connect()), sliceOf(capacity), coolDown);
}

const newLink = () => kernel.addLink({ info: { kind: 'veth' } });

/** Claims a number as attach does. False if it is not free. */
function claim(claims: Claims, container: number, link = newLink()): boolean {
  const [error] = new Netlink(kernel.connect()).tryAll([claims.request(container, link)]);
  if (error && error.code !== 'EEXIST') throw error;
  return !error;
}

/** The routes of containers in words: `2 link 3`, `2 until 1061`. */
function table(capacity: Capacity = 5): string[] {
  const slice = sliceOf(capacity);
  return kernel.routes.map(
    ({ dst, type, oif, metrics }) =>
      `${slice.containerIn(dst)} ${type === RTN_UNREACHABLE ? `until ${metrics?.ssthresh}` : `link ${oif}`}`,
  );
}

function refusal(work: () => unknown): { reason: string; message: string; hint?: string | undefined } {
  try {
    return { reason: 'none', message: String(work()) };
  } catch (error) {
    if (!(error instanceof ContainerError)) throw error;
    const { reason, message, hint } = error;
    return { reason, message, hint };
  }
}

describe('a claim', () => {
  test('is a route of protocol 74 to the address alone, with the VM for its source, and one of two gets it', () => {
    const [one, two] = [claimsOf(), claimsOf()];
    const link = newLink();
    expect(claim(one, 3, link)).toBe(true);
    expect(claim(two, 3)).toBe(false);
    expect(kernel.routes).toEqual([
      expect.objectContaining({
        ...{ dst: Uint8Array.of(10, 0, 0, 4), dstLength: 32, oif: link, protocol: CONTAINER_PROTOCOL },
        prefsrc: Uint8Array.of(10, 0, 0, 1),
      }),
    ]);
    expect([one.isClaimed(3, link), one.isClaimed(3, link + 1), one.isClaimed(2, link)]).toEqual([true, false, false]);
  });

  test('goes with its link', () => {
    const claims = claimsOf();
    const link = newLink();
    claim(claims, 3, link);
    new Netlink(kernel.connect()).do(deleteLink(link));
    expect(claims.usage()).toEqual({ capacity: 5, inUse: 0, coolingDown: 0 });
    expect(claim(claims, 3)).toBe(true);
  });

  test('the first number that is tried goes round with the links', () => {
    const claims = claimsOf();
    expect([1, 2, 3, 4, 5, 6, 7, 1005].map((link) => claims.candidate(link))).toEqual([2, 3, 4, 5, 1, 2, 3, 1]);
    expect(claimsOf(1).candidate(77)).toBe(1);
  });

  test('in use are all routes of the slice, whoever else has routes', () => {
    const claims = claimsOf();
    claim(claims, 1);
    claim(claims, 5);
    const other = { family: 2, table: 254, protocol: 4, scope: 0, type: 1, flags: 0, srcLength: 0, tos: 0 };
    const put = (dst: number[], dstLength: number, protocol: number) =>
      new Netlink(kernel.connect()).do({
        ...{ type: RTM_NEWROUTE, flags: 0x400, what: 'a route' },
        put: (writer) =>
          route.put(writer, { ...other, dst: Uint8Array.from(dst), dstLength, protocol, oif: newLink() }),
      });
    put([10, 0, 0, 3], 32, 4);
    put([10, 0, 0, 0], 29, CONTAINER_PROTOCOL);
    put([10, 0, 0, 12], 32, CONTAINER_PROTOCOL);
    expect(claims.usage()).toEqual({ capacity: 5, inUse: 2, coolingDown: 0 });
  });
});

describe('the next number', () => {
  test('is the first that is free, round the end', () => {
    const claims = claimsOf();
    for (const container of [4, 5, 1]) claim(claims, container);
    expect(claims.next(4, newLink())).toBe(2);
    expect(claims.next(3, newLink())).toBe(3);
  });

  test('is found where more are taken than are tried one by one, among 29', () => {
    const claims = claimsOf(29);
    for (let container = 1; container <= 29; container++) if (container !== 2) claim(claims, container);
    expect(claims.next(3, newLink())).toBe(2);
    expect(refusal(() => claims.next(3, newLink())).reason).toBe('full');
  });

  test.each<[Capacity, number]>([
    [1, 1],
    [5, 3],
  ])(
    'of %i that are all taken there is none, and the message says how many are in use and cool down',
    (capacity, cold) => {
      const claims = claimsOf(capacity);
      const links = Array.from({ length: capacity }, newLink);
      for (const [i, link] of links.entries()) claim(claims, i + 1, link);
      for (let i = 0; i < cold; i++) claims.release(i + 1, links[i] as number, BEFORE);
      const before = table(capacity);
      expect(refusal(() => claims.next(1, newLink()))).toEqual({
        reason: 'full',
        message: `no address is free: ${capacity} a VM, ${capacity - cold} in use, ${cold} cooling down`,
        hint: expect.stringContaining('--address-cool-down'),
      });
      expect(table(capacity)).toEqual(before);
      clock.now += COOL_DOWN + 1;
      expect(claims.next(1, newLink())).toBeLessThanOrEqual(cold);
    },
  );

  test('one that somebody takes meanwhile is passed over', () => {
    const [mine, others] = [claimsOf(29), claimsOf(29)];
    for (let container = 1; container <= 25; container++) claim(mine, container);
    // The table is read, and says that 26 is free.
    kernel.dumps.onPart = () => claim(others, 26);
    expect(mine.next(5, newLink())).toBe(27);
  });

  test('those that were free when the table was read are tried before it is read again', () => {
    const [mine, others] = [claimsOf(29), claimsOf(29)];
    for (let container = 1; container <= 20; container++) claim(mine, container);
    let reads = 0;
    kernel.dumps.onPart = () => reads++;
    expect(mine.next(1, newLink())).toBe(21);
    expect(reads).toBe(1);
    const next = () => {
      const link = newLink();
      const first = mine.candidate(link);
      return claim(mine, first, link) ? first : mine.next(first, link);
    };
    expect(next()).toBe(22);
    for (const container of [23, 24]) claim(others, container);
    expect([next(), next()]).toEqual([25, 26]);
    expect(reads).toBe(1);
    for (const container of [27, 28, 29]) claim(others, container);
    expect(refusal(next).reason).toBe('full');
  });
});

describe('a number that was asked for', () => {
  test('is refused with its reason, and had when its time is over', () => {
    const claims = claimsOf();
    const link = newLink();
    claim(claims, 3, link);
    expect(refusal(() => claims.demand(3, newLink(), AFTER))).toMatchObject({
      reason: 'taken',
      message: 'container 3 (10.0.0.4) is in use',
    });
    claims.release(3, link, BEFORE);
    expect(refusal(() => claims.demand(3, newLink(), AFTER))).toMatchObject({
      reason: 'cooling',
      message: 'container 3 (10.0.0.4) was in use a moment ago',
      hint: expect.stringMatching(/^it is free in 61 s; /),
    });
    clock.now += COOL_DOWN;
    expect(refusal(() => claims.demand(3, newLink(), AFTER))).toMatchObject({
      hint: expect.stringMatching(/ in 1 s; /),
    });
    clock.now++;
    const next = newLink();
    claims.demand(3, next, AFTER);
    expect(table()).toEqual([`3 link ${next}`]);
  });

  test('is had when both of its tombstones are over', () => {
    const [killed, again] = [claimsOf(), claimsOf()];
    const link = newLink();
    claim(killed, 3, link);
    // Whoever detaches is killed when the tombstone is there, and it is detached again later.
    kernel.failNext(RTM_DELROUTE, 5);
    expect(() => killed.release(3, link, BEFORE)).toThrow('EIO');
    clock.now += 5;
    expect(again.release(3, link, BEFORE)).toBe(true);
    expect(table()).toEqual(['3 until 1061', '3 until 1066']);
    clock.now = 1061;
    expect(refusal(() => again.demand(3, newLink(), AFTER))).toMatchObject({ reason: 'cooling' });
    expect(table()).toEqual(['3 until 1066']);
    clock.now = 1066;
    again.demand(3, newLink(), AFTER);
    expect(again.usage()).toEqual({ capacity: 5, inUse: 1, coolingDown: 0 });
  });

  test('the last of two tombstones counts, whichever the kernel tells of first', () => {
    const claims = claimsOf();
    const link = newLink();
    claim(claims, 3, link);
    kernel.failNext(RTM_DELROUTE, 5);
    expect(() => claims.release(3, link, BEFORE)).toThrow('EIO');
    clock.now -= 30; // The machine's clock does not go back: this only makes the second one end first.
    claims.release(3, link, BEFORE);
    expect(table()).toEqual(['3 until 1061', '3 until 1031']);
    clock.now = 1040;
    expect(refusal(() => claims.demand(3, newLink(), AFTER))).toMatchObject({ reason: 'cooling' });
  });
});

describe('a number that is given back', () => {
  test('is never free in between: the tombstone comes first', () => {
    const claims = claimsOf();
    const link = newLink();
    claim(claims, 3, link);
    const watcher = kernel.connect([RTNLGRP_IPV4_ROUTE]);
    claims.release(3, link, BEFORE);
    const told: number[][] = [];
    for (let datagram = watcher.receive(); datagram; datagram = watcher.receive())
      for (const { type, view, start, end } of messagesIn(datagram))
        told.push([type, route.get(view, start, end).type]);
    expect(told).toEqual([
      [RTM_NEWROUTE, RTN_UNREACHABLE],
      [RTM_DELROUTE, 1],
    ]);
    expect(table()).toEqual(['3 until 1061']);
  });

  test('is free at once where there is no cool-down', () => {
    const claims = claimsOf(5, 0);
    const link = newLink();
    claim(claims, 3, link);
    expect(claims.release(3, link, BEFORE)).toBe(true);
    expect([table(), claim(claims, 3)]).toEqual([[], true]);
  });

  test('is nobody’s where its link has gone', () => {
    const claims = claimsOf();
    const link = newLink();
    claim(claims, 3, link);
    new Netlink(kernel.connect()).do(deleteLink(link));
    expect(claims.release(3, link, BEFORE)).toBe(false);
    expect(table()).toEqual([]);
  });

  test.each(['another has it', 'nobody has it', 'it cools down'])('is left alone where %s', (how) => {
    const claims = claimsOf();
    const [mine, other] = [newLink(), newLink()];
    if (how !== 'nobody has it') claim(claims, 3, other);
    if (how === 'it cools down') claims.release(3, other, BEFORE);
    const before = table();
    expect(claims.release(3, mine, BEFORE)).toBe(false);
    expect(table()).toEqual(before);
  });

  test('a tombstone that has come in the place of an old one stays', () => {
    /** Between the look at the table and the deletion, somebody has the number and gives it back. */
    class Overtaken extends Netlink {
      override tryAll(requests: readonly Request[]) {
        if (requests.length === 1 && requests[0]?.type === RTM_DELROUTE && isOver) {
          isOver = false;
          const theirs = newLink();
          others.demand(3, theirs, AFTER);
          others.release(3, theirs, BEFORE);
        }
        return super.tryAll(requests);
      }
    }
    let isOver = false;
    const others = claimsOf();
    const mine = new Claims(new Overtaken(kernel.connect()), sliceOf(5), COOL_DOWN);
    const link = newLink();
    claim(mine, 3, link);
    mine.release(3, link, BEFORE);
    clock.now += COOL_DOWN + 1;
    isOver = true;
    expect(refusal(() => mine.demand(3, newLink(), AFTER)).reason).not.toBe('none');
    expect(table()).toEqual([`3 until ${1061 + COOL_DOWN + 1}`]);
  });
});

describe('a number that is kept for somebody', () => {
  test('is nobody else’s until it is taken over, or its time is over', () => {
    const claims = claimsOf();
    expect(claims.reserve(3, 30, BEFORE)).toBe(3);
    expect(claim(claims, 3)).toBe(false);
    expect(refusal(() => claims.reserve(3, 30, BEFORE)).reason).toBe('cooling');
    const link = newLink();
    claims.takeOver(3, link);
    expect(table()).toEqual([`3 link ${link}`]);
    expect(refusal(() => claims.reserve(3, 30, BEFORE)).reason).toBe('taken');

    claims.reserve(4, 30, BEFORE);
    clock.now += 31;
    claims.demand(4, newLink(), AFTER);
    expect(refusal(() => claims.takeOver(4, newLink()))).toMatchObject({ reason: 'taken' });
    expect(claims.usage()).toEqual({ capacity: 5, inUse: 2, coolingDown: 0 });
  });

  test('is the next free one, unless a number is asked for, and free again when it is given back', () => {
    const claims = claimsOf();
    claim(claims, 5);
    claim(claims, 2);
    expect([
      claims.reserve(undefined, 30, BEFORE),
      claims.reserve(undefined, 30, BEFORE),
      claims.reserve(undefined, 30, BEFORE),
    ]).toEqual([1, 3, 4]);
    expect(refusal(() => claims.reserve(undefined, 30, BEFORE))).toMatchObject({
      message: 'no address is free: 5 a VM, 2 in use, 3 cooling down',
    });
    claims.cancel(3);
    expect(claims.reserve(undefined, 30, BEFORE)).toBe(3);
    // What was taken over is not given back.
    claims.takeOver(3, newLink());
    claims.cancel(3);
    expect(claims.usage().inUse).toBe(3);
  });

  test('is one that cools down after the same holder, however often it left it, and no other', () => {
    const claims = claimsOf();
    const [first, second] = [newLink(), newLink()];
    claim(claims, 3, first);
    claim(claims, 4, second);
    claims.release(3, first, BEFORE);
    claims.release(4, second, AFTER);
    clock.now += 1;
    const again = newLink();
    claims.demand(3, again, BEFORE);
    claims.release(3, again, BEFORE);
    expect(claims.reserve(3, 30, BEFORE)).toBe(3);
    expect(refusal(() => claims.reserve(4, 30, BEFORE)).reason).toBe('cooling');
    // A reservation is given back, a cool-down is not.
    claims.cancel(4);
    expect(refusal(() => claims.reserve(4, 30, BEFORE)).reason).toBe('cooling');
  });
});

describe('the list', () => {
  test('has all, though links come and go while it is read', () => {
    const claims = claimsOf(29);
    const others = Array.from({ length: 20 }, newLink);
    for (let container = 1; container <= 9; container++) {
      const address = formatAddress(sliceOf(29).addressOf(container));
      const alias = aliasOf({ address, ifname: 'eth0', netns: container, since: 0, id: `c${container}` });
      claim(claims, container, kernel.addLink({ info: { kind: 'veth' }, alias }));
    }
    // What is behind a link that goes is passed over.
    kernel.dumps.partSize = 3;
    const other = new Netlink(kernel.connect());
    kernel.dumps.onPart = () => {
      other.do(deleteLink(others.shift() as number));
      others.push(newLink());
    };
    const listed = listContainers(new Netlink(kernel.connect()), sliceOf(29));
    expect(listed.map(({ id, container }) => `${id} ${container}`)).toEqual(
      Array.from({ length: 9 }, (_, i) => `c${i + 1} ${i + 1}`),
    );
  });
});

/** What processes do to each other: any order of calls. */
describe('many processes', () => {
  const COUNT = 4;
  type Step = [what: 'attach' | 'demand' | 'detach' | 'gone' | 'wait' | 'reserve', who: number, which: number];
  const step: fc.Arbitrary<Step> = fc.tuple(
    fc.constantFrom('attach', 'attach', 'demand', 'detach', 'detach', 'gone', 'wait', 'reserve'),
    fc.nat(COUNT - 1),
    fc.nat(6),
  );

  test('no number has two links, and none that was given back is had before its time', () => {
    fc.assert(
      fc.property(fc.constantFrom<Capacity>(1, 5), fc.array(step, { maxLength: 60 }), (capacity, steps) => {
        kernel = new FakeKernel();
        clock.now = 1000;
        const processes = Array.from({ length: COUNT }, () => claimsOf(capacity));
        const holders = new Map<number, number>();
        const coldUntil = new Map<number, number>();
        const take = (container: number, link: number) => {
          expect(holders.has(container)).toBe(false);
          expect(coldUntil.get(container) ?? 0).toBeLessThanOrEqual(clock.now);
          holders.set(container, link);
        };
        const isFree = (container: number) => !holders.has(container) && (coldUntil.get(container) ?? 0) <= clock.now;
        const numbers = Array.from({ length: capacity }, (_, i) => i + 1);
        for (const [what, who, which] of steps) {
          const claims = processes[who] as Claims;
          const container = (which % capacity) + 1;
          const held = holders.get(container);
          if (what === 'wait') clock.now += which * 10;
          else if (what === 'attach') {
            const link = newLink();
            const first = claims.candidate(link);
            const wasFree = numbers.some(isFree);
            const reason = refusal(() =>
              take(claim(claims, first, link) ? first : claims.next(first, link), link),
            ).reason;
            expect([what, reason]).toEqual([what, wasFree ? 'none' : 'full']);
          } else if (what === 'demand') {
            const link = newLink();
            const wasFree = isFree(container);
            const reason = refusal(() => {
              if (!claim(claims, container, link)) claims.demand(container, link, AFTER);
              take(container, link);
            }).reason;
            expect([what, reason]).toEqual([what, wasFree ? 'none' : held === undefined ? 'cooling' : 'taken']);
          } else if (what === 'reserve') {
            if (refusal(() => claims.reserve(container, 20, BEFORE)).reason === 'none')
              coldUntil.set(container, clock.now + 20 + 1);
          } else if (held === undefined) expect(claims.release(container, 1, BEFORE)).toBe(false);
          else {
            holders.delete(container);
            if (what === 'gone') new Netlink(kernel.connect()).do(deleteLink(held));
            else {
              expect(claims.release(container, held, BEFORE)).toBe(true);
              coldUntil.set(container, clock.now + COOL_DOWN + 1);
            }
          }
          expect(claims.usage().inUse).toBe(holders.size);
        }
      }),
      { numRuns: runs(100) },
    );
  });
});
