/** What others do with routes and devices of containers, by the commands of iproute2, and what the slots are then. */
import { container } from './followed.ts';

export const A = '10.16.32.11';
export const B = '10.16.32.12';
export const BASE = { [A]: 'v1', [B]: 'v2' };

/** What others do, what the slots are then, and how it is undone. */
export interface Case {
  name: string;
  sh: string;
  slots: Record<string, string>;
  undo: string;
}

export const routes: Case[] = [
  { name: 'a route goes', sh: `ip route del ${A}`, slots: { [B]: 'v2' }, undo: `ip route add ${A} dev v1` },
  {
    name: "another device's route comes in its place",
    sh: `ip route replace ${A} dev v3`,
    slots: { ...BASE, [A]: 'v3' },
    undo: `ip route replace ${A} dev v1`,
  },
  {
    name: 'two routes lead to one device',
    sh: 'ip route add 10.16.32.13 dev v1',
    slots: { ...BASE, '10.16.32.13': 'v1' },
    undo: 'ip route del 10.16.32.13',
  },
  {
    name: 'another metric comes later',
    sh: `ip route add ${A} dev v2 metric 5`,
    slots: BASE,
    undo: `ip route del ${A} metric 5`,
  },
  {
    name: 'only the route with another metric is left',
    sh: `ip route add ${A} dev v2 metric 5; ip route del ${A} dev v1`,
    slots: { ...BASE, [A]: 'v2' },
    undo: `ip route add ${A} dev v1; ip route del ${A} metric 5`,
  },
  {
    name: 'a tombstone comes behind',
    sh: `ip route append unreachable ${A}`,
    slots: BASE,
    undo: `ip route del unreachable ${A}`,
  },
  {
    name: 'only the tombstone is left',
    sh: `ip route append unreachable ${A}; ip route del ${A} dev v1`,
    slots: { [B]: 'v2' },
    undo: `ip route del unreachable ${A}; ip route add ${A} dev v1`,
  },
  {
    name: 'a type of service has a route of its own',
    sh: `ip route add ${A} dev v2 tos 0x10`,
    slots: { [B]: 'v2' },
    undo: `ip route del ${A} tos 0x10`,
  },
  {
    name: 'a gateway',
    sh: `ip route replace ${A} via 10.16.32.99 dev v1 onlink`,
    slots: { [B]: 'v2' },
    undo: `ip route replace ${A} dev v1`,
  },
  {
    name: 'a gateway of IPv6',
    sh: `ip route replace ${A} via inet6 fe80::1 dev v1`,
    slots: { [B]: 'v2' },
    undo: `ip route replace ${A} dev v1`,
  },
  {
    name: 'several ways',
    sh: `ip route replace ${A} nexthop dev v1 nexthop dev v2`,
    slots: { [B]: 'v2' },
    undo: `ip route replace ${A} dev v1`,
  },
  {
    name: 'an object for the next hop',
    sh: `ip nexthop add id 7 dev v1; ip route replace ${A} nhid 7`,
    slots: { [B]: 'v2' },
    undo: `ip route replace ${A} dev v1; ip nexthop del id 7`,
  },
  {
    name: 'an MTU of the route',
    sh: `ip route replace ${A} dev v1 mtu 1000`,
    slots: { [B]: 'v2' },
    undo: `ip route replace ${A} dev v1`,
  },
  {
    name: 'a route for more than one address',
    sh: `ip route del ${A}; ip route add 10.16.32.10/31 dev v1`,
    slots: { [B]: 'v2' },
    undo: `ip route del 10.16.32.10/31; ip route add ${A} dev v1`,
  },
  {
    name: 'an address that no container can have',
    sh: 'ip route add 10.16.32.1 dev v1; ip route add 10.16.32.0/32 dev v1; ip route add 10.16.32.255 dev v1; ip route add 10.16.33.9 dev v1',
    slots: BASE,
    undo: 'for to in 10.16.32.1 10.16.32.0/32 10.16.32.255 10.16.33.9; do ip route del $to; done',
  },
  {
    name: 'a route of another table',
    sh: `ip route add ${A} dev v2 table 7`,
    slots: BASE,
    undo: `ip route del ${A} table 7`,
  },
  {
    name: 'this machine has the address',
    sh: `ip address add ${A}/32 dev lo`,
    slots: { [B]: 'v2' },
    undo: `ip address del ${A}/32 dev lo`,
  },
  {
    name: 'this machine has all addresses',
    // With a rule, as a daemon makes them, table local comes first; else both tables are one for the kernel.
    sh: 'ip rule add to 10.0.0.0/8 priority 32700 lookup main; ip route add local 10.16.32.0/25 dev lo',
    slots: {},
    undo: 'ip route del local 10.16.32.0/25 dev lo; ip rule del priority 32700',
  },
  {
    name: 'the source of a route goes, and the route with it',
    sh: `ip address add 10.16.32.1/32 dev lo; ip route replace ${A} dev v1 src 10.16.32.1; ip address del 10.16.32.1/32 dev lo`,
    slots: { [B]: 'v2' },
    undo: `ip route add ${A} dev v1`,
  },
  {
    name: 'no veth',
    sh: `ip tuntap add t1 mode tun; ip link set t1 up; ip route replace ${A} dev t1`,
    slots: { [B]: 'v2' },
    undo: `ip route replace ${A} dev v1; ip link del t1`,
  },
  {
    name: 'a veth that leads back',
    sh: `ip link add w1 type veth peer name w2; ip link set w1 up; ip link set w2 up; ip route replace ${A} dev w1`,
    slots: { [B]: 'v2' },
    undo: `ip route replace ${A} dev v1; ip link del w1`,
  },
];

