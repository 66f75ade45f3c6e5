/** What is in the way of the fast path: each kind comes and goes, and is told at once where that matters; and what is none. */
import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import { RULE_SETS } from '../netfilter/rule-sets.ts';
import { XDP } from './followed.ts';
import { missing, skip } from './require.ts';
import { PATIENCE } from './vms.ts';

const OBSTACLES = fileURLToPath(new URL('./obstacles.mjs', import.meta.url));

interface Look {
  uplink?: { name: string; nextHop?: string | number };
  obstacle?: { what: string; mayGoPast: boolean };
  /** Whether it was made because something was heard. */
  isHeard: boolean;
}

/** A VM 192.168.16.32 with eth0, to which a process of its own looks. */
class Vm {
  readonly #lab: Lab;
  readonly #name: string;
  readonly #looker: ChildProcess;
  readonly heard: Look[] = [];
  #answer: ((look: Look) => void) | undefined;

  private constructor(lab: Lab, name: string, config: object) {
    this.#lab = lab;
    this.#name = name;
    this.#looker = lab.start(name, [process.execPath, OBSTACLES, JSON.stringify(config)], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    createInterface({ input: this.#looker.stdout as NodeJS.ReadableStream }).on('line', (line) => {
      const look: Look = JSON.parse(line);
      if (look.isHeard) this.heard.push(look);
      else this.#answer?.(look);
    });
  }

  static async open(lab: Lab, name: string, config: object = {}): Promise<Vm> {
    await lab.ip(undefined, [`netns add ${name}`, `netns add ${name}w`]);
    await lab.must(name, [
      'sh',
      '-ec',
      `ip link set lo up; ip tuntap add inlay0 mode tun; ip link set inlay0 up; sysctl -qw net.ipv4.conf.inlay0.forwarding=1
      for i in 0 1; do ip link add eth$i type veth peer name wire$i netns ${name}w; ip -n ${name}w link set wire$i up; ip link set eth$i up; done
      ip address add 192.168.16.32/16 dev eth0`,
    ]);
    const vm = new Vm(lab, name, config);
    await vm.look();
    return vm;
  }

  sh(script: string): Promise<string> {
    return this.#lab.must(this.#name, ['sh', '-ec', script]);
  }

  look(): Promise<Look> {
    return new Promise((resolve) => {
      this.#answer = resolve;
      this.#looker.stdin?.write('\n');
    });
  }

  /** Waits until this is what a look finds. */
  async finds(what: RegExp | undefined, mayGoPast?: boolean): Promise<void> {
    const found = async () => (await this.look()).obstacle;
    if (what === undefined) await expect.poll(found).toBeUndefined();
    else
      await expect
        .poll(found)
        .toEqual({ what: expect.stringMatching(what), mayGoPast: mayGoPast ?? expect.any(Boolean) });
  }

  /** Some looks find nothing, the first of which has seen all that there is. */
  async findsNothing(): Promise<void> {
    await this.finds(undefined);
    for (let i = 0; i < 3; i++) expect((await this.look()).obstacle).toBeUndefined();
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.#looker.once('exit', resolve));
    this.#looker.stdin?.end();
    await ended;
  }
}

interface Case {
  name: string;
  make: string;
  undo: string;
  /** What is found; nothing if it is left out. */
  what?: RegExp;
  mayGoPast?: boolean;
}

const nft = (text: string) => `nft -f - <<'E'\n${text}\nE`;
const forward = (...rules: string[]) =>
  nft(
    `table inet f { chain c { type filter hook forward priority 0; ${rules.map((each) => `${each};`).join(' ')} }; }`,
  );
const FLUSH = 'nft flush ruleset';
const ofContainers = /^the chain inet f c of nftables may do something to packets of containers to other VMs$/;
const between = (a: string, b: string) =>
  `ip xfrm policy add dir out src ${a} dst ${b} tmpl src 1.1.1.1 dst 2.2.2.2 proto esp mode tunnel`;
const bytecode = "bpf bytecode '1,6 0 0 4294967295'";
const clsact = (place: string) => `tc qdisc add dev eth0 clsact; tc filter add dev eth0 ${place} pref 5 ${bytecode}`;
const setOf = (name: string) => (RULE_SETS.find((each) => each.name === name) ?? { script: 'false' }).script;

