/**
 * ICMP that nobody but a router on the underlay may send, ARP and IPv6: what the VM would learn from a
 * container.
 */
import {
  arp,
  DONT_FRAGMENT,
  fragmentationNeeded,
  hostUnreachable,
  ICMP,
  icmp,
  redirect,
  routerAdvertisement,
  TUNNELS,
  udp,
} from './packets.mjs';
import { KINDS } from './tunnels.mjs';
import { HOSTS, linkOf, PORT } from './world.mjs';

const { tenant, neighbour, other, vm, otherVm, v, u } = HOSTS;
const FORGED = '02:bb:bb:bb:bb:bb';

/**
 * What a VM knows of ways: routes as they are now for its own packets and for its containers', and what
 * tunnels carry.
 */
async function ways(w, at = 0) {
  const { name } = w.mesh.vms[at];
  const [from, link] = at === 0 ? [neighbour, linkOf('c1-2')] : [other, linkOf('c2-1')];
  const there = [neighbour, other, vm.overlay, otherVm.overlay, vm.underlay, otherVm.underlay, v.container, v.underlay];
  const script = `for to in ${there.join(' ')}; do ip route get $to; ip route get $to from ${from} iif ${link}; done 2>&1; ip route show proto 73`;
  const text = await w.sh(name, script);
  const tunnels = await w.mesh.tunnels(w.mesh.vms[at]);
  return [
    ...text
      .split('\n')
      .map((line) =>
        line
          .trim()
          .replace(/ expires \d+sec/, '')
          .replace(/^cache$/, '')
          .trim(),
      )
      .filter((line) => line !== ''),
    // Of those that have no daemon, some are found unreachable in between.
    ...tunnels
      .filter(({ vm: remote }) => [vm.underlay, otherVm.underlay].includes(remote))
      .map(({ vm: remote, mtu, unreachable }) => `tunnel ${remote} mtu ${mtu} ${unreachable ?? ''}`),
  ];
}

/** Sends messages; resolves to what the VM has learnt from them. */
async function learnt(w, frames, at = 0) {
  await w.shoot([]);
  const before = await ways(w, at);
  await w.shoot(frames);
  return (await ways(w, at)).filter((line) => !before.includes(line));
}

/** What a VM sends in tunnels, of its neighbour's. */
const quotedTunnels = (w) =>
  [...KINDS, 'gre-udp ports'].map((kind) => {
    const { packet } = w.probe(neighbour, other, { fragment: DONT_FRAGMENT });
    const ports = { sourcePort: kind === 'gre-udp ports' ? 49_152 : 50_000 };
    const make = TUNNELS[kind] ?? TUNNELS['gre-udp'];
    return make({ from: vm.underlay, to: otherVm.underlay, fragment: DONT_FRAGMENT, ...ports }, packet);
  });
const quotedPlain = (from, to) => [
  // Of a socket that there is; and of the kernel itself, which answers (icmp_err in net/ipv4/icmp.c).
  udp({ from, to, sourcePort: PORT, port: 9, fragment: DONT_FRAGMENT, length: 1400 }, Buffer.alloc(8)),
  icmp({ from, to, type: 0, fragment: DONT_FRAGMENT, length: 1400 }, Buffer.alloc(8)),
];

const OWN = ['own source', [tenant]];
const FORGED_SOURCE = ['forged source', [u, otherVm.underlay, otherVm.overlay, neighbour, vm.overlay, '8.8.8.8']];
const MTUS = [68, 100, 552, 600];

const tunnelMtu = ([which, sources]) => ({
  who: 'T',
  title: `ICMP, fragmentation needed, about its VM's tunnels (${which})`,
  isLasting: true,
  run: (w) =>
    learnt(
      w,
      sources.flatMap((from) =>
        quotedTunnels(w).flatMap((quoted) =>
          MTUS.map((mtu) => w.frame('tenant', fragmentationNeeded({ from, to: vm.underlay }, mtu, quoted))),
        ),
      ),
    ),
});

const routeMtu = ([which, sources]) => ({
  who: 'T',
  title: `ICMP, fragmentation needed, about its VM's own packets (${which})`,
  isLasting: true,
  run: (w) =>
    learnt(
      w,
      sources.flatMap((from) =>
        [
          [vm.overlay, other],
          [vm.underlay, otherVm.underlay],
        ].flatMap(([to, about]) =>
          quotedPlain(to, about).flatMap((quoted) =>
            MTUS.map((mtu) => w.frame('tenant', fragmentationNeeded({ from, to }, mtu, quoted))),
          ),
        ),
      ),
    ),
});

const redirects = ([which, sources]) => ({
  who: 'T',
  title: `ICMP redirect to its VM (${which})`,
  isLasting: true,
  run: (w) =>
    learnt(
      w,
      sources.flatMap((from) =>
        [
          [vm.overlay, other, v.overlay],
          [vm.underlay, otherVm.underlay, v.underlay],
        ].flatMap(([to, about, gateway]) =>
          quotedPlain(to, about).map((quoted) => w.frame('tenant', redirect({ from, to }, gateway, quoted))),
        ),
      ),
    ),
});

