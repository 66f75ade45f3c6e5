/**
 * Tunnels from where none may come: from containers, from outside the underlay, from local users; and through
 * tunnels that may be, what may not.
 */
import { fragments, TUNNELS, vxlanPayload } from './packets.mjs';
import { HOSTS } from './world.mjs';

const { tenant, neighbour, other, vm, otherVm, v, u, outsider } = HOSTS;
export const KINDS = Object.keys(TUNNELS);
/** Addresses that a VM that is not there, and one that is, would have. */
const LIARS = [
  [v.underlay, '10.16.40.7'],
  [otherVm.underlay, '10.16.33.7'],
];
const NO_OPERATIONS = [1, 1, 1, 1];

/** The ways in which one packet can come. */
const FORMS = {
  whole: (w, at, packet, to) => [w.frame(at, packet, { to })],
  'fragments of 8': (w, at, packet, to) => fragments(packet, 8).map((part) => w.frame(at, part, { to })),
  'fragments of 16': (w, at, packet, to) => fragments(packet, 16).map((part) => w.frame(at, part, { to })),
  'last fragment first': (w, at, packet, to) =>
    fragments(packet, 24)
      .reverse()
      .map((part) => w.frame(at, part, { to })),
  'VLAN 0': (w, at, packet, to) => [w.frame(at, packet, { to, tag: true })],
  'broadcast frame': (w, at, packet) => [w.frame(at, packet, { to: 'ff:ff:ff:ff:ff:ff' })],
};

/** A tunnel packet in all forms. */
function inForms(w, kind, at, outer, { from, to }, { forms = Object.keys(FORMS), ...where } = {}) {
  return forms.map((form) => {
    const { mark, packet } = w.probe(from, to);
    const frames = FORMS[form](w, at, TUNNELS[kind]({ ...outer, id: w.id() }, packet), where.to);
    return { name: `${outer.from} > ${outer.to} (${from} > ${to}), ${form}`, mark, frames };
  });
}

const toOwnVm = (kind) => ({
  who: 'T',
  title: `${kind} to its own VM, with a forged outer source`,
  shots: (w) => [
    ...LIARS.flatMap(([from, inner]) =>
      [neighbour, vm.overlay].flatMap((to) =>
        inForms(w, kind, 'tenant', { from, to: vm.underlay, vm: vm.underlay }, { from: inner, to }),
      ),
    ),
    ...inForms(
      w,
      kind,
      'tenant',
      { from: v.underlay, to: vm.underlay, options: NO_OPERATIONS },
      { from: '10.16.40.7', to: neighbour },
    ),
    ...[vm.overlay, '192.168.255.255', '255.255.255.255', '127.0.0.1', '224.0.0.1'].flatMap((to) =>
      inForms(
        w,
        kind,
        'tenant',
        { from: v.underlay, to, vm: vm.underlay },
        { from: '10.16.40.7', to: neighbour },
        { forms: ['whole'] },
      ),
    ),
    ...[tenant, vm.underlay, vm.overlay].flatMap((from) =>
      inForms(
        w,
        kind,
        'tenant',
        { from, to: vm.underlay },
        { from: '10.16.33.7', to: neighbour },
        { forms: ['whole'] },
      ),
    ),
  ],
});

const toOtherVm = (kind) => ({
  who: 'T',
  title: `${kind} to another VM, with a forged outer source`,
  shots: (w) =>
    [...LIARS.slice(0, 1), [vm.underlay, neighbour], [tenant, neighbour], ['192.168.77.1', '10.77.1.7']].flatMap(
      ([from, inner]) =>
        [other, otherVm.overlay].flatMap((to) =>
          inForms(w, kind, 'tenant', { from, to: otherVm.underlay }, { from: inner, to }),
        ),
    ),
});

const MASQUERADE = `table ip attack { chain postrouting { type nat hook postrouting priority 100;
  ip saddr 10.16.32.0/24 ip daddr != 10.0.0.0/8 masquerade; }; }`;

const throughMasquerade = (kind) => ({
  who: 'T',
  title: `${kind} to another VM, which the VM's own MASQUERADE makes the VM's`,
  async run(w) {
    await w.lab.must('vm1', ['nft', '-f', '-'], MASQUERADE);
    try {
      const shots = inForms(w, kind, 'tenant', { from: tenant, to: otherVm.underlay }, { from: neighbour, to: other });
      return await delivered(w, shots);
    } finally {
      await w.lab.must('vm1', ['nft', 'delete table ip attack']);
    }
  },
});

/** A tunnel in the tunnel: the inner packet is honest, and what is in it not. */
const nested = {
  who: 'T',
  title: 'a tunnel inside the tunnel',
  run: (w) =>
    delivered(
      w,
      KINDS.flatMap((kind) =>
        [otherVm.overlay, other].flatMap((to) =>
          inForms(w, kind, 'tenant', { from: tenant, to, vm: otherVm.underlay }, { from: '10.16.40.7', to: other }),
        ),
      ),
      { truth: tenant },
    ),
};

