/** What `status` and `tunnels` print for people, as a whole. */
import { describe, expect, test } from 'vitest';
import { statusText } from '../src/commands/status-text.ts';
import { tunnelsText } from '../src/commands/tunnels-text.ts';
import { count, counted, duration, scaled } from '../src/commands/units.ts';
import { DROP_REASONS } from '../src/core/verdict.ts';
import type { DirectionStatus, Status, TunnelStatus } from '../src/observe/status.ts';

const NOTHING: DirectionStatus = { received: 0, packets: 0, bytes: 0, drops: {} };

const WASM: Status = {
  ...{ state: 'running', troubles: [], stateSeconds: 273_605, uptimeSeconds: 273_606, repaired: 0, pid: 4711 },
  ...{ vm: '192.168.16.32', overlayAddress: '10.16.32.1' },
  mappings: [{ overlay: '10.0.0.0/8', underlay: '192.168.0.0/16', slice: '10.16.32.0/24' }],
  ...{ device: 'inlay0', dataPlane: 'wasm', encapsulation: 'gre', mtu: 1476, underlayMtu: 1500 },
  ...{ core: 'wasm', engine: 'linux', segmentation: 'core', segmentationObstacle: 'iptables has a table filter' },
  ...{ queues: 2, tunnels: 12, tunnelStates: { heard: 10, silent: 1, unreachable: 1, new: 0, unknown: 0 } },
  outbound: {
    ...{ received: 1_951_959, packets: 1_951_953, bytes: 2_812_345_678, drops: { 'not-written': 6 } },
    ...{ packetsPerSecond: 1234, bitsPerSecond: 14_216_000, recentDrops: {} },
  },
  inbound: {
    ...{ received: 22_400, packets: 22_360, bytes: 1_443_210_000, drops: { 'gre-key': 40 } },
    ...{ packetsPerSecond: 617, bitsPerSecond: 999_600, recentDrops: { 'gre-key': 12 } },
  },
  ...{ replies: { sent: 1002, suppressed: 31 }, ecnAnomalies: 0, icmp: { ...NOTHING, packets: 3 } },
  refused: { underlay: { ENETUNREACH: 1, EPERM: 4 }, overlay: { EIO: 1 } },
};

