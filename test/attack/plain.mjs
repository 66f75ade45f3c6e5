/**
 * Packets without a tunnel: false sources, addresses that are not for containers, and what comes from the
 * underlay in plain.
 */
import { fragments, SYN, tcp } from './packets.mjs';
import { delivered } from './tunnels.mjs';
import { EPHEMERAL_PORT, HOSTS, mentions, PORT } from './world.mjs';

const { tenant, neighbour, other, vm, otherVm, u } = HOSTS;
const BROADCAST = 'ff'.repeat(6);

const shot = (w, at, from, to, { frame = {}, cut = (packet) => [packet], ...more } = {}) => {
  const { mark, packet } = w.probe(from, to, { id: w.id(), ...more });
  const frames = cut(packet).map((part) => w.frame(at, part, frame));
  return { name: `${from} > ${to}${frame.tag ? ', VLAN 0' : ''}`, mark, frames };
};

const FALSE_SOURCES = {
  'its neighbour': [neighbour, '10.16.32.77'],
  'its VM': [vm.overlay, vm.underlay, '10.16.32.0', '10.16.32.255'],
  "another VM's container": [other, otherVm.overlay, '10.16.40.91', '10.0.0.91', '10.255.255.91'],
  'the underlay, or anybody': [otherVm.underlay, u, '8.8.8.8', '127.0.0.1', '0.0.0.0', '224.0.0.1', '255.255.255.255'],
};

const spoofed = ([who, sources]) => ({
  who: 'T',
  title: `plain packets as ${who}`,
  shots: (w) =>
    sources.flatMap((from) =>
      [neighbour, other, vm.overlay, vm.underlay, otherVm.overlay, otherVm.underlay]
        .filter((to) => to !== from)
        .flatMap((to) =>
          [{}, { tag: true }, { to: 'ff:ff:ff:ff:ff:ff' }].map((frame) => shot(w, 'tenant', from, to, { frame })),
        ),
    ),
});

/** Whether the TCP port answers; in fragments of 8 bytes the flags are in the second. */
async function reached(w, ports) {
  const tries = ports.flatMap(([to, port = PORT]) =>
    [(packet) => [packet], (packet) => fragments(packet, 8)].map((cut, i) => {
      const sourcePort = 20_000 + w.id();
      const packet = tcp({ from: tenant, to, sourcePort, port, flags: SYN, id: w.id() });
      return { name: `TCP ${to}:${port}${i ? ' in fragments' : ''}`, sourcePort, frames: cut(packet) };
    }),
  );
  const seen = await w.shoot(tries.flatMap(({ frames }) => frames.map((packet) => w.frame('tenant', packet))));
  const answers = seen.filter(
    ({ at, protocol, body }) => at === 'tenant' && protocol === 6 && (body[13] & 0x12) === 0x12,
  );
  return tries
    .filter(({ sourcePort }) => answers.some(({ body }) => body.readUInt16BE(2) === sourcePort))
    .map(({ name }) => name);
}

const ownPorts = {
  who: 'T',
  title: "TCP and UDP ports of its own VM, by the VM's overlay and underlay address",
  async run(w) {
    const cuts = [(packet) => [packet], (packet) => fragments(packet, 8)];
    const shots = [vm.overlay, vm.underlay].flatMap((to) => cuts.map((cut) => shot(w, 'tenant', tenant, to, { cut })));
    return [...(await delivered(w, shots)), ...(await reached(w, [[vm.overlay], [vm.underlay]]))];
  },
};

const FOR_ALL = ['192.168.255.255', '192.168.0.0', '255.255.255.255', '10.255.255.255', '224.0.0.1'];

const broadcastPorts = {
  who: 'T',
  title: 'UDP ports of its own VM by broadcast and multicast',
  shots: (w) => FOR_ALL.map((to) => shot(w, 'tenant', tenant, to)),
};

const broadcastWithoutSource = {
  who: 'T',
  title: 'UDP ports of its own VM by broadcast, with the source 0.0.0.0',
  shots: (w) => FOR_ALL.map((to) => shot(w, 'tenant', '0.0.0.0', to)),
};

const otherAddress = {
  who: 'T',
  title: 'ports of its own VM by an address outside the underlay',
  shots: (w) => [shot(w, 'tenant', tenant, vm.other)],
};