/** Which addresses V may not have inside, and where it may not send to. */
const FALSE_SOURCES = [
  ...['10.16.33.91', '10.16.33.1', neighbour, vm.overlay, '10.16.40.0', '10.16.40.255', '10.0.0.91', '10.255.255.91'],
  ...[otherVm.underlay, vm.underlay, v.underlay, '8.8.8.8', '127.0.0.1', '0.0.0.0', '224.0.0.1', '255.255.255.255'],
];
const FALSE_DESTINATIONS = [other, '10.16.33.1', '10.16.32.0', '10.16.32.255', vm.underlay, otherVm.underlay, u];

const fromV = (kind) => ({
  who: 'V',
  title: `${kind} with an inner source that is not its own`,
  shots: (w) =>
    FALSE_SOURCES.flatMap((from) =>
      [neighbour, vm.overlay].flatMap((to) =>
        inForms(w, kind, 'u', { from: v.underlay, to: vm.underlay }, { from, to }, { forms: ['whole', 'VLAN 0'] }),
      ),
    ),
});

const relayed = (kind) => ({
  who: 'V',
  title: `${kind} with an inner destination on another VM, on the underlay, or nowhere`,
  shots: (w) =>
    FALSE_DESTINATIONS.flatMap((to) =>
      inForms(w, kind, 'u', { from: v.underlay, to: vm.underlay }, { from: v.container, to }, { forms: ['whole'] }),
    ),
});

const fromReservedVms = (kind) => ({
  who: 'V',
  title: `${kind} from the underlay's network or broadcast address`,
  shots: (w) =>
    [
      ['192.168.0.0', '10.0.0.91'],
      ['192.168.255.255', '10.255.255.91'],
    ].flatMap(([from, inner]) =>
      inForms(w, kind, 'u', { from, to: vm.underlay }, { from: inner, to: neighbour }, { forms: ['whole'] }),
    ),
});

const fromOutside = (kind) => ({
  who: 'U',
  title: `${kind} from outside the underlay`,
  shots: (w) =>
    [outsider, '8.8.8.8', other, vm.overlay].flatMap((from) =>
      ['10.16.33.7', '172.16.66.7'].flatMap((inner) =>
        inForms(w, kind, 'u', { from, to: vm.underlay }, { from: inner, to: neighbour }, { forms: ['whole'] }),
      ),
    ),
});

const fromForgedVm = (kind) => ({
  who: 'U',
  title: `${kind} with the outer source of a VM`,
  planes: kind === 'vxlan' ? ['kernel'] : ['wasm', 'wasm-udp'],
  limit: 'there is no authentication: WireGuard or IPsec',
  shots: (w) =>
    inForms(
      w,
      kind,
      'u',
      { from: '192.168.16.41', to: vm.underlay },
      { from: '10.16.41.7', to: neighbour },
      { forms: ['whole'] },
    ),
});

/**
 * Sends datagrams as an unprivileged user: of each line of its input the address, the port and the payload.
 */
const SEND = `
  const socket = require('node:dgram').createSocket('udp4');
  const lines = require('node:fs').readFileSync(0, 'utf8').trim().split('\\n').map((line) => line.split(' '));
  const next = () => {
    const [to, port, hex] = lines.shift() ?? [];
    if (to) socket.send(Buffer.from(hex, 'hex'), Number(port), to, next);
    else socket.close();
  };
  next();`;
export const AS_NOBODY = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];

const fromLocalUser = (kind, port, limit) => ({
  who: 'L',
  limit,
  title: `${kind} from a socket of an unprivileged user, as any container of this VM`,
  async run(w) {
    const shots = [
      [otherVm.underlay, neighbour, other],
      [vm.underlay, '10.16.33.7', neighbour],
      ['127.0.0.1', '10.16.33.7', neighbour],
    ].map(([to, from, inner]) => ({ to, name: `${to}:${port} (${from} > ${inner})`, ...w.probe(from, inner) }));
    const lines = shots.map(({ to, packet }) => {
      const whole = port === 4789 ? vxlanPayload(to, packet) : Buffer.concat([Buffer.from([0, 0, 8, 0]), packet]);
      return `${to} ${port} ${whole.toString('hex')}`;
    });
    const also = () => w.lab.must('vm1', [...AS_NOBODY, process.execPath, '-e', SEND], lines.join('\n'));
    return await delivered(
      w,
      shots.map((shot) => ({ ...shot, frames: [] })),
      { also },
    );
  },
});

/**
 * The names of those shots that arrived where they should not. What has the source `truth` is the sender's
 * own, and may. `also` is done besides.
 */
export async function delivered(w, shots, { truth, also } = {}) {
  const seen = await w.shoot(
    shots.flatMap(({ frames }) => frames),
    also,
  );
  const lies = seen.filter(({ source }) => truth === undefined || source !== truth);
  return shots.filter(({ mark }) => w.saw(lies, mark)).map(({ name }) => name);
}

export const tunnelAttacks = [
  ...KINDS.map(toOwnVm),
  ...KINDS.map(toOtherVm),
  ...KINDS.map(throughMasquerade),
  nested,
  ...KINDS.map(fromV),
  ...KINDS.map(relayed),
  ...KINDS.map(fromReservedVms),
  ...KINDS.map(fromOutside),
  ...KINDS.map(fromForgedVm),
  fromLocalUser('gre-udp', 4754),
  fromLocalUser('vxlan', 4789, { kernel: 'the kernel sends tunnels in the name of whoever sends: a filter of users' }),
];