const ROUTES: Case[] = [
  {
    name: 'a route inside the underlay by another device',
    ...{ make: 'ip route add 192.168.122.0/24 dev eth1', undo: 'ip route del 192.168.122.0/24' },
    ...{ what: /^not all of 192\.168\.0\.0\/16 .* route 192\.168\.122\.0\/24 dev eth1/, mayGoPast: false },
  },
  {
    name: 'several devices for one route',
    make: 'ip route add 192.168.128.0/17 nexthop dev eth0 nexthop dev eth1',
    ...{ undo: 'ip route del 192.168.128.0/17', what: /^not all of/, mayGoPast: false },
  },
  {
    name: 'a route that refuses',
    ...{ make: 'ip route add unreachable 192.168.17.0/24', undo: 'ip route del unreachable 192.168.17.0/24' },
    ...{ what: /^not all of .* unreachable 192\.168\.17\.0\/24/, mayGoPast: false },
  },
  {
    name: 'a route into a tunnel of its own',
    make: 'ip route add 192.168.17.0/24 encap ip id 5 dst 192.168.16.33 dev eth0',
    ...{ undo: 'ip route del 192.168.17.0/24', what: /^not all of/, mayGoPast: false },
  },
  {
    name: 'no route at all',
    ...{ make: 'ip link set eth0 down', undo: 'ip link set eth0 up' },
    ...{ what: /^no route leads to other VMs$/, mayGoPast: false },
  },
  {
    name: 'two routes to the underlay, the better one by the uplink',
    make: 'ip link set eth1 up; ip route add 192.168.0.0/16 dev eth1 metric 9',
    undo: 'ip route del 192.168.0.0/16 dev eth1',
  },
  { name: 'a router', make: 'ip route add 192.168.17.0/24 via 192.168.0.1', undo: 'ip route del 192.168.17.0/24' },
  { name: 'a default route by another device', make: 'ip route add default dev eth1', undo: 'ip route del default' },
  {
    name: 'a route of others that hides VMs',
    ...{ make: 'ip route add 10.17.0.0/16 dev eth1', undo: 'ip route del 10.17.0.0/16' },
    ...{ what: /^a route of others hides VMs: 10\.17\.0\.0\/16/, mayGoPast: true },
  },
];

const RULES: Case[] = [
  {
    name: 'a rule with a table that leads elsewhere',
    make: 'ip route add default dev eth1 table 100; ip rule add pref 100 from 192.168.16.32 lookup 100',
    undo: 'ip rule del pref 100; ip route flush table 100',
    ...{ what: /^not all of 192\.168\.0\.0\/16 is reached by eth1/, mayGoPast: false },
  },
  {
    name: 'a rule with a table that leads some packets elsewhere',
    make: 'ip route add 192.168.17.0/24 dev eth1 table 100; ip rule add pref 100 lookup 100',
    undo: 'ip rule del pref 100; ip route flush table 100',
    ...{ what: /priority 100 .*192\.168\.0\.0\/16 elsewhere/, mayGoPast: false },
  },
  {
    name: "a rule for containers' packets",
    make: 'ip route add default dev eth1 table 100; ip rule add pref 100 from 10.16.32.0/24 lookup 100',
    undo: 'ip rule del pref 100; ip route flush table 100',
    ...{ what: /priority 100 .*10\.0\.0\.0\/8 elsewhere/, mayGoPast: false },
  },
  {
    name: 'a rule that refuses',
    ...{ make: 'ip rule add pref 100 to 192.168.17.0/24 prohibit', undo: 'ip rule del pref 100' },
    ...{ what: /priority 100/, mayGoPast: false },
  },
  {
    name: 'a table with a large number',
    make: 'ip route add 192.168.17.0/24 dev eth1 table 100000; ip rule add pref 100 lookup 100000',
    undo: 'ip rule del pref 100; ip route flush table 100000',
    ...{ what: /priority 100/, mayGoPast: false },
  },
  {
    name: 'a rule with a table that has nothing to do with the mesh',
    make: 'ip route add 100.64.0.0/10 dev eth1 table 52; ip rule add pref 5270 lookup 52',
    undo: 'ip rule del pref 5270; ip route flush table 52',
  },
  {
    name: 'a rule with a table that leads by the same device',
    make: 'ip route add 192.168.0.0/16 dev eth0 table 100; ip route add default dev eth0 table 100; ip rule add pref 100 from 192.168.16.32 lookup 100',
    undo: 'ip rule del pref 100; ip route flush table 100',
  },
  {
    name: 'rules for marked packets, for other addresses and for another device',
    make: 'ip route add default dev eth1 table 100; ip rule add pref 100 fwmark 5 lookup 100; ip rule add pref 101 from 172.16.0.0/12 lookup 100; ip rule add pref 102 oif eth1 lookup 100',
    undo: 'for i in 100 101 102; do ip rule del pref $i; done; ip route flush table 100',
  },
  {
    name: 'the rules of wg-quick, as long as table main has a route',
    make: 'ip route add default dev eth1 table 51820; ip rule add pref 32765 not fwmark 51820 lookup 51820; ip rule add pref 32764 lookup main suppress_prefixlength 0; ip rule add pref 32700 to 10.0.0.0/8 lookup main suppress_prefixlength 7 protocol 75; ip rule add pref 32701 to 10.0.0.0/8 unreachable protocol 75',
    undo: 'for i in 32700 32701 32764 32765; do ip rule del pref $i; done; ip route flush table 51820',
  },
];