const ephemeralPorts = {
  who: 'T',
  title: "UDP ports of its own VM in the range of the VM's own connections",
  limit: 'answers to the VM look the same',
  async run(w) {
    const shots = [vm.overlay, vm.underlay].map((to) => shot(w, 'tenant', tenant, to, { port: EPHEMERAL_PORT }));
    const seen = await w.shoot(shots.flatMap(({ frames }) => frames));
    return shots.filter(({ mark }) => w.saw(seen, mark, ['vm ephemeral'])).map(({ name }) => name);
  },
};

const otherPorts = {
  who: 'T',
  title: 'TCP and UDP ports of other VMs and hosts of the underlay',
  async run(w) {
    const there = [otherVm.overlay, otherVm.underlay, u];
    const shots = there.map((to) => shot(w, 'tenant', tenant, to));
    const seen = await w.shoot(shots.flatMap(({ frames }) => frames));
    // A host of the underlay that gets a packet in plain cannot answer, but has got it.
    const open = shots.filter(({ mark }) => w.saw(seen, mark) || w.saw(seen.filter(isPlain), mark, ['wire']));
    return [
      ...open.map(({ name }) => name),
      ...(await reached(
        w,
        there.map((to) => [to]),
      )),
    ];
  },
};

const isPlain = ({ source }) => source?.startsWith('10.') ?? false;

const NOBODY = [
  '10.16.33.0',
  '10.16.33.255',
  '10.16.32.0',
  '10.16.32.255',
  '10.0.0.91',
  '10.0.0.1',
  '10.255.255.91',
  '10.255.255.1',
];

const nobody = {
  who: 'T',
  title: "packets to indexes that nobody has, and to VMs at the underlay's network and broadcast address",
  async run(w) {
    const shots = NOBODY.map((to) => shot(w, 'tenant', tenant, to));
    const seen = await w.shoot(shots.flatMap(({ frames }) => frames));
    const broadcast = seen.filter(({ at, to }) => at === 'wire' && to === BROADCAST && to !== undefined);
    return [
      ...shots.filter(({ mark }) => w.saw(seen, mark, ['wire', 'other', 'otherVm'])).map(({ name }) => name),
      ...shots.filter(({ mark }) => w.saw(broadcast, mark, ['wire'])).map(({ name }) => `${name} in a broadcast frame`),
    ];
  },
};

/** Nothing for the overlay leaves a VM without a tunnel. */
const inPlain = {
  who: 'T',
  title: 'packets for the overlay that leave its VM in plain',
  async run(w) {
    const there = [other, otherVm.overlay, '10.16.40.91', '10.16.32.77', '10.16.33.0', '10.99.99.99'];
    const shots = there.map((to) => shot(w, 'tenant', tenant, to));
    const seen = (await w.shoot(shots.flatMap(({ frames }) => frames))).filter(
      (each) => isPlain(each) && mentions(each, tenant),
    );
    return shots.filter(({ mark }) => w.saw(seen, mark, ['wire', 'u'])).map(({ name }) => name);
  },
};

const plainFromUnderlay = (forwarding) => ({
  who: 'U',
  title: `plain packets with an overlay source, or to an overlay address (forwarding ${forwarding ? 'on' : 'off'})`,
  async run(w) {
    const set = (value) => w.sh('vm1', `echo ${value} >/proc/sys/net/ipv4/conf/eth0/forwarding`);
    await set(Number(forwarding));
    try {
      const shots = [
        ...[other, v(other), '10.16.40.91', neighbour, vm.overlay, u, otherVm.underlay].flatMap((from) =>
          [neighbour, vm.overlay].map((to) => [from, to]),
        ),
        ...[other, neighbour, '10.16.40.91'].map((from) => [from, vm.underlay]),
      ]
        .filter(([from, to]) => from !== to)
        .flatMap(([from, to]) =>
          [{}, { tag: true }, { to: 'ff:ff:ff:ff:ff:ff' }].map((frame) => shot(w, 'u', from, to, { frame })),
        );
      return await delivered(w, shots);
    } finally {
      await set(0);
    }
  },
});
/** The VM's own overlay address there. */
const v = (container) => container.replace(/\d+$/, '1');

export const plainAttacks = [
  ...Object.entries(FALSE_SOURCES).map(spoofed),
  ownPorts,
  broadcastPorts,
  broadcastWithoutSource,
  otherAddress,
  ephemeralPorts,
  otherPorts,
  nobody,
  inPlain,
  plainFromUnderlay(false),
  plainFromUnderlay(true),
];
