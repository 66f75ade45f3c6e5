/** Rule sets as they are met, for a VM 192.168.16.32 with the device inlay0 and a container behind veth90, and what is to be said of each. */

export interface RuleSet {
  name: string;
  /** Commands for a shell in a network namespace of its own. */
  script: string;
  /** What is said, in this order: `what` and `hint` have these words. None: nothing is said. */
  said?: { what: RegExp; hint: RegExp }[];
  /** The VM's underlay address is not the first of its device. */
  isSecondary?: boolean;
  outer?: 'gre-udp';
}

const dropped = /drops packets between containers and other VMs/;
const chainsOf = (...names: string[]) => names.map((name) => `-N ${name}`).join('\n');
const restore = (table: string, ...lines: string[]) =>
  `iptables-restore --noflush <<'E'\n*${table}\n${lines.join('\n')}\nCOMMIT\nE`;

/** What dockerd 26 makes for its bridge, with a container that publishes a port. */
const DOCKER = [
  restore(
    'filter',
    ':FORWARD DROP',
    chainsOf('DOCKER', 'DOCKER-ISOLATION-STAGE-1', 'DOCKER-ISOLATION-STAGE-2', 'DOCKER-USER'),
    '-A FORWARD -j DOCKER-USER',
    '-A FORWARD -j DOCKER-ISOLATION-STAGE-1',
    '-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    '-A FORWARD -o docker0 -j DOCKER',
    '-A FORWARD -i docker0 ! -o docker0 -j ACCEPT',
    '-A FORWARD -i docker0 -o docker0 -j ACCEPT',
    '-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT',
    '-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2',
    '-A DOCKER-ISOLATION-STAGE-1 -j RETURN',
    '-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP',
    '-A DOCKER-ISOLATION-STAGE-2 -j RETURN',
    '-A DOCKER-USER -j RETURN',
  ),
  restore(
    'nat',
    chainsOf('DOCKER'),
    '-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER',
    '-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER',
    '-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE',
    '-A POSTROUTING -s 172.17.0.2/32 -d 172.17.0.2/32 -p tcp -m tcp --dport 80 -j MASQUERADE',
    '-A DOCKER -i docker0 -j RETURN',
    '-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80',
  ),
].join('\n');

/** The parts of ufw's own rules that our packets pass. */
const UFW = restore(
  'filter',
  ':INPUT DROP',
  ':FORWARD DROP',
  chainsOf(
    ...[
      'ufw-before-input',
      'ufw-user-input',
      'ufw-after-input',
      'ufw-reject-input',
      'ufw-not-local',
      'ufw-logging-deny',
    ],
    ...[
      'ufw-before-forward',
      'ufw-user-forward',
      'ufw-after-forward',
      'ufw-reject-forward',
      'ufw-skip-to-policy-input',
    ],
  ),
  '-A INPUT -j ufw-before-input',
  '-A INPUT -j ufw-after-input',
  '-A INPUT -j ufw-reject-input',
  '-A FORWARD -j ufw-before-forward',
  '-A FORWARD -j ufw-after-forward',
  '-A FORWARD -j ufw-reject-forward',
  '-A ufw-before-input -i lo -j ACCEPT',
  '-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
  '-A ufw-before-input -m conntrack --ctstate INVALID -j ufw-logging-deny',
  '-A ufw-before-input -m conntrack --ctstate INVALID -j DROP',
  '-A ufw-before-input -p icmp -m icmp --icmp-type 8 -j ACCEPT',
  '-A ufw-before-input -p udp -m udp --sport 67 --dport 68 -j ACCEPT',
  '-A ufw-before-input -j ufw-not-local',
  '-A ufw-before-input -d 224.0.0.251/32 -p udp -m udp --dport 5353 -j ACCEPT',
  '-A ufw-before-input -j ufw-user-input',
  '-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN',
  '-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN',
  '-A ufw-not-local -m limit --limit 3/min --limit-burst 10 -j ufw-logging-deny',
  '-A ufw-not-local -j DROP',
  '-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT',
  '-A ufw-after-input -p udp -m udp --dport 137 -j ufw-skip-to-policy-input',
  '-A ufw-skip-to-policy-input -j DROP',
  '-A ufw-logging-deny -m conntrack --ctstate INVALID -m limit --limit 3/min --limit-burst 10 -j RETURN',
  '-A ufw-logging-deny -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "',
  '-A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
  '-A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT',
  '-A ufw-before-forward -j ufw-user-forward',
);