export const devices: Case[] = [
  {
    name: 'set down',
    sh: 'ip link set v1 down',
    slots: { [B]: 'v2' },
    undo: `ip link set v1 up; ip route add ${A} dev v1`,
  },
  {
    name: 'set down and up again, without its route',
    sh: 'ip link set v1 down; ip link set v1 up',
    slots: { [B]: 'v2' },
    undo: `ip route add ${A} dev v1`,
  },
  {
    name: 'renamed',
    sh: 'ip link set v1 name other',
    slots: { ...BASE, [A]: 'other' },
    undo: 'ip link set other name v1',
  },
  {
    name: 'a part of a bridge',
    sh: 'ip link add br0 type bridge; ip link set v1 master br0',
    slots: { [B]: 'v2' },
    undo: 'ip link del br0',
  },
  {
    name: 'with another end that is part of a bridge',
    sh: 'ip -n c1 link add br0 type bridge; ip -n c1 link set eth0 master br0; ip link set v1 mtu 1400',
    slots: { [B]: 'v2' },
    undo: 'ip -n c1 link del br0; ip link set v1 mtu 1500',
  },
  {
    name: 'deleted',
    sh: 'ip link del v1',
    slots: { [B]: 'v2' },
    undo: `${container(1)}; ip route add ${A} dev v1`,
  },
  {
    name: 'deleted, with another route behind it',
    sh: `ip route add ${A} dev v3 metric 5; ip link del v1`,
    slots: { ...BASE, [A]: 'v3' },
    undo: `ip route del ${A}; ${container(1)}; ip route add ${A} dev v1`,
  },
  {
    name: 'deleted, and another made at its place at once',
    sh: `ip link del v1; ip link add v1 type veth peer name eth1 netns c3; ip link set v1 up; ip route add ${A} dev v1`,
    slots: BASE,
    undo: `ip link del v1; ${container(1)}; ip route add ${A} dev v1`,
  },
  {
    name: 'in another namespace',
    sh: 'ip link set v1 netns c3',
    slots: { [B]: 'v2' },
    undo: `ip -n c3 link del v1; ${container(1)}; ip route add ${A} dev v1`,
  },
  {
    name: 'with its container gone',
    sh: 'ip netns del c1',
    slots: { [B]: 'v2' },
    undo: `while ip link show dev v1 >/dev/null 2>&1; do sleep 0.05; done; ip netns add c1; ${container(1)}; ip route add ${A} dev v1`,
  },
  {
    name: 'with its other end moved here',
    sh: 'ip -n c1 link set eth0 name back netns 1; ip link set back up',
    slots: { [B]: 'v2' },
    undo: `ip link del v1; ${container(1)}; ip route add ${A} dev v1`,
  },
  {
    name: 'with its other end moved into another container',
    sh: 'ip -n c1 link set eth0 name back netns c3; ip -n c3 link set back up',
    slots: BASE,
    undo: `ip link del v1; ${container(1)}; ip route add ${A} dev v1`,
  },
];

export const others: Case[] = [
  {
    name: 'a discipline that limits',
    sh: 'tc qdisc add dev v1 root tbf rate 10mbit burst 10k latency 50ms',
    slots: { [B]: 'v2' },
    undo: 'tc qdisc del dev v1 root',
  },
  {
    name: 'a filter for incoming packets before ours',
    sh: 'tc filter add dev v1 ingress prio 5 bpf bytecode "1,6 0 0 0,"',
    slots: { [B]: 'v2' },
    undo: 'tc filter del dev v1 ingress prio 5',
  },
  {
    name: 'a filter for outgoing packets',
    sh: 'tc filter add dev v1 egress prio 73 protocol ip u32 match u32 0 0',
    slots: { [B]: 'v2' },
    undo: 'tc filter del dev v1 egress prio 73',
  },
];
