/** What carries packets between two containers: on two VMs, and on one. */

/** The containers: their network namespaces, the VM (../overlay/peers.mjs) and their number there. */
export const CONTAINERS = [
  { name: 'c1', vm: 0, number: 4, address: '10.10.1.5' },
  { name: 'c2', vm: 1, number: 4, address: '10.20.2.5' },
];
/** The second is on the first one's VM. */
export const NEIGHBOURS = [CONTAINERS[0], { name: 'c3', vm: 0, number: 5, address: '10.10.1.6' }];

const inlay = (label, dataplane, encapsulation, fastPath) => ({
  label: `inlay ${label}, fast path ${fastPath}`,
  kind: fastPath === 'on' ? 'inlay' : 'ordinary',
  flags: ['--dataplane', dataplane, '--encapsulation', encapsulation, '--fast-path', fastPath],
  fastPath,
});

const VXLAN_LABEL = 'kernel vxlan, routed to containers';

/**
 * By name, between two VMs. `kind` says what carries the packets and how the chart draws it, `mtu` is that of containers where no
 * daemon tells it, and `needs` is what some kernels lack.
 */
export const PEERS = {
  routing: { label: 'routing, no overlay', kind: 'none', mtu: 1500 },
  vxlan: { label: VXLAN_LABEL, kind: 'vxlan', mtu: 1450 },
  'vxlan-bridge': { label: 'kernel vxlan, bridge to containers', kind: 'vxlan', mtu: 1450, isBridged: true },
  'gre-off': inlay('gre', 'wasm', 'gre', 'off'),
  gre: inlay('gre', 'wasm', 'gre', 'on'),
  'gre-udp-off': inlay('gre-udp', 'wasm', 'gre-udp', 'off'),
  'gre-udp': inlay('gre-udp', 'wasm', 'gre-udp', 'on'),
  'kernel-vxlan': {
    label: 'inlay kernel vxlan, no fast path',
    kind: 'ordinary',
    flags: ['--dataplane', 'kernel', '--encapsulation', 'vxlan'],
  },
  'kernel-gre-off': { ...inlay('kernel gre', 'kernel', 'gre', 'off'), needs: 'gre' },
  'kernel-gre': { ...inlay('kernel gre', 'kernel', 'gre', 'on'), needs: 'gre' },
  'kernel-gre-udp-off': { ...inlay('kernel gre-udp', 'kernel', 'gre-udp', 'off'), needs: 'fou' },
  'kernel-gre-udp': { ...inlay('kernel gre-udp', 'kernel', 'gre-udp', 'on'), needs: 'fou' },
};

/** The same on one VM. */
export const LOCAL_PEERS = {
  routing: { label: 'routing', kind: 'none', mtu: 1500 },
  bridge: { label: 'bridge', kind: 'vxlan', mtu: 1500, isBridged: true },
  off: inlay('gre', 'wasm', 'gre', 'off'),
  on: inlay('gre', 'wasm', 'gre', 'on'),
};

/** Commands that succeed in a new network namespace where the kernel has what a peer needs. */
const PROBES = {
  gre: { command: 'ip link add probe type gre external', lacks: 'GRE devices (module ip_gre)' },
  fou: {
    command: 'ip link add probe type gre external encap fou encap-dport 4754',
    lacks: 'GRE devices in UDP (modules ip_gre and fou)',
  },
};

/** The peers that this kernel can have, and why it cannot have the others. `lab` is used, and left without traces. */
export async function possible(lab, names) {
  const missing = {};
  for (const [need, { command, lacks }] of Object.entries(PROBES)) {
    const { code, stderr } = await lab.run(undefined, ['unshare', '-n', ...command.split(' ')]);
    if (code !== 0) missing[need] = `this kernel has no ${lacks} (${stderr.trim().replace(/^Error: |\.$/g, '')})`;
  }
  const skipped = names.filter((name) => missing[PEERS[name].needs]);
  return {
    names: names.filter((name) => !skipped.includes(name)),
    skipped: skipped.map((name) => ({ peer: name, why: missing[PEERS[name].needs] })),
  };
}