const IPSEC: Case[] = [
  {
    name: "a policy about containers' packets",
    make: between('10.0.0.0/8', '10.17.0.0/16'),
    undo: 'ip xfrm policy flush',
    what: /^a policy of IPsec is about packets from 10\.0\.0\.0\/8 to 10\.17\.0\.0\/16$/,
    mayGoPast: false,
  },
  {
    name: 'a policy about all packets',
    make: between('0.0.0.0/0', '0.0.0.0/0'),
    undo: 'ip xfrm policy flush',
    what: /IPsec/,
    mayGoPast: false,
  },
  {
    name: 'a policy about outer packets',
    make: `${between('192.168.16.32', '192.168.17.0/24')}; true`,
    undo: 'ip xfrm policy flush',
    what: /IPsec/,
    mayGoPast: false,
  },
  {
    name: 'a default policy',
    make: 'ip xfrm policy setdefault out block',
    undo: 'ip xfrm policy setdefault out accept',
    what: /^IPsec drops packets/,
    mayGoPast: false,
  },
  {
    name: 'a policy about other packets',
    make: between('172.16.0.0/16', '172.17.0.0/16'),
    undo: 'ip xfrm policy flush',
  },
  {
    name: 'a policy about other protocols between VMs',
    make: 'ip xfrm policy add dir out src 192.168.0.0/16 dst 192.168.0.0/16 proto tcp tmpl src 1.1.1.1 dst 2.2.2.2 proto esp mode tunnel',
    undo: 'ip xfrm policy flush',
  },
  {
    name: 'a policy that lets packets pass as they are',
    make: 'ip xfrm policy add dir out src 192.168.0.0/16 dst 192.168.0.0/16',
    undo: 'ip xfrm policy flush',
  },
  {
    name: 'a policy about marked packets',
    make: `${between('0.0.0.0/0', '0.0.0.0/0')} mark 5 mask 0xff`.replace(/ tmpl(.*) mark (.*)$/, ' mark $2 tmpl$1'),
    undo: 'ip xfrm policy flush',
  },
];

