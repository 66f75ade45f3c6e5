/** Which of this machine's addresses is the VM's, and what MTU leads to the others: over tables of addresses and routes, in a kernel in memory. */
import { describe, expect, test } from 'vitest';
import { InlayError } from '../../src/errors.ts';
import { address, RTM_NEWADDR } from '../../src/linux/netlink/address.ts';
import { addressBytes } from '../../src/linux/netlink/ipv4.ts';
import { NLM_F_CREATE, request } from '../../src/linux/netlink/message.ts';
import { Netlink } from '../../src/linux/netlink/netlink.ts';
import {
  type RouteRequest,
  RTM_NEWROUTE,
  RTN_LOCAL,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  route,
} from '../../src/linux/netlink/route.ts';
import { findUnderlay, hasAddress, NoUnderlayError, underlayMtu } from '../../src/machine/underlay.ts';
import { type Address, formatAddress, type Prefix, parseAddress, parsePrefix } from '../../src/mesh/address.ts';
import { Mapping } from '../../src/mesh/mapping.ts';
import { FakeKernel } from '../netlink/fake-kernel.ts';

const AF_INET = 2;
const IFA_F_SECONDARY = 0x01;
const RT_TABLE_LOCAL = 255;
const prefix = (text: string) => parsePrefix(text) as Prefix;
const parse = (text: string) => parseAddress(text) as Address;
const MAPPINGS = [new Mapping(prefix('10.0.0.0/8'), prefix('192.168.0.0/16'))];
const TWO = [...MAPPINGS, new Mapping(prefix('240.0.0.0/5'), prefix('172.16.0.0/16'))];

/** ADDRESS/LENGTH on a device; `secondary` if the kernel says so. */
type On = readonly [device: string, address: string, secondary?: 'secondary'];

function machine(all: readonly On[]): { kernel: FakeKernel; netlink: Netlink } {
  const kernel = new FakeKernel();
  const netlink = new Netlink(kernel.connect());
  for (const each of all) addAddress(kernel, each);
  return { kernel, netlink };
}

/** Somebody gives a device an address; the device is made if there is none. */
function addAddress(kernel: FakeKernel, [device, text, secondary]: On): void {
  const index = kernel.links.find(({ name }) => name === device)?.index ?? kernel.addLink({ name: device });
  const { length, ...at } = prefix(text);
  const flags = secondary ? IFA_F_SECONDARY : 0;
  const body = { family: AF_INET, index, prefixLength: length, flags, local: addressBytes(at) };
  new Netlink(kernel.connect()).do(request(RTM_NEWADDR, NLM_F_CREATE, text, address, body));
}

/** A route to `to`; of table main, if it does not say otherwise. */
function addRoute(netlink: Netlink, to: string, body: Omit<RouteRequest, 'dst' | 'dstLength'>): void {
  const { length, ...dst } = prefix(to);
  const all = { family: AF_INET, dst: addressBytes(dst), dstLength: length, ...body };
  netlink.do(request(RTM_NEWROUTE, NLM_F_CREATE, to, route, all));
}

interface Case {
  name: string;
  has: On[];
  wanted?: string;
  before?: string;
  mappings?: readonly Mapping[];
  found: string;
}