/** What kube-proxy makes in mode iptables, with one service of two endpoints. */
const KUBE_PROXY = [
  restore(
    'filter',
    chainsOf('KUBE-FORWARD', 'KUBE-SERVICES', 'KUBE-EXTERNAL-SERVICES', 'KUBE-PROXY-FIREWALL', 'KUBE-FIREWALL'),
    '-A INPUT -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL',
    '-A INPUT -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES',
    '-A INPUT -j KUBE-FIREWALL',
    '-A FORWARD -m conntrack --ctstate NEW -j KUBE-PROXY-FIREWALL',
    '-A FORWARD -j KUBE-FORWARD',
    '-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES',
    '-A FORWARD -m conntrack --ctstate NEW -j KUBE-EXTERNAL-SERVICES',
    '-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP',
    '-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT',
    '-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    '-A KUBE-SERVICES -d 172.30.0.10/32 -p tcp -m tcp --dport 80 -j REJECT',
    '-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP',
  ),
  restore(
    'nat',
    chainsOf('KUBE-MARK-MASQ', 'KUBE-POSTROUTING', 'KUBE-SERVICES', 'KUBE-SVC-A', 'KUBE-SEP-A', 'KUBE-SEP-B'),
    '-A PREROUTING -j KUBE-SERVICES',
    '-A OUTPUT -j KUBE-SERVICES',
    '-A POSTROUTING -j KUBE-POSTROUTING',
    '-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000',
    '-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN',
    '-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0',
    '-A KUBE-POSTROUTING -j MASQUERADE --random-fully',
    '-A KUBE-SERVICES -d 172.30.0.11/32 -p tcp -m tcp --dport 443 -j KUBE-SVC-A',
    '-A KUBE-SVC-A ! -s 10.244.0.0/16 -d 172.30.0.11/32 -p tcp -m tcp --dport 443 -j KUBE-MARK-MASQ',
    '-A KUBE-SVC-A -m statistic --mode random --probability 0.5 -j KUBE-SEP-A',
    '-A KUBE-SVC-A -j KUBE-SEP-B',
    '-A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.244.1.2:443',
    '-A KUBE-SEP-B -p tcp -m tcp -j DNAT --to-destination 10.244.1.3:443',
  ),
].join('\n');

/** The form of what firewalld makes, with a zone public for all devices. */
const FIREWALLD = `nft -f - <<'E'
table inet firewalld {
  chain filter_INPUT {
    type filter hook input priority filter + 10; policy accept;
    ct state established,related accept
    ct status dnat accept
    iifname "lo" accept
    jump filter_INPUT_ZONES
    ct state invalid drop
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD {
    type filter hook forward priority filter + 10; policy accept;
    ct state established,related accept
    iifname "lo" accept
    jump filter_FORWARD_ZONES
    ct state invalid drop
    reject with icmpx admin-prohibited
  }
  chain filter_INPUT_ZONES {
    iifname "eth0" goto filter_IN_public
    goto filter_IN_public
  }
  chain filter_IN_public {
    tcp dport 22 accept
    meta l4proto icmp accept
    reject with icmpx admin-prohibited
  }
  chain filter_FORWARD_ZONES {
    iifname "eth0" goto filter_FWD_public
    goto filter_FWD_public
  }
  chain filter_FWD_public {
    meta l4proto ipv6-icmp accept
    reject with icmpx admin-prohibited
  }
}
E`;

/** Of nftables, for a base chain at FORWARD. */
const nftForward = (...rules: string[]) => `nft -f - <<'E'
table inet filter {
  chain forward {
    type filter hook forward priority filter; policy drop;
    ${rules.join('\n    ')}
  }
}
E`;
const nftPostrouting = (...rules: string[]) => `nft -f - <<'E'
table ip nat {
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ${rules.join('\n    ')}
  }
}
E`;
const nat = (...rules: string[]) => rules.map((rule) => `iptables -t nat -A POSTROUTING ${rule}`).join('\n');