describe('status', () => {
  test('wasm: traffic, merged packets, drops with what helps, why the core cuts', () => {
    expect(statusText(WASM)).toBe(`\
state  running for 3 d 4 h (process 4711)

TRAFFIC         PACKETS/S NOW   BITS/S NOW    PACKETS    BYTES
to other VMs            1,234  14.2 Mbit/s  1,951,953  2.81 GB
from other VMs            617  1.00 Mbit/s     22,360  1.44 GB
Packets in are fewer than on the wire: the kernel merges them (GRO) before they are counted. Compare bytes.
12 tunnels: 10 heard, 1 silent, 1 unreachable (inlay tunnels lists them)

DROPS            LAST MINUTE  TOTAL  MEANING
in gre-key                12     40  the GRE key is missing, unexpected or different
    hint: give all VMs the same --key
out not-written            0      6  the device or socket did not take the packet: full, too big or refused
    underlay EPERM 4: a firewall of this VM drops the packets at OUTPUT
    hint: allow protocol 47 (gre) or UDP port 4754 (gre-udp): nft list ruleset, or iptables -L OUTPUT -v
    underlay ENETUNREACH 1: this VM has no route to that VM
    hint: look at the route to that VM: ip route get VM; a default route may have gone
    overlay EIO 1: the overlay device is down
    hint: Inlay sets it up again; look who sets it down

underlay address    192.168.16.32
overlay address     10.16.32.1
slice               10.16.32.0/24 (10.0.0.0/8 over 192.168.0.0/16)
device              inlay0
MTU                 1,476 bytes: give containers this much or less; the underlay takes 1,500
data plane          wasm: core wasm, engine linux, 2 queues
format              gre (IP protocol 47)
super-packets       cut by the core, because iptables has a table filter
ICMP to containers  1,002 sent, 31 left out (too many)
ICMP from underlay  3 believed`);
  });

  test('wasm with gre-udp, degraded: troubles and remarks come first', () => {
    const { segmentationObstacle: _, refused: __, ...rest } = WASM;
    const status: Status = {
      ...rest,
      ...{
        state: 'degraded',
        stateSeconds: 12,
        repaired: 2,
        encapsulation: 'gre-udp',
        mtu: 1468,
        queues: 1,
        tunnels: 0,
      },
      troubles: [{ what: 'a route of others hides VMs', hint: 'remove it' }, { what: 'inlay0 is not ours' }],
      remarks: [{ what: 'the FORWARD policy is DROP', hint: 'iptables -A FORWARD -i inlay0 -j ACCEPT' }],
      ...{ tunnelStates: { heard: 0, silent: 0, unreachable: 0, new: 0, unknown: 0 } },
      ...{ outbound: NOTHING, inbound: NOTHING, icmp: NOTHING, replies: { sent: 0, suppressed: 0 }, ecnAnomalies: 7 },
    };
    expect(statusText(status)).toBe(`\
state    degraded for 12 s, up for 3 d 4 h (process 4711)
trouble  a route of others hides VMs
         hint: remove it
trouble  inlay0 is not ours
remark   the FORWARD policy is DROP
         hint: iptables -A FORWARD -i inlay0 -j ACCEPT

TRAFFIC         PACKETS/S NOW  BITS/S NOW  PACKETS  BYTES
to other VMs                0     0 bit/s        0    0 B
from other VMs              0     0 bit/s        0    0 B
0 tunnels

no drops by Inlay

underlay address    192.168.16.32
overlay address     10.16.32.1
slice               10.16.32.0/24 (10.0.0.0/8 over 192.168.0.0/16)
device              inlay0
MTU                 1,468 bytes: give containers this much or less; the underlay takes 1,500
data plane          wasm: core wasm, engine linux, 1 queue
format              gre-udp (UDP port 4754)
super-packets       cut by the core
ICMP to containers  0 sent
ICMP from underlay  0 believed
ECN anomalies       7 packets (RFC 6040 §4.2)
repaired            2 changes by others put right; the log names them`);
  });

  test('kernel: who checks sources, and what the neighbour daemon did', () => {
    const {
      core: _,
      engine: __,
      queues: ___,
      segmentation,
      segmentationObstacle,
      replies,
      icmp,
      refused,
      ...rest
    } = WASM;
    const status: Status = {
      ...rest,
      ...{ dataPlane: 'kernel', encapsulation: 'vxlan', mtu: 1450, stateSeconds: 60, uptimeSeconds: 61, tunnels: 1 },
      ...{ sourceCheck: 'off', sourceCheckObstacle: 'CAP_BPF is missing' },
      neighbours: { answered: 1500, refused: 2, failed: 1, resyncs: 1, repaired: 3 },
      ...{ tunnelStates: { heard: 0, silent: 0, unreachable: 0, new: 0, unknown: 1 } },
      ...{ outbound: NOTHING, inbound: NOTHING },
    };
    expect(statusText(status)).toBe(`\
state  running for 1 min (process 4711)

TRAFFIC         PACKETS/S NOW  BITS/S NOW  PACKETS  BYTES
to other VMs                0     0 bit/s        0    0 B
from other VMs              0     0 bit/s        0    0 B
1 tunnel: 1 unknown (inlay tunnels lists them)

no drops by Inlay

underlay address    192.168.16.32
overlay address     10.16.32.1
slice               10.16.32.0/24 (10.0.0.0/8 over 192.168.0.0/16)
device              inlay0
MTU                 1,450 bytes: give containers this much or less; the underlay takes 1,500
data plane          kernel
format              vxlan (UDP port 4789)
source check        off, because CAP_BPF is missing
neighbour requests  1,500 answered, 2 refused, 1 not taken by the kernel
kernel entries      compared 1 time, 3 VMs put right`);
  });

  test('the fast path: how much it took, or why it is off', () => {
    const taken = (packets: number) => ({ packets, bytes: 84 * packets });
    const on = { outbound: taken(1_951_000), inbound: taken(22_000), local: taken(7) };
    const rows = (fastPath: NonNullable<Status['fastPath']>) =>
      statusText({ ...WASM, fastPath })
        .split('\n')
        .filter((line) => /^fast path|^ +took/.test(line));
    expect(rows({ state: 'on', containers: 2, ...on })).toEqual([
      'fast path           on for 2 containers',
      '                    took 1,951,000 of 1,951,953 packets to other VMs, 22,000 of 22,360 from them, and 7 between containers',
    ]);
    const nothing = { outbound: taken(0), inbound: taken(0), local: taken(0) };
    expect(rows({ state: 'on', containers: 1, ...nothing })).toEqual(['fast path           on for 1 container']);
    expect(rows({ state: 'off', obstacle: 'CAP_BPF is missing', containers: 0, ...nothing })).toEqual([
      'fast path           off, because CAP_BPF is missing',
    ]);
  });

  test('waiting: what for, and nothing that is not known yet', () => {
    const status: Status = {
      ...{ state: 'waiting', stateSeconds: 3, uptimeSeconds: 3, repaired: 0, pid: 4711, vm: '', overlayAddress: '' },
      troubles: [{ what: 'this machine has no address inside the underlay', hint: 'give it one' }],
      ...{ mappings: [], device: 'inlay0', dataPlane: 'wasm', encapsulation: 'gre', mtu: 0, tunnels: 0 },
      ...{ outbound: NOTHING, inbound: NOTHING },
    };
    expect(statusText(status)).toBe(`\
state    waiting for 3 s (process 4711)
trouble  this machine has no address inside the underlay
         hint: give it one

TRAFFIC         PACKETS/S NOW  BITS/S NOW  PACKETS  BYTES
to other VMs                0     0 bit/s        0    0 B
from other VMs              0     0 bit/s        0    0 B
0 tunnels

no drops by Inlay

device      inlay0
data plane  wasm
format      gre (IP protocol 47)`);
  });

  test('one screen, whatever is dropped', () => {
    const drops = Object.fromEntries(DROP_REASONS.map(({ name }, i) => [name, i + 1]));
    const text = statusText({ ...WASM, outbound: { ...NOTHING, drops }, inbound: { ...NOTHING, drops } });
    expect(text).toContain(`${2 * DROP_REASONS.length - 8} more reasons: inlay status --json`);
    expect(text.split('\n').length).toBeLessThan(45);
  });
});