describe('the address', () => {
  const cases: Case[] = [
    { name: 'the only one', has: [['eth0', '192.168.16.32/24']], found: '192.168.16.32 on eth0' },
    {
      name: 'the only one inside the underlay',
      has: [
        ['lo', '127.0.0.1/8'],
        ['eth0', '10.1.2.3/8'],
        ['eth1', '192.168.16.32/24'],
      ],
      found: '192.168.16.32 on eth1',
    },
    {
      name: 'the only one, of a single host',
      has: [['eth0', '192.168.16.32/32']],
      found: '192.168.16.32 on eth0',
    },
    {
      name: 'one of a subnet rather than one of a single host, such as a VIP',
      has: [
        ['eth0', '192.168.16.9/32'],
        ['eth0', '192.168.16.32/24'],
        ['lo', '192.168.16.8/32'],
      ],
      found: '192.168.16.32 on eth0',
    },
    {
      name: 'a primary one rather than a secondary one',
      has: [
        ['eth0', '192.168.16.9/24', 'secondary'],
        ['eth0', '192.168.16.32/24'],
      ],
      found: '192.168.16.32 on eth0',
    },
    {
      name: 'a primary one of a single host rather than a secondary one',
      has: [
        ['eth0', '192.168.16.9/24', 'secondary'],
        ['eth0', '192.168.16.32/32'],
      ],
      found: '192.168.16.32 on eth0',
    },
    {
      name: 'the one that this VM had last, even if another is better',
      has: [
        ['eth0', '192.168.16.32/24'],
        ['eth0', '192.168.16.9/32'],
      ],
      before: '192.168.16.9',
      found: '192.168.16.9 on eth0',
    },
    {
      name: 'the one that this VM had last, of several that are as good',
      has: [
        ['eth0', '192.168.16.32/24'],
        ['eth1', '192.168.17.32/24'],
      ],
      before: '192.168.17.32',
      found: '192.168.17.32 on eth1',
    },
    {
      name: 'another, if the last has gone',
      has: [['eth0', '192.168.16.33/24']],
      before: '192.168.16.32',
      found: '192.168.16.33 on eth0',
    },
    {
      name: 'the last counts only inside the underlay',
      has: [
        ['eth0', '10.1.2.3/24'],
        ['eth0', '192.168.16.32/24'],
      ],
      before: '10.1.2.3',
      found: '192.168.16.32 on eth0',
    },
    {
      name: 'the wanted one, whatever it is like and whatever was there before',
      has: [
        ['eth0', '192.168.16.32/24'],
        ['eth1', '192.168.16.9/32', 'secondary'],
      ],
      wanted: '192.168.16.9',
      before: '192.168.16.32',
      found: '192.168.16.9 on eth1',
    },
    {
      name: 'of the second mapping',
      has: [['eth0', '172.16.200.7/16']],
      mappings: TWO,
      found: '172.16.200.7 on eth0',
    },
  ];
  const addressOf = (text: string | undefined) => (text === undefined ? undefined : parse(text));

  test.each(cases)('$name', ({ has, wanted, before, mappings = MAPPINGS, found }) => {
    // The rule does not depend on the order in which the kernel tells them.
    for (const all of [has, has.toReversed()]) {
      const { netlink } = machine(all);
      const { local, device } = findUnderlay(netlink, mappings, addressOf(wanted), addressOf(before));
      expect(`${formatAddress(local)} on ${device}`).toBe(found);
    }
  });

  test('what else there was to choose from is told', () => {
    const { netlink } = machine([
      ['eth0', '192.168.16.32/24'],
      ['lo', '192.168.16.9/32'],
      ['eth1', '10.1.2.3/8'],
    ]);
    expect(findUnderlay(netlink, MAPPINGS, undefined).others).toBe('192.168.16.9 on lo');
    expect(findUnderlay(netlink, MAPPINGS, parse('192.168.16.9')).others).toBeUndefined();
  });

  const refusals: { name: string; has: On[]; wanted?: string; mappings?: Mapping[]; isNone: boolean; says: RegExp }[] =
    [
      {
        name: 'none at all',
        has: [],
        isNone: true,
        says: /no address inside the underlay 192\.168\.0\.0\/16: it has none at all$/,
      },
      {
        name: 'none inside',
        has: [['eth0', '10.1.2.3/8']],
        mappings: TWO,
        isNone: true,
        says: /inside the underlay 192\.168\.0\.0\/16, 172\.16\.0\.0\/16: it has 10\.1\.2\.3 on eth0$/,
      },
      {
        name: 'the wanted one is missing',
        has: [['eth0', '192.168.16.32/24']],
        wanted: '192.168.16.9',
        isNone: true,
        says: /^local address 192\.168\.16\.9 is not on this machine: it has 192\.168\.16\.32 on eth0$/,
      },
      {
        name: 'the wanted one is outside',
        has: [['eth0', '10.1.2.3/8']],
        wanted: '10.1.2.3',
        isNone: false,
        says: /^local address 10\.1\.2\.3 is outside the underlay 192\.168\.0\.0\/16$/,
      },
      {
        name: 'several as good',
        has: [
          ['eth0', '192.168.16.32/24'],
          ['eth1', '192.168.17.32/24'],
          ['lo', '192.168.16.9/32'],
        ],
        isNone: false,
        says: /^several addresses are inside the underlay 192\.168\.0\.0\/16: 192\.168\.16\.32 on eth0, 192\.168\.17\.32 on eth1, 192\.168\.16\.9 on lo$/,
      },
      {
        name: 'several VIPs and nothing else',
        has: [
          ['eth0', '192.168.16.8/32'],
          ['eth0', '192.168.16.9/32'],
        ],
        isNone: false,
        says: /^several addresses/,
      },
    ];
  test.each(refusals)('$name: an error that says so', ({ has, wanted, mappings = MAPPINGS, isNone, says }) => {
    const { netlink } = machine(has);
    const error = thrownBy(() => findUnderlay(netlink, mappings, addressOf(wanted)));
    expect(error).toBeInstanceOf(InlayError);
    expect(error).toMatchObject({ code: 'ERR_CONFIG', message: expect.stringMatching(says) });
    expect(error instanceof NoUnderlayError).toBe(isNone);
  });

  test('of several as good, the hint is one that can be typed, and works', () => {
    const { netlink } = machine([
      ['eth0', '192.168.16.32/24'],
      ['eth1', '192.168.17.32/24'],
    ]);
    const { hint } = thrownBy(() => findUnderlay(netlink, MAPPINGS, undefined)) as InlayError;
    const [, typed = ''] = /--local (\S+)$/.exec(hint ?? '') ?? [];
    expect(formatAddress(findUnderlay(netlink, MAPPINGS, parse(typed)).local)).toBe(typed);
  });

  test('is found while addresses come and go', () => {
    const { kernel, netlink } = machine(Array.from({ length: 10 }, (_, i) => [`eth${i}`, `10.1.${i}.1/24`] as const));
    addAddress(kernel, ['eth3', '192.168.16.32/24']);
    let parts = 0;
    kernel.dumps.onPart = () => {
      if (++parts <= 3) addAddress(kernel, ['lo', `127.0.1.${parts}/8`]);
    };
    expect(formatAddress(findUnderlay(netlink, MAPPINGS, undefined).local)).toBe('192.168.16.32');
    // The first answer was interrupted, and has the address.
    expect(parts).toBe(5);
  });
});

