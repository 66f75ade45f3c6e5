/** Entries about remote VMs: the requests and the commands say the same; addresses, MAC addresses and VMs are each other's inverse; and each thing has its commands. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { macOf } from '../../src/dataplane/kernel/device.ts';
import { Entries } from '../../src/dataplane/kernel/entries.ts';
import type { Way } from '../../src/dataplane/kernel/ways.ts';
import { Writer } from '../../src/linux/netlink/codec.ts';
import { ipv4Bytes } from '../../src/linux/netlink/ipv4.ts';
import { GRE_CSUM, GRE_KEY } from '../../src/linux/netlink/link.ts';
import { NLM_F_CREATE, NLM_F_REPLACE, type Request } from '../../src/linux/netlink/message.ts';
import {
  AF_BRIDGE,
  NTF_EXT_LEARNED,
  NTF_SELF,
  NUD_PERMANENT,
  NUD_STALE,
  neighbour,
  RTM_DELNEIGH,
  RTM_NEWNEIGH,
} from '../../src/linux/netlink/neighbour.ts';
import { RTM_DELROUTE, RTM_NEWROUTE, RTNH_F_ONLINK, route } from '../../src/linux/netlink/route.ts';
import type { Thing } from '../../src/machine/state.ts';
import { kindOf } from '../../src/machine/things/kinds.ts';
import { formatMac } from '../../src/machine/things/link-commands.ts';
import { contains, formatAddress, ipv4, parseAddress, parsePrefix } from '../../src/mesh/address.ts';
import { covering, Mapping } from '../../src/mesh/mapping.ts';
import { Slices } from '../../src/mesh/slices.ts';

const prefix = (text: string) => parsePrefix(text) as NonNullable<ReturnType<typeof parsePrefix>>;
const number = (text: string) => Number(parseAddress(text)?.bits);
const mapping = (overlay: string, underlay: string) => new Mapping(prefix(overlay), prefix(underlay));
const text = (bytes: Uint8Array | undefined) => (bytes ? [...bytes].join('.') : undefined);

const plans = [
  { name: '10/8 over /16', mappings: [mapping('10.0.0.0/8', '192.168.0.0/16')], local: '192.168.16.32' },
  { name: '240/4 over /17', mappings: [mapping('240.0.0.0/4', '192.168.0.0/17')], local: '192.168.16.32' },
  { name: '128/3 over /8, with 5 container bits', mappings: [mapping('128.0.0.0/3', '10.0.0.0/8')], local: '10.1.2.3' },
  {
    name: 'other VMs',
    mappings: [mapping('10.0.0.0/8', '192.168.0.0/16'), mapping('240.0.0.0/5', '172.16.0.0/16')],
    local: '172.16.200.7',
  },
  {
    name: 'the same VMs',
    mappings: [mapping('10.0.0.0/8', '192.168.0.0/16'), mapping('240.0.0.0/4', '192.168.0.0/16')],
    local: '192.168.16.32',
  },
];

/** A request as the command that says the same. */
function inWords({ type, flags, put }: Request): string {
  const writer = new Writer();
  put(writer);
  const verb = { [RTM_NEWNEIGH]: 'replace', [RTM_NEWROUTE]: 'replace', [RTM_DELNEIGH]: 'del', [RTM_DELROUTE]: 'del' }[
    type
  ];
  expect(flags).toBe(verb === 'replace' ? NLM_F_CREATE | NLM_F_REPLACE : 0);
  if (type === RTM_NEWROUTE || type === RTM_DELROUTE) {
    const {
      dst,
      dstLength,
      gateway,
      prefsrc,
      protocol,
      priority,
      flags: how,
      oif,
      metrics,
    } = route.get(writer.view, 0, writer.length);
    expect([how, oif]).toEqual([RTNH_F_ONLINK, 7]);
    const src = prefsrc ? ` src ${text(prefsrc)}` : '';
    return `ip route ${verb} ${text(dst)}/${dstLength} via ${text(gateway)} dev inlay0 onlink${src} proto ${protocol} metric ${priority}${metrics?.mtu ? ` mtu ${metrics.mtu}` : ''}`;
  }
  const { family, dst, lladdr, state, flags: how, protocol, ifindex } = neighbour.get(writer.view, 0, writer.length);
  expect(ifindex).toBe(7);
  if (family === AF_BRIDGE) {
    expect([how, state]).toEqual([NTF_SELF, NUD_PERMANENT]);
    return `bridge fdb ${verb} ${formatMac(lladdr as Uint8Array)} dev inlay0 dst ${text(dst)} self permanent`;
  }
  expect([how, state]).toEqual([NTF_EXT_LEARNED, NUD_STALE]);
  const address = lladdr?.length === 4 ? text(lladdr) : formatMac(lladdr as Uint8Array);
  return `ip neighbour ${verb} ${text(dst)} lladdr ${address} dev inlay0 nud stale extern_learn protocol ${protocol}`;
}