const policy = {
  what: /^the chain FORWARD of iptables drops .*: its policy is DROP, and no rule accepts them$/,
  hint: /^iptables -I FORWARD -i inlay0 -j ACCEPT; iptables -I FORWARD -o inlay0 -j ACCEPT$/,
};
const outerSource = {
  what: /^NAT gives packets to other VMs the source 192\.168\.16\.99 instead of 192\.168\.16\.32 on eth0/,
  hint: /^iptables -t nat -I POSTROUTING -s 192\.168\.16\.32 -p 47 -j ACCEPT; .*conntrack -D -s 192\.168\.16\.32 -p gre$/,
};
const innerSource = {
  what: /^NAT changes the source of containers' packets to other VMs, which should come from 10\.16\.32\.0\/24/,
  hint: /^iptables -t nat -I POSTROUTING -o inlay0 -j ACCEPT$/,
};

export const RULE_SETS: readonly RuleSet[] = [
  { name: 'none', script: '' },
  {
    name: 'tables that let all pass',
    script: 'iptables -P FORWARD ACCEPT; iptables -t nat -L -n; iptables-legacy -L -n',
  },

  { name: 'policy DROP', script: 'iptables -P FORWARD DROP', said: [policy] },
  {
    name: 'policy DROP, and both rules',
    script:
      'iptables -P FORWARD DROP; iptables -A FORWARD -i inlay0 -j ACCEPT; iptables -A FORWARD -o inlay0 -j ACCEPT',
  },
  {
    name: 'policy DROP, and one rule without the answers',
    script: 'iptables -P FORWARD DROP; iptables -A FORWARD -i inlay0 -j ACCEPT',
    said: [{ what: policy.what, hint: /^iptables -I FORWARD -o inlay0 -j ACCEPT$/ }],
  },
  {
    name: 'policy DROP, and only others may begin',
    script:
      'iptables -P FORWARD DROP; iptables -A FORWARD -i inlay0 -j ACCEPT; iptables -A FORWARD -m state --state ESTABLISHED -j ACCEPT',
  },
  {
    name: 'policy DROP, and a rule for the overlay',
    script: 'iptables -P FORWARD DROP; iptables -A FORWARD -s 10.0.0.0/8 -d 10.0.0.0/8 -j ACCEPT',
  },
  {
    name: 'policy DROP, and a rule for another network',
    script: 'iptables -P FORWARD DROP; iptables -A FORWARD -s 172.17.0.0/16 -j ACCEPT',
    said: [policy],
  },
  {
    name: 'policy DROP, and a rule for one port',
    script:
      'iptables -P FORWARD DROP; iptables -A FORWARD -i inlay0 -p tcp --dport 80 -j ACCEPT; iptables -A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT',
  },
  {
    name: 'policy DROP, and a rule that is not understood',
    script: 'iptables -P FORWARD DROP; iptables -A FORWARD -m length --length 0:65535 -j ACCEPT',
  },
  {
    name: 'no policy, but a last rule that rejects',
    script:
      'iptables -A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT; iptables -A FORWARD -j REJECT --reject-with icmp-host-prohibited',
    said: [{ what: /^the chain FORWARD of iptables drops [^:]*$/, hint: policy.hint }],
  },
  {
    name: 'legacy, policy DROP',
    script: 'iptables-legacy -P FORWARD DROP',
    said: [
      {
        what: /^the chain FORWARD of iptables-legacy drops .*policy/,
        hint: /^iptables-legacy -I FORWARD -i inlay0 -j ACCEPT; iptables-legacy -I FORWARD -o inlay0 -j ACCEPT$/,
      },
    ],
  },
  {
    name: 'legacy, policy DROP, and both rules in a chain of their own',
    script: `iptables-legacy-restore <<'E'
*filter
:FORWARD DROP [0:0]
:ours - [0:0]
:empty - [0:0]
:ours2 - [0:0]
-A FORWARD -m comment --comment x
-A FORWARD -j empty
-A FORWARD -j ours
-A ours ! -i inlay0 -j RETURN
-A ours -j ACCEPT
-A FORWARD ! -o docker+ -g ours2
-A ours2 -o inlay+ -j ACCEPT
COMMIT
E`,
  },
  {
    name: 'legacy, as docker has it',
    script: DOCKER.replaceAll('iptables-restore', 'iptables-legacy-restore'),
    said: [{ what: dropped, hint: /^iptables-legacy -I DOCKER-USER -i inlay0 -j ACCEPT; .*-o inlay0 -j ACCEPT$/ }],
  },

  {
    name: 'docker',
    script: DOCKER,
    said: [
      {
        what: policy.what,
        hint: /^iptables -I DOCKER-USER -i inlay0 -j ACCEPT; iptables -I DOCKER-USER -o inlay0 -j ACCEPT$/,
      },
    ],
  },
  {
    name: 'docker, and both rules',
    script: `${DOCKER}\niptables -I DOCKER-USER -i inlay0 -j ACCEPT; iptables -I DOCKER-USER -o inlay0 -j ACCEPT`,
  },
  {
    name: 'docker, with the slice as one of its networks',
    script: `${DOCKER}
iptables -A FORWARD -o veth90 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A FORWARD -o veth90 -j DOCKER; iptables -A FORWARD -i veth90 ! -o veth90 -j ACCEPT
iptables -t nat -A POSTROUTING -s 10.16.32.0/24 ! -o veth90 -j MASQUERADE`,
    said: [
      {
        what: /^the chain FORWARD of iptables drops connections that other VMs begin to containers: its policy/,
        hint: /^iptables -I DOCKER-USER -i inlay0 -j ACCEPT$/,
      },
      innerSource,
    ],
  },
  { name: 'docker, with a policy of ACCEPT', script: `${DOCKER}\niptables -P FORWARD ACCEPT` },
  {
    name: 'ufw',
    script: UFW,
    said: [
      {
        what: /^the chain INPUT of iptables drops packets of other VMs to which this VM has not sent yet/,
        hint: /^ufw allow proto gre from 192\.168\.0\.0\/16$/,
      },
      { what: policy.what, hint: /^ufw route allow in on inlay0; ufw route allow out on inlay0$/ },
    ],
  },
  {
    name: 'ufw, gre-udp',
    script: `${UFW}\niptables -A ufw-user-forward -i inlay0 -j ACCEPT; iptables -A ufw-user-forward -o inlay0 -j ACCEPT`,
    outer: 'gre-udp',
    said: [{ what: /^the chain INPUT/, hint: /^ufw allow proto udp from 192\.168\.0\.0\/16 to any port 4754$/ }],
  },
  {
    name: 'ufw, and what is hinted at',
    script: `${UFW}
iptables -A ufw-user-forward -i inlay0 -j ACCEPT; iptables -A ufw-user-forward -o inlay0 -j ACCEPT
iptables -A ufw-user-input -p gre -s 192.168.0.0/16 -j ACCEPT`,
  },
  { name: 'kube-proxy', script: KUBE_PROXY },
  { name: 'kube-proxy, policy DROP', script: `iptables -P FORWARD DROP\n${KUBE_PROXY}`, said: [policy] },
  {
    name: 'firewalld',
    script: FIREWALLD,
    said: [
      { what: /^the chain inet firewalld filter_INPUT of nftables/, hint: /^firewall-cmd --add-protocol=gre$/ },
      { what: dropped, hint: /^firewall-cmd --zone=trusted --add-interface=inlay0/ },
    ],
  },
  {
    name: 'nftables, policy drop',
    script: nftForward('ct state established,related accept', 'iifname "docker0" accept'),
    said: [
      {
        what: /^the chain inet filter forward of nftables drops/,
        hint: /^nft insert rule inet filter forward iifname inlay0 accept; nft insert rule inet filter forward oifname inlay0 accept$/,
      },
    ],
  },
  { name: 'nftables, both rules', script: nftForward('iifname "inlay0" accept', 'oifname "inlay0" accept') },
  {
    name: 'nftables, the names of devices in a set',
    script: nftForward('iifname { "inlay0", "eth1" } accept', 'oifname "inlay*" accept'),
  },
  {
    name: 'nftables, other devices in a set, and states in a map',
    script: nftForward(
      'ct state vmap { established : accept, related : accept, invalid : drop }',
      'iifname { "docker0", "eth1" } accept',
      'iifname != { "inlay0", "veth90" } accept',
      'ip saddr . ip daddr { 172.17.0.2 . 172.17.0.3 } accept',
      'tcp dport 22-22 ip saddr 172.17.0.0/16 accept',
    ),
    said: [{ what: dropped, hint: /^nft insert rule inet filter forward/ }],
  },
  { name: 'nftables, a map of verdicts', script: nftForward('iifname vmap { "inlay0" : accept, "veth90" : accept }') },
  {
    name: 'nftables, a map of verdicts for others',
    script: nftForward('iifname vmap { "docker0" : accept, "inlay0" : drop }', 'oifname vmap { "inlay0" : drop }'),
    said: [{ what: dropped, hint: /^nft insert/ }],
  },
  {
    name: 'nftables, prefixes in a set',
    script: nftForward('ip saddr { 10.0.0.0/8, 172.16.0.0/12 } accept'),
  },
  { name: 'nftables, a table that sleeps', script: `${nftForward()}\nnft add table inet filter '{ flags dormant; }'` },

  { name: 'masquerading, first address', script: nat('-o eth0 -j MASQUERADE') },
  {
    name: 'masquerading, second address',
    script: nat('-o eth0 -j MASQUERADE'),
    isSecondary: true,
    said: [outerSource],
  },
  {
    name: 'masquerading, second address, and what is hinted at',
    script: nat('-s 192.168.16.32 -p 47 -j ACCEPT', '-o eth0 -j MASQUERADE'),
    isSecondary: true,
  },
  {
    name: 'masquerading for another network',
    script: nat('-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE'),
    isSecondary: true,
  },
  { name: 'masquerading for another device', script: nat('-o wlan0 -j MASQUERADE'), isSecondary: true },
  {
    name: 'masquerading that is not understood',
    script: nat('-m statistic --mode random --probability 0.5 -j MASQUERADE'),
    isSecondary: true,
  },
  {
    name: 'masquerading, second address, gre-udp',
    script: nat('-p udp -m udp --dport 4000:5000 -j MASQUERADE'),
    ...{ isSecondary: true, outer: 'gre-udp' },
    said: [
      {
        what: outerSource.what,
        hint: /^iptables -t nat -I POSTROUTING -s 192\.168\.16\.32 -p udp --dport 4754 -j ACCEPT; /,
      },
    ],
  },
  {
    name: 'legacy, masquerading, second address',
    script: 'iptables-legacy -t nat -A POSTROUTING -o eth+ -j MASQUERADE',
    isSecondary: true,
    said: [{ what: outerSource.what, hint: /^iptables-legacy -t nat -I POSTROUTING -s / }],
  },
  { name: 'SNAT to another address', script: nat('-o eth0 -j SNAT --to-source 192.168.16.99'), said: [outerSource] },
  { name: 'SNAT to the same address', script: nat('-o eth0 -j SNAT --to-source 192.168.16.32') },
  {
    name: 'nftables, SNAT to another address',
    script: nftPostrouting('oifname "eth0" snat to 192.168.16.99'),
    said: [
      {
        what: outerSource.what,
        hint: /^nft insert rule ip nat postrouting ip saddr 192\.168\.16\.32 ip protocol 47 accept; /,
      },
    ],
  },
  {
    name: 'nftables, masquerading, second address',
    script: nftPostrouting('ip daddr != 10.0.0.0/8 masquerade'),
    isSecondary: true,
    said: [{ what: outerSource.what, hint: /^nft insert/ }],
  },
  { name: "masquerading of the overlay's packets", script: nat('-s 10.0.0.0/8 -j MASQUERADE'), said: [innerSource] },
  { name: "masquerading of the slice's packets", script: nat('-s 10.16.32.0/24 -j MASQUERADE'), said: [innerSource] },
  { name: 'masquerading of what leaves the overlay', script: nat('-s 10.16.32.0/24 ! -d 10.0.0.0/8 -j MASQUERADE') },
  { name: 'masquerading of what leaves by others', script: nat('-s 10.0.0.0/8 ! -o inlay0 -j MASQUERADE') },
];