const FIREWALLS: Case[] = [
  { name: 'a policy that drops', make: forward('policy drop'), undo: FLUSH, what: ofContainers, mayGoPast: true },
  {
    name: 'a rule that drops what is out of order',
    make: forward('ct state invalid drop'),
    undo: FLUSH,
    what: ofContainers,
  },
  { name: 'a rule that may drop', make: forward('ip ttl 3 drop'), undo: FLUSH, what: ofContainers },
  { name: 'a rule that logs', make: forward('ip saddr 10.0.0.0/8 log'), undo: FLUSH, what: ofContainers },
  { name: 'a rule that counts', make: forward('ip saddr 10.16.32.5 counter'), undo: FLUSH, what: ofContainers },
  { name: 'a rule that changes', make: forward('ip dscp set 8'), undo: FLUSH, what: ofContainers },
  { name: 'a rule that limits', make: forward('limit rate 5/second accept'), undo: FLUSH, what: ofContainers },
  {
    name: 'accepting one way only',
    make: forward('policy drop', 'oifname "inlay0" accept', 'iifname "inlay0" accept'),
    undo: FLUSH,
    what: /packets between containers of this VM$/,
  },
  {
    name: 'a set that may grow',
    make: nft(
      'table inet f { set s { type ipv4_addr; flags timeout; }; chain c { type filter hook forward priority 0; ip saddr @s drop; }; }',
    ),
    undo: FLUSH,
    what: ofContainers,
  },
  {
    name: 'a set with a container',
    make: nft(
      'table inet f { set s { type ipv4_addr; elements = { 10.16.32.9 }; }; chain c { type filter hook forward priority 0; ip saddr @s drop; }; }',
    ),
    undo: FLUSH,
    what: ofContainers,
  },
  {
    name: 'tunnels that are dropped',
    make: nft(
      'table ip f { chain c { type filter hook input priority 0; ip protocol gre ip saddr 192.168.16.33 drop; }; }',
    ),
    undo: FLUSH,
    what: /^the chain ip f c of nftables may do something to packets of other VMs$/,
  },
  {
    name: 'tunnels that are marked',
    make: nft('table ip f { chain c { type route hook output priority 0; ip daddr 192.168.16.33 meta mark set 5; }; }'),
    undo: FLUSH,
    what: /packets to other VMs$/,
  },
  {
    name: 'a chain behind the uplink',
    make: nft('table netdev f { chain c { type filter hook ingress device eth0 priority 0; ip ttl 3 drop; }; }'),
    undo: FLUSH,
    what: /^the chain netdev f c of nftables is at eth0$/,
    mayGoPast: true,
  },
  {
    name: 'a chain before the uplink',
    make: nft('table netdev f { chain c { type filter hook egress device eth0 priority 0; ip ttl 3 drop; }; }'),
    undo: FLUSH,
    what: /is at eth0$/,
  },
  {
    name: 'segment sizes that are changed',
    make: 'iptables -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu',
    undo: FLUSH,
    what: /^the chain FORWARD of iptables \(table mangle\)/,
  },
  { name: 'ufw', make: setOf('ufw'), undo: FLUSH, what: /^the chain INPUT of iptables/ },
  { name: 'docker', make: setOf('docker'), undo: FLUSH, what: /^the chain FORWARD of iptables/ },
  {
    name: 'kube-proxy, which drops what is out of order',
    make: setOf('kube-proxy'),
    undo: FLUSH,
    what: /^the chain FORWARD of iptables/,
  },

  {
    name: 'chains without rules',
    make: nft(
      'table inet filter { chain input { type filter hook input priority filter; }; chain forward { type filter hook forward priority filter; }; chain output { type filter hook output priority filter; }; }',
    ),
    undo: FLUSH,
  },
  {
    name: 'rules for other devices and addresses',
    make: forward(
      'iifname "docker0" drop',
      'oifname "docker0" counter',
      'ip saddr 172.17.0.0/16 log drop',
      'ip daddr 192.168.5.0/24 drop',
    ),
    undo: FLUSH,
  },
  {
    name: 'a policy that drops, but not ours',
    make: forward('policy drop', 'ip saddr 10.0.0.0/8 counter accept'),
    undo: FLUSH,
  },
  {
    name: 'a set that is empty',
    make: nft(
      'table inet f { set s { type ipv4_addr; }; chain c { type filter hook forward priority 0; ip saddr @s drop; }; }',
    ),
    undo: FLUSH,
  },
  {
    name: 'a firewall for this VM itself',
    make: nft(
      'table inet f { chain c { type filter hook input priority 0; policy drop; iif lo accept; ip protocol gre accept; udp dport 4754 accept; ct state established,related accept; ct state invalid drop; tcp dport 22 accept; }; }',
    ),
    undo: FLUSH,
  },
  { name: 'docker, with a policy that accepts', make: setOf('docker, with a policy of ACCEPT'), undo: FLUSH },
  {
    name: 'masquerading',
    make: 'iptables -t nat -A POSTROUTING -s 10.16.32.0/24 ! -d 10.0.0.0/8 -j MASQUERADE',
    undo: FLUSH,
  },
  { name: 'untracked tunnels', make: 'iptables -t raw -A PREROUTING -p gre -j CT --notrack', undo: FLUSH },
  {
    name: 'a table that sleeps',
    make: `${forward('policy drop')}\nnft add table inet f '{ flags dormant; }'`,
    undo: FLUSH,
  },
  {
    name: 'a chain at another device',
    make: nft('table netdev f { chain c { type filter hook ingress device eth1 priority 0; policy drop; }; }'),
    undo: FLUSH,
  },
  {
    name: 'chains for IPv6 and bridges',
    make: nft(
      'table ip6 f { chain c { type filter hook forward priority 0; policy drop; }; }\ntable bridge f { chain c { type filter hook forward priority 0; policy drop; }; }',
    ),
    undo: FLUSH,
  },
  {
    name: 'what Inlay itself makes',
    make: nft(
      'table ip inlay-inlay0 { chain c { type filter hook prerouting priority -450; ip saddr 10.0.0.0/8 drop; }; }',
    ),
    undo: FLUSH,
  },
];