describe.each(plans)('$name', ({ mappings, local }) => {
  const options = { mappings, local: ipv4(number(local)), device: 'inlay0', ifindex: 7 };
  const addresses = fc
    .tuple(fc.constantFrom(...mappings), fc.nat(0xffffffff))
    .map(([{ underlay, vmBits }, bits]) => Number(underlay.bits | (BigInt(bits) & ((1n << BigInt(vmBits)) - 1n))))
    .filter((vm) => vm !== number(local));
  const vms = addresses.filter((vm) => mappings.some((m) => m.canBeVm(ipv4(vm))));

  test.each([true, false])('commands and requests agree (VXLAN: %s)', (isVxlan) => {
    const entries = new Entries({ ...options, isVxlan, overhead: 50 });
    fc.assert(
      fc.property(vms, (vm) => {
        const installed = entries.install(vm).map(inWords);
        expect(installed).toEqual(entries.commands(vm));
        expect(installed.length).toBe(entries.count(vm));
        // The same entries, the routes first.
        const removed = entries.remove(vm).map(inWords);
        expect([...removed].sort()).toEqual(installed.map((line) => line.replace(' replace ', ' del ')).sort());
        expect(removed.findLastIndex((line) => line.startsWith('ip route'))).toBe(mappingsOf(vm).length - 1);
        expect(installed.findIndex((line) => line.startsWith('ip route'))).toBe(
          installed.length - mappingsOf(vm).length,
        );
      }),
    );
  });

  test('the way to a VM shows in its routes alone, which are known again, and removed whatever MTU they have', () => {
    const entries = new Entries({ ...options, isVxlan: true, overhead: 50 });
    const plain: Way = {};
    const routeIn = ({ put }: Request) => {
      const writer = new Writer();
      put(writer);
      return route.get(writer.view, 0, writer.length);
    };
    fc.assert(
      fc.property(vms, fc.integer({ min: 68, max: 65_535 }), fc.nat(15), (vm, pathMtu, unreachable) => {
        const ways = [plain, { pathMtu }, { unreachable }];
        const lines = mappingsOf(vm).map((m) => {
          const [at, gateway] = [0n, 1n].map((index) => formatAddress(m.addressOf(ipv4(vm), index)));
          return { at, gateway };
        });
        for (const way of ways) {
          expect(entries.install(vm, way).slice(0, -lines.length).map(inWords)).toEqual(
            entries.install(vm).slice(0, -lines.length).map(inWords),
          );
          const led = entries.lead(vm, way);
          expect(led.map(inWords)).toEqual(entries.install(vm, way).slice(-lines.length).map(inWords));
          for (const [i, { at, gateway }] of lines.entries()) {
            const words = inWords(led[i] as Request);
            expect(words).toContain(` via ${way === ways[2] ? at : gateway} `);
            expect(/ mtu (\d+)/.exec(words)?.[1]).toBe(way === ways[1] ? `${Math.max(pathMtu - 50, 68)}` : undefined);
            const found = routeIn(led[i] as Request);
            expect(entries.vmBehind(found)).toBe(vm);
            expect(ways.filter((each) => entries.isLed(found, vm, each))).toEqual([way]);
          }
          const removed = entries.remove(vm, way).slice(0, lines.length).map(routeIn);
          expect(removed.map(({ gateway }) => text(gateway))).toEqual(
            led.map(routeIn).map(({ gateway }) => text(gateway)),
          );
          for (const { metrics } of removed) expect(metrics).toBeUndefined();
        }
      }),
    );
  });
  const mappingsOf = (vm: number) => mappings.filter((m) => contains(m.underlay, ipv4(vm)));

  test('from a VM to its addresses, and back', () => {
    const entries = new Entries({ ...options, isVxlan: true, overhead: 50 });
    fc.assert(
      fc.property(vms, fc.nat(0xffffffff), (vm, bits) => {
        expect(entries.vmForwarded(macOf(vm), ipv4Bytes(vm))).toBe(vm);
        expect(entries.vmForwarded(macOf(vm), ipv4Bytes(vm ^ 1))).toBe(undefined);
        for (const m of mappingsOf(vm)) {
          const at = (index: bigint) => ipv4Bytes(Number(m.addressOf(ipv4(vm), index).bits));
          expect(entries.vmOf(at(1n))).toBe(vm);
          expect(entries.vmAt(at(1n), macOf(vm))).toBe(vm);
          expect(entries.vmAt(at(1n), macOf(vm ^ 1))).toBe(undefined);
          expect(entries.vmAt(at(2n), macOf(vm))).toBe(undefined);
          expect(entries.vmOf(at(2n + (BigInt(bits) % m.containersPerVm)))).toBe(vm);
          expect(entries.vmOf(at(0n))).toBe(undefined);
          expect(entries.vmOf(at((1n << BigInt(m.containerBits)) - 1n))).toBe(undefined);
        }
      }),
    );
  });

  test('Slices says what Mapping says, for any address', () => {
    const slices = new Slices(mappings, ipv4(number(local)));
    const inOverlay = fc
      .tuple(fc.constantFrom(...mappings), fc.nat(0xffffffff))
      .map(([{ overlay }, bits]) => Number(overlay.bits | (BigInt(bits) & ((1n << BigInt(32 - overlay.length)) - 1n))));
    fc.assert(
      fc.property(fc.oneof(fc.nat(0xffffffff), inOverlay), (address) => {
        const found = covering(mappings, ipv4(address));
        const { kind, vm } = found?.explain(ipv4(address)) ?? {};
        const nobody = !found || !vm || kind === 'slice' || kind === 'reserved' || !found.canBeVm(vm);
        const expected = nobody || vm.bits === BigInt(number(local)) ? undefined : Number(vm.bits);
        expect(slices.vmOf(address)).toBe(expected);
      }),
      { numRuns: 5000 },
    );
    fc.assert(
      fc.property(addresses, (vm) => {
        const shown = slices
          .of(vm)
          .map(({ address, length, gateway, source }) => ({ address, length, gateway, source }));
        expect(shown).toEqual(
          mappings
            .filter((m) => m.canBeVm(ipv4(vm)))
            .map((m) => ({
              address: Number(m.sliceOf(ipv4(vm)).bits),
              length: m.sliceLength,
              gateway: Number(m.addressOf(ipv4(vm), 1n).bits),
              source: contains(m.underlay, ipv4(number(local)))
                ? Number(m.addressOf(ipv4(number(local)), 1n).bits)
                : undefined,
            })),
        );
      }),
    );
    expect(slices.of(number('8.8.8.8'))).toEqual([]);
    // The first and the last address of an underlay are the network's and its broadcast address.
    for (const { underlay, vmBits } of mappings) {
      for (const bits of [0, 2 ** vmBits - 1]) expect(slices.of(Number(underlay.bits) + bits)).toEqual([]);
    }
  });
});