describe('tunnels', () => {
  const tunnel = (vm: number, rest: Partial<TunnelStatus>): TunnelStatus => ({
    ...{ vm: `192.168.16.${vm}`, slice: `10.16.${vm}.0/24`, mtu: 1476, idleSeconds: 0.04 },
    ...{ outbound: { packets: 1, bytes: 84 }, inbound: { packets: 0, bytes: 0 }, ...rest },
  });

  test('how much the fast path took: all is said only of all', () => {
    const taken = (packets: number) => ({ packets, bytes: 84 * packets });
    const found = [
      tunnel(33, {
        ...{ state: 'heard', heardSeconds: 1, outbound: taken(100), inbound: taken(100) },
        fastPath: { outbound: taken(100), inbound: taken(99) },
      }),
      tunnel(34, { state: 'heard', heardSeconds: 1 }),
    ];
    expect(tunnelsText(found)).toBe(`\
VM             SLICE            MTU  PACKETS OUT  BYTES OUT  PACKETS IN  BYTES IN  FAST %  IDLE s  STATE
192.168.16.33  10.16.33.0/24  1,476          100      8,400         100     8,400      99       0  heard 1 s ago
192.168.16.34  10.16.34.0/24  1,476            1         84           0         0       0       0  heard 1 s ago

FAST %: packets that the fast path took, out and in.`);
  });

  test('VMs in trouble come first; the table says why packets in are fewer', () => {
    const found = [
      tunnel(100, { state: 'heard', heardSeconds: 0.2 }),
      tunnel(33, {
        ...{ state: 'heard', heardSeconds: 75, idleSeconds: 75.04 },
        outbound: { packets: 951_953, bytes: 1_405_082_628 },
        inbound: { packets: 22_360, bytes: 1_405_082_628 },
      }),
      tunnel(34, { state: 'new', unansweredPackets: 2, unansweredSeconds: 1 }),
      tunnel(35, { state: 'new', unansweredPackets: 0, outbound: { packets: 0, bytes: 0 } }),
      tunnel(36, {
        ...{ state: 'silent', unansweredPackets: 1200, unansweredSeconds: 42 },
        ...{ hint: 'does something drop IP protocol 47? Try --encapsulation gre-udp on all VMs', mtu: 1276 },
      }),
      tunnel(37, { state: 'silent', unansweredPackets: 9, unansweredSeconds: 8, heardSeconds: 3600 }),
      tunnel(38, { state: 'unreachable', unreachable: '192.168.16.38 does not answer ARP' }),
    ];
    expect(tunnelsText(found)).toBe(`\
VM              SLICE             MTU  PACKETS OUT      BYTES OUT  PACKETS IN       BYTES IN  IDLE s  STATE
192.168.16.38   10.16.38.0/24   1,476            1             84           0              0       0  unreachable: 192.168.16.38 does not answer ARP
192.168.16.36   10.16.36.0/24   1,276            1             84           0              0       0  silent: 1,200 sent, none received for 42 s; does something drop IP protocol 47? Try --encapsulation gre-udp on all VMs
192.168.16.37   10.16.37.0/24   1,476            1             84           0              0       0  silent: 9 sent, none received for 8 s; heard 1 h ago
192.168.16.34   10.16.34.0/24   1,476            1             84           0              0       0  new: 2 sent, none received yet
192.168.16.35   10.16.35.0/24   1,476            0              0           0              0       0  new
192.168.16.33   10.16.33.0/24   1,476      951,953  1,405,082,628      22,360  1,405,082,628      75  heard 1 min 15 s ago
192.168.16.100  10.16.100.0/24  1,476            1             84           0              0       0  heard 0 s ago

Packets in are fewer than on the wire: the kernel merges them (GRO) before they are counted. Compare bytes.`);
  });

  test('unknown says why', () => {
    expect(tunnelsText([tunnel(33, { state: 'unknown', unknown: 'CAP_BPF is missing' })])).toMatch(
      / unknown: packets are not counted, because CAP_BPF is missing$/,
    );
  });

  test('none', () => {
    expect(tunnelsText([])).toBe('no tunnels: one opens with the first packet to a VM, or from it');
  });
});

test.each([
  [count(1_234_567), '1,234,567'],
  [counted(1, 'tunnel'), '1 tunnel'],
  [counted(0, 'tunnel'), '0 tunnels'],
  [scaled(0, 'B'), '0 B'],
  [scaled(999, 'B'), '999 B'],
  [scaled(999.6, 'B'), '1.00 kB'],
  [scaled(12_345, 'bit/s'), '12.3 kbit/s'],
  [scaled(999_960_000, 'bit/s'), '1.00 Gbit/s'],
  [scaled(5e15, 'B'), '5000 TB'],
  [duration(0), '0 s'],
  [duration(59.6), '1 min'],
  [duration(3599), '59 min 59 s'],
  [duration(3605), '1 h'],
  [duration(90_000), '1 d 1 h'],
])('%s', (found, expected) => expect(found).toBe(expected));