const nat = (hook: string, ...rules: string[]) =>
  nft(
    `table ip ${hook === 'output' ? 'o' : 'n'} { chain c { type nat hook ${hook} priority 0; ${rules.map((each) => `${each};`).join(' ')} }; }`,
  );
const leadsBack = /^the chain ip n c of nftables may lead packets of containers to other containers$/;

const TRANSLATIONS: Case[] = [
  {
    name: 'a service with a container of this VM',
    make: nat('prerouting', 'ip daddr 172.30.0.1 tcp dport 80 dnat to 10.16.32.91:8080'),
    ...{ undo: FLUSH, what: leadsBack, mayGoPast: true },
  },
  {
    name: 'a service with a container of another VM',
    make: nat('prerouting', 'ip daddr 172.30.0.1 dnat to 10.17.0.91'),
    ...{ undo: FLUSH, what: leadsBack },
  },
  {
    name: 'a service with several containers',
    make: nat('prerouting', 'ip daddr 172.30.0.1 dnat to numgen inc mod 2 map { 0 : 10.16.32.91, 1 : 10.16.32.92 }'),
    ...{ undo: FLUSH, what: leadsBack },
  },
  {
    name: 'a published port',
    make: nat('prerouting', 'fib daddr type local tcp dport 80 dnat to 10.16.32.91'),
    ...{ undo: FLUSH, what: leadsBack },
  },
  {
    name: "a service by iptables, for other VMs' containers, too",
    make: 'iptables -t nat -N S; iptables -t nat -A PREROUTING -i inlay0 -j S; iptables -t nat -A S -p tcp --dport 80 -j DNAT --to-destination 10.16.32.91:80',
    undo: FLUSH,
    what: /^the chain PREROUTING of iptables \(table nat\) may do something to packets of other VMs to containers$/,
  },
  {
    name: 'a service at an address of this VM, for containers of other VMs',
    make: 'iptables -t nat -A PREROUTING -i inlay0 -m addrtype --dst-type LOCAL -j DNAT --to-destination 10.16.32.91',
    undo: FLUSH,
    what: /^the chain PREROUTING of iptables \(table nat\) may lead packets of other VMs to other containers$/,
  },
  {
    name: 'one source for packets between containers of this VM',
    make: nat('postrouting', 'ip saddr 10.16.32.0/24 oifname != "inlay0" masquerade'),
    undo: FLUSH,
    what: /^the chain ip n c of nftables may do something to packets of other VMs to containers$/,
  },
  {
    name: 'one source for packets to other VMs',
    make: nat('postrouting', 'oifname "inlay0" masquerade'),
    ...{ undo: FLUSH, what: /^the chain ip n c of nftables may do something to packets of containers to other VMs$/ },
  },
  {
    name: 'marks',
    make: nat('prerouting', 'ip saddr 10.16.32.91 meta mark set 5'),
    ...{ undo: FLUSH, what: /^the chain ip n c of nftables may do something/ },
  },
  {
    name: 'a service outside the mesh',
    make: nat('prerouting', 'ip daddr 172.30.0.1 tcp dport 80 dnat to 172.17.0.2:8080'),
    undo: FLUSH,
  },
  {
    name: 'a service of this VM itself',
    make: nat('prerouting', 'ip daddr 172.30.0.1 tcp dport 80 redirect to :8080'),
    undo: FLUSH,
  },
  {
    name: 'a published port of a container outside the mesh',
    make: nat('prerouting', 'fib daddr type local tcp dport 80 dnat to 172.17.0.2:8080'),
    undo: FLUSH,
  },
  {
    name: 'what this VM itself sends, and what comes from outside',
    make: `${nat('output', 'ip daddr 172.30.0.1 dnat to 10.16.32.91')}\n${nat('prerouting', 'iifname "eth0" tcp dport 80 dnat to 10.16.32.91')}`,
    undo: FLUSH,
  },
  {
    name: 'one source for what leaves the mesh',
    make: nat('postrouting', 'ip saddr 10.16.32.0/24 ip daddr != 10.0.0.0/8 masquerade', 'oifname "eth0" masquerade'),
    undo: FLUSH,
  },
];