test('MAC addresses are locally administered, of one device, and all different', () => {
  fc.assert(
    fc.property(fc.nat(0xffffffff), fc.nat(0xffffffff), (a, b) => {
      const mac = macOf(a);
      expect([mac.length, (mac[0] as number) & 3, formatAddress(ipv4(new DataView(mac.buffer).getUint32(2)))]).toEqual([
        6,
        2,
        formatAddress(ipv4(a)),
      ]);
      expect(formatMac(mac) === formatMac(macOf(b))).toBe(a === b);
    }),
  );
});

describe('commands of things', () => {
  const local = Uint8Array.of(192, 168, 16, 32);
  const cases: [thing: Thing, lines: string[]][] = [
    [
      {
        kind: 'link',
        device: 'inlay0',
        address: macOf(number('192.168.16.32')),
        info: { kind: 'vxlan', data: { id: 1, local, ttl: 64, tos: 0, learning: 0, port: 4789, df: 1 } },
      },
      [
        'ip link add name inlay0 address 02:00:c0:a8:10:20 type vxlan id 1 local 192.168.16.32 dstport 4789 nolearning ttl 64 df set',
      ],
    ],
    [
      {
        kind: 'link',
        device: 'v',
        info: { kind: 'vxlan', data: { id: 9, local, ttlInherit: true, tos: 0xb8, learning: 0, port: 4789, df: 0 } },
      },
      ['ip link add name v type vxlan id 9 local 192.168.16.32 dstport 4789 nolearning ttl inherit tos 0xb8'],
    ],
    [
      {
        kind: 'link',
        device: 'g',
        info: { kind: 'gre', data: { iflags: 0, oflags: 0, local, ttl: 64, tos: 0, pmtudisc: 1 } },
      },
      ['ip link add name g type gre local 192.168.16.32 ttl 64 pmtudisc'],
    ],
    [
      {
        kind: 'link',
        device: 'g',
        info: {
          kind: 'gre',
          data: {
            iflags: GRE_KEY | GRE_CSUM,
            oflags: GRE_KEY | GRE_CSUM,
            ikey: 5,
            okey: 5,
            local,
            ttl: 0,
            tos: 0,
            pmtudisc: 0,
            ignoreDf: 1,
            encapType: 1,
            encapDport: 4754,
          },
        },
      },
      [
        'ip link add name g type gre local 192.168.16.32 ttl inherit key 5 csum nopmtudisc ignore-df encap fou encap-sport auto encap-dport 4754',
      ],
    ],
    [
      { kind: 'link', device: 'inlay0', info: { kind: 'tun', data: { vnetHdr: 1, multiQueue: 1 } } },
      ['ip tuntap add dev inlay0 mode tun vnet_hdr multi_queue'],
    ],
    [
      { kind: 'link', device: 'inlay0', info: { kind: 'tun', data: { vnetHdr: 0, multiQueue: 0 } } },
      ['ip tuntap add dev inlay0 mode tun'],
    ],
    [{ kind: 'fou', port: 4754 }, ['ip fou add port 4754 ipproto 47']],
    [
      {
        kind: 'link-settings',
        device: 'inlay0',
        alias: 'inlay 192.168.16.32 inlay0',
        mtu: 1450,
        txQueueLength: 1000,
        arp: true,
      },
      [
        'ip link set dev inlay0 addrgenmode none',
        "ip link set dev inlay0 alias 'inlay 192.168.16.32 inlay0' mtu 1450 txqueuelen 1000 arp on",
      ],
    ],
    [
      {
        kind: 'link-settings',
        device: 'inlay0',
        alias: 'inlay x',
        mtu: 1476,
        txQueueLength: 1000,
        gsoMaxSegs: 44,
        gsoMaxSize: 65536,
      },
      [
        'ip link set dev inlay0 addrgenmode none',
        "ip link set dev inlay0 alias 'inlay x' mtu 1476 txqueuelen 1000 gso_max_segs 44 gso_max_size 65536",
      ],
    ],
    [
      { kind: 'addresses', device: 'inlay0', addresses: ['10.16.32.1', '241.2.0.1'] },
      ['ip address add 10.16.32.1/32 dev inlay0', 'ip address add 241.2.0.1/32 dev inlay0'],
    ],
    [
      { kind: 'neighbour-parameters', device: 'a.b', parameters: { app_solicit: 3, ucast_solicit: 0 } },
      ['sysctl -qw net/ipv4/neigh/a.b/app_solicit=3', 'sysctl -qw net/ipv4/neigh/a.b/ucast_solicit=0'],
    ],
    [{ kind: 'link-up', device: 'inlay0' }, ['ip link set dev inlay0 up']],
    [{ kind: 'link-up', device: 'gre0', others: true }, ['ip link set dev gre0 up 2>/dev/null || true']],
    [
      { kind: 'route', to: '10.0.0.0/8', device: 'inlay0', source: '10.16.32.1', metric: 0, protocol: 73 },
      ['ip route add 10.0.0.0/8 dev inlay0 src 10.16.32.1 proto 73'],
    ],
    [
      { kind: 'route', to: '10.16.32.0/24', metric: 0xffffffff, protocol: 73 },
      ['ip route add unreachable 10.16.32.0/24 proto 73 metric 4294967295'],
    ],
    [
      { kind: 'route', to: '10.0.0.0/8', metric: 1, protocol: 75 },
      ['ip route add unreachable 10.0.0.0/8 proto 75 metric 1'],
    ],
    [
      { kind: 'sysctl', device: 'a.b', name: 'net/ipv4/conf/a.b/forwarding', value: '1' },
      ['sysctl -qw net/ipv4/conf/a.b/forwarding=1'],
    ],
    [
      { kind: 'sysctl', device: 'inlay0', name: 'net/ipv4/conf/inlay0/accept_local', value: '1', optional: true },
      ['sysctl -qw net/ipv4/conf/inlay0/accept_local=1'],
    ],
    [
      { kind: 'sysctl', device: 'gre0', name: 'net/ipv4/conf/gre0/rp_filter', value: '1', others: true },
      ['sysctl -e -qw net/ipv4/conf/gre0/rp_filter=1'],
    ],
    [{ kind: 'directory', path: '/run/inlay' }, ['mkdir -p /run/inlay']],
    // No command does the same.
    [{ kind: 'filter', device: 'inlay0', place: 'ingress' }, []],
    [{ kind: 'clsact', device: 'eth0' }, []],
  ];
  test.each(cases)('%j', (thing, lines) => {
    expect(kindOf(thing).commands(thing)).toEqual(lines);
  });
});