function thrownBy(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

describe('the MTU', () => {
  const local = parse('192.168.16.32');
  function withRoute(body: Omit<RouteRequest, 'dst' | 'dstLength'>, to = '192.168.16.0/24') {
    const { kernel, netlink } = machine([['eth0', '192.168.16.32/24']]);
    const oif = kernel.addLink({ name: 'eth1', mtu: 9000 });
    addRoute(netlink, to, { oif, ...body });
    return netlink;
  }

  test('is that of the device that others are reached by', () => {
    expect(underlayMtu(withRoute({ type: RTN_UNICAST }), MAPPINGS, local)).toBe(9000);
  });
  test('is that of the route, if it says less', () => {
    expect(underlayMtu(withRoute({ metrics: { mtu: 1400 } }), MAPPINGS, local)).toBe(1400);
  });
  test('is that of the device, if the route says more', () => {
    expect(underlayMtu(withRoute({ metrics: { mtu: 65_000 } }), MAPPINGS, local)).toBe(9000);
  });
  test('is that of the route, whatever path the kernel has learnt to one of them', () => {
    const { kernel, netlink } = machine([['eth0', '192.168.16.32/24']]);
    const oif = kernel.addLink({ name: 'eth1', mtu: 9000 });
    addRoute(netlink, '192.168.16.0/24', { oif, metrics: { mtu: 8000 } });
    kernel.paths.set('c0a81021', 1400);
    expect(underlayMtu(netlink, MAPPINGS, local)).toBe(8000);
  });
  test('is not known where no route leads to others; then it is that of the device with our address', () => {
    const { netlink } = machine([['eth0', '192.168.16.32/24']]);
    expect(underlayMtu(netlink, MAPPINGS, local)).toBeUndefined();
    expect(findUnderlay(netlink, MAPPINGS, undefined).mtu).toBe(1500);
  });
  test('is not known where others are unreachable', () => {
    const netlink = withRoute({ type: RTN_UNREACHABLE, oif: undefined });
    expect(underlayMtu(netlink, MAPPINGS, local)).toBeUndefined();
  });
  test('is not known where there is no other VM', () => {
    const alone = [new Mapping(prefix('10.0.0.0/8'), prefix('192.168.16.32/32'))];
    expect(underlayMtu(withRoute({ type: RTN_UNICAST }), alone, local)).toBeUndefined();
  });
  test('is not that of lo, where the address next to ours is this machine’s own as well, such as a VIP', () => {
    const netlink = withRoute({ type: RTN_UNICAST });
    addRoute(netlink, '192.168.16.33/32', { table: RT_TABLE_LOCAL, type: RTN_LOCAL, oif: 1 });
    expect(underlayMtu(netlink, MAPPINGS, local)).not.toBe(65_536);
    expect(findUnderlay(netlink, MAPPINGS, undefined).mtu).toBeLessThanOrEqual(9000);
  });
});

test('an address is this machine’s while there is a local route to it', () => {
  const { netlink } = machine([['eth0', '192.168.16.32/24']]);
  const local = parse('192.168.16.32');
  expect(hasAddress(netlink, local)).toBe(false);
  addRoute(netlink, '0.0.0.0/0', { type: RTN_UNICAST, oif: 2 });
  expect(hasAddress(netlink, local)).toBe(false);
  addRoute(netlink, '192.168.16.32/32', { table: RT_TABLE_LOCAL, type: RTN_LOCAL, oif: 2 });
  expect(hasAddress(netlink, local)).toBe(true);
});