const ATTACHED: Case[] = [
  {
    name: 'a filter where packets come in',
    make: clsact('ingress'),
    undo: 'tc qdisc del dev eth0 clsact',
    what: /^eth0 has a filter of others at its ingress/,
    mayGoPast: true,
  },
  { name: 'a filter where packets leave', make: clsact('egress'), undo: 'tc qdisc del dev eth0 clsact' },
  {
    name: 'a discipline without filters',
    make: 'tc qdisc add dev eth0 ingress',
    undo: 'tc qdisc del dev eth0 ingress',
  },
  {
    name: 'a discipline of the uplink',
    make: 'tc qdisc add dev eth0 root tbf rate 1gbit burst 1m latency 50ms',
    undo: 'tc qdisc del dev eth0 root',
  },
  {
    name: "a discipline of the overlay's device",
    make: 'tc qdisc add dev inlay0 root tbf rate 1mbit burst 10k latency 5ms',
    undo: 'tc qdisc del dev inlay0 root',
    what: /^inlay0 has the discipline tbf/,
    mayGoPast: true,
  },
  {
    name: "a filter at the overlay's device",
    make: clsact('egress').replaceAll('eth0', 'inlay0'),
    undo: 'tc qdisc del dev inlay0 clsact',
    what: /^inlay0 has a filter of others at its egress/,
    mayGoPast: true,
  },
  {
    name: 'an XDP program',
    make: `${process.execPath} "${XDP}" $(cat /sys/class/net/eth0/ifindex)`,
    undo: `${process.execPath} "${XDP}" $(cat /sys/class/net/eth0/ifindex) off`,
    what: /^eth0 has an XDP program$/,
    mayGoPast: true,
  },
  {
    name: 'merging into lists',
    make: 'ethtool -K eth0 rx-gro-list on',
    undo: 'ethtool -K eth0 rx-gro-list off',
    what: /^rx-gro-list of eth0 is on/,
    mayGoPast: false,
  },
  {
    name: 'no forwarding',
    make: 'sysctl -qw net.ipv4.conf.inlay0.forwarding=0',
    undo: 'sysctl -qw net.ipv4.conf.inlay0.forwarding=1',
    what: /^net\.ipv4\.conf\.inlay0\.forwarding is 0$/,
    mayGoPast: false,
  },
];