const unreachable = ([which, sources]) => ({
  who: 'T',
  title: `ICMP, host unreachable, about its VM's tunnels, relayed to a neighbour (${which})`,
  isLasting: true,
  async run(w) {
    await w.shoot([]);
    const before = await ways(w);
    const frames = sources.flatMap((from) =>
      quotedTunnels(w).map((quoted) => w.frame('tenant', hostUnreachable({ from, to: vm.underlay }, quoted))),
    );
    const seen = await w.shoot(frames);
    // The other container has no such port, and says so itself.
    const told = seen.filter(
      ({ at, protocol, body, source }) => at === 'neighbour' && protocol === ICMP && body[0] === 3 && source !== other,
    );
    return [
      ...told.map(({ source }) => `the neighbour is told by ${source}`),
      ...(await ways(w)).filter((line) => !before.includes(line)),
    ];
  },
});

const throughTunnel = {
  who: 'T',
  title: 'ICMP, fragmentation needed and redirect, through the tunnel to another VM',
  isLasting: true,
  run: (w) =>
    learnt(
      w,
      quotedPlain(otherVm.overlay, neighbour).flatMap((quoted) => [
        ...MTUS.map((mtu) =>
          w.frame('tenant', fragmentationNeeded({ from: tenant, to: otherVm.overlay }, mtu, quoted)),
        ),
        w.frame('tenant', redirect({ from: tenant, to: otherVm.overlay }, v.overlay, quoted)),
      ]),
      1,
    ),
};

/** Those kinds of tunnels that V's packets are taken in. */
const fromV = (title, about, sources, mtus, limit) => ({
  who: 'V',
  title,
  limit,
  isLasting: true,
  run: (w) =>
    learnt(
      w,
      KINDS.flatMap((kind) =>
        sources.flatMap((from) =>
          quotedPlain(vm.overlay, about).flatMap((quoted) =>
            [
              ...mtus.map((mtu) => fragmentationNeeded({ from, to: vm.overlay }, mtu, quoted)),
              redirect({ from, to: vm.overlay }, v.overlay, quoted),
            ].map((packet) => w.frame('u', TUNNELS[kind]({ from: v.underlay, to: vm.underlay, id: w.id() }, packet))),
          ),
        ),
      ),
    ),
});

const fromUnderlay = {
  who: 'U',
  title: "ICMP, fragmentation needed, from the underlay, about a VM's tunnels",
  planes: ['wasm', 'wasm-udp'],
  limit: 'it may be a router: let such ICMP in from routers alone',
  isLasting: true,
  run: (w) =>
    learnt(
      w,
      quotedTunnels(w).map((quoted) => w.frame('u', fragmentationNeeded({ from: u, to: vm.underlay }, 600, quoted))),
    ),
};

const advertisement = {
  who: 'T',
  title: 'an IPv6 router advertisement',
  means: 'disable_ipv6',
  isLasting: true,
  async run(w) {
    await w.shoot([w.raw('tenant', routerAdvertisement(w.macOf('tenant')))]);
    const text = await w.sh(
      'vm1',
      'ip -6 route show | grep -e default -e 2001:db8; ip -6 -o addr show | grep 2001:db8',
    );
    return text.split('\n').filter((line) => line.trim() !== '');
  },
};

/** Entries of a table of neighbours, by one device or all; those that cannot be filled are few. */
const FEW = 16;
const FLOOD = 1500;
const neighbours = async (w, ...words) =>
  (await w.sh('vm1', `ip ${words.join(' ')}`)).split('\n').filter((line) => line !== '');

const arpFlood = {
  who: 'T',
  means: 'rp_filter',
  title: `ARP requests of ${FLOOD.toLocaleString('en')} senders that do not exist`,
  isLasting: true,
  async run(w) {
    const from = w.macOf('tenant');
    const sender = (i) => `${['10.16', '10.99', '192.168', '172.20'][i % 4]}.${32 + (i >> 8)}.${i & 255}`;
    const frames = Array.from({ length: FLOOD }, (_, i) =>
      w.raw('tenant', arp({ operation: i % 8 < 6 ? 1 : 2, from, sender: sender(i), target: vm.overlay })),
    );
    await w.shoot(frames);
    const entries = await neighbours(w, `neigh show nud all dev ${linkOf('c1-1')}`);
    return entries.length > FEW ? [`${entries.length} entries`] : [];
  },
};

const gratuitous = {
  who: 'T',
  means: 'rp_filter',
  title: "gratuitous ARP for its neighbour's address, its VM's, and another VM's",
  isLasting: true,
  async run(w) {
    const claimed = [neighbour, vm.overlay, vm.underlay, otherVm.underlay, other, otherVm.overlay];
    const frames = claimed.flatMap((sender) =>
      [1, 2].flatMap((operation) =>
        [sender, vm.overlay].map((target) => w.raw('tenant', arp({ operation, from: FORGED, sender, target }))),
      ),
    );
    await w.shoot(frames);
    const entries = await neighbours(w, 'neigh show nud all');
    return entries.filter((line) => line.includes(FORGED));
  },
};

const LANES = [OWN, FORGED_SOURCE];

export const messageAttacks = [
  ...LANES.map(tunnelMtu),
  ...LANES.map(routeMtu),
  ...LANES.map(unreachable),
  ...LANES.map(redirects),
  throughTunnel,
  fromV(
    'ICMP, fragmentation needed and redirect, through the tunnel, from a container',
    other,
    [v.container, '10.16.40.7', otherVm.overlay],
    MTUS,
  ),
  fromV(
    'ICMP, fragmentation needed and redirect, through the tunnel, from its own address',
    other,
    [v.overlay],
    MTUS,
    'not below 552 bytes: a VM may say so of its containers',
  ),
  fromUnderlay,
  advertisement,
  arpFlood,
  gratuitous,
];