const reason = await missing('nft', 'iptables', 'iptables-legacy', 'tc', 'sysctl', 'ethtool');
describe.skipIf(skip('obstacles of the fast path', reason))('obstacles of the fast path', () => {
  let lab: Lab;
  const vms: Vm[] = [];
  const open = async (name: string, config?: object) => {
    const vm = await Vm.open(lab, name, config);
    vms.push(vm);
    return vm;
  };
  beforeAll(async () => {
    lab = await Lab.open();
  });
  afterAll(async () => {
    for (const vm of vms) await vm.close();
    await lab?.close();
  });

  describe.each(Object.entries({ ROUTES, RULES, IPSEC, FIREWALLS, TRANSLATIONS, ATTACHED }))('%s', (group, cases) => {
    let vm: Vm;
    beforeAll(async () => {
      vm = await open(group.toLowerCase());
    });

    test.each(cases)('$name', async ({ make, undo, what, mayGoPast }) => {
      await vm.findsNothing();
      try {
        await vm.sh(make);
        if (what === undefined) await vm.findsNothing();
        else await vm.finds(what, mayGoPast);
      } finally {
        await vm.sh(undo);
      }
      await vm.findsNothing();
    });
  });

  describe('are told at once', () => {
    let vm: Vm;
    beforeAll(async () => {
      vm = await open('told', { receives: ['gre'] });
    });

    /** What was told last, without a look. */
    const told = () => vm.heard.at(-1)?.obstacle?.what;

    test('policies of IPsec', async () => {
      await vm.sh(between('10.0.0.0/8', '10.0.0.0/8'));
      await expect.poll(told).toMatch(/^a policy of IPsec/);
      await vm.sh('ip xfrm policy flush');
      await expect.poll(told).toBeUndefined();
    });

    test('a policy of IPsec right behind a rule', async () => {
      for (let i = 0; i < 10; i++) {
        await vm.sh(`${forward('policy drop')}\n${between('10.0.0.0/8', '10.0.0.0/8')}`);
        await expect.poll(told).toMatch(/^a policy of IPsec/);
        await vm.sh(`ip xfrm policy flush; ${FLUSH}`);
        await expect.poll(told).toBeUndefined();
      }
    });

    test('rule sets of nftables', async () => {
      await vm.sh(forward('policy drop'));
      await expect.poll(told).toMatch(ofContainers);
      await vm.sh(FLUSH);
      await expect.poll(told).toBeUndefined();
    });

    test('a format that is not taken may be dropped', async () => {
      await vm.sh(
        nft('table inet f { chain c { type filter hook input priority 0; policy drop; ip protocol gre accept; }; }'),
      );
      await vm.findsNothing();
      await vm.sh(FLUSH);
    });

    test('of several, one that packets may not go past', async () => {
      await vm.sh(`${forward('policy drop')}\nip route add blackhole 192.168.17.0/24`);
      await vm.finds(/^not all of/, false);
      await vm.sh('ip route del blackhole 192.168.17.0/24');
      await vm.finds(ofContainers, true);
      await vm.sh(FLUSH);
      await vm.findsNothing();
    });
  });

  test('a change whose turn comes late is in the way until then', async () => {
    const late = await open('late');
    const chain = `echo "chain c$i { type filter hook forward priority 0;"; yes 'ip saddr 172.31.0.0/16 drop' | head -1000; echo '}'`;
    await late.sh(`{ echo 'table inet many {'; for i in $(seq 5); do ${chain}; done; echo '}'; } | nft -f -`);
    await late.finds(undefined);
    await late.sh(forward('policy drop'));
    const seen: (string | undefined)[] = [];
    await expect
      .poll(async () => seen[seen.push((await late.look()).obstacle?.what) - 1], { ...PATIENCE, timeout: 100_000 })
      .toMatch(ofContainers);
    expect(seen).toContain('rule sets of nftables and iptables are being looked through');
  });

  describe('tables of iptables-legacy', () => {
    // They stay as long as their namespace does.
    test('that only accept are none, and others are', async () => {
      const vm = await open('legacy');
      await vm.sh(
        'iptables-legacy -P FORWARD ACCEPT; iptables-legacy -t mangle -S; iptables-legacy -t nat -A POSTROUTING -o eth0 -j MASQUERADE',
      );
      await vm.findsNothing();
      await vm.sh('iptables-legacy -A FORWARD -i docker0 -j DROP');
      await vm.findsNothing();
      await vm.sh('iptables-legacy -A FORWARD -d 10.17.0.0/16 -j DROP');
      await vm.finds(
        /^the chain FORWARD of iptables-legacy may do something to packets of containers to other VMs$/,
        true,
      );
      await vm.sh('iptables-legacy -F FORWARD');
      await vm.findsNothing();
      await vm.sh('iptables-legacy -t mangle -A OUTPUT -d 192.168.16.33 -j MARK --set-mark 1');
      await vm.finds(
        /^the chain OUTPUT of iptables-legacy \(table mangle\) may do something to packets to other VMs$/,
        true,
      );
      await vm.sh('iptables-legacy -t mangle -F OUTPUT; iptables-legacy -t nat -F POSTROUTING');
      await vm.sh('iptables-legacy -t nat -A PREROUTING -d 172.30.0.1 -p tcp --dport 80 -j DNAT --to 172.17.0.2');
      await vm.findsNothing();
      await vm.sh('iptables-legacy -t nat -A PREROUTING -d 172.30.0.1 -p tcp --dport 80 -j DNAT --to 10.17.0.91:8080');
      await vm.finds(
        /^the chain PREROUTING of iptables-legacy \(table nat\) may lead packets of containers to other containers$/,
        true,
      );
    });
  });

  test.each([
    [{ greChecksum: true }, 'gre-checksum is on'],
    [{ greSequence: true }, 'gre-sequence is on'],
    [{ pathMtuDiscovery: false }, 'path-mtu-discovery is off'],
  ])('the setting %j', async (config, what) => {
    const vm = await open(`s${vms.length}`, config);
    expect((await vm.look()).obstacle).toEqual({ what, mayGoPast: false });
  });
});
