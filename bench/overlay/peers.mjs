/** What is measured side by side: the bare underlay, the kernel's vxlan, and Inlay. */

/** The two VMs: their network namespaces, and their addresses on the underlay and on the overlay. */
export const VMS = [
  { name: 'vm1', underlay: '192.168.10.1', overlay: '10.10.1.1' },
  { name: 'vm2', underlay: '192.168.20.2', overlay: '10.20.2.1' },
];
export const UNDERLAY_PREFIX = '192.168.0.0/16';
export const OVERLAY_PREFIX = '10.0.0.0/8';

/** A device without these gets what TCP sends cut by the kernel, in software, before the wire. */
export const SEGMENTATION = ['tso', 'tx-udp_tnl-segmentation', 'tx-udp_tnl-csum-segmentation', 'tx-udp-segmentation'];

/** All ratios are to this peer. */
export const REFERENCE = 'vxlan';

const inlay = (...flags) => ({ kind: 'inlay', flags });

/**
 * By name. `kind` says what makes the overlay: nothing, the kernel, Inlay with `flags`, or by hand the commands that Inlay's kernel data plane would do (its
 * programs apart). `underlayOff` and `overlayOff` are the
 * features that the underlay's device and the overlay's device go without.
 */
export const PEERS = {
  none: { label: 'no overlay', kind: 'none' },
  vxlan: { label: 'kernel vxlan', kind: 'vxlan' },
  // What vxlan is with --nic cut anyway.
  'vxlan-cut': { label: 'kernel vxlan, cut in software', kind: 'vxlan', underlayOff: SEGMENTATION },
  'vxlan-single': { label: 'kernel vxlan, packet by packet', kind: 'vxlan', overlayOff: ['tso', 'gso', 'gro'] },
  // No firewall is here, so the kernel cuts super-packets where it can.
  gre: { label: 'inlay gre', ...inlay('--encapsulation', 'gre') },
  'gre-core': {
    label: 'inlay gre, cut by the core',
    ...inlay('--encapsulation', 'gre', '--gre-segmentation', 'core'),
  },
  'gre-udp': { label: 'inlay gre-udp', ...inlay('--encapsulation', 'gre-udp') },
  'kernel-vxlan': {
    label: 'inlay dataplane kernel, vxlan',
    ...inlay('--dataplane', 'kernel', '--encapsulation', 'vxlan'),
  },
  'static-vxlan': { label: 'the same by hand, vxlan', kind: 'static', encapsulation: 'vxlan' },
  'kernel-gre': { label: 'inlay dataplane kernel, gre', ...inlay('--dataplane', 'kernel', '--encapsulation', 'gre') },
  'static-gre': { label: 'the same by hand, gre', kind: 'static', encapsulation: 'gre' },
  'gre-udp-busy': {
    label: 'inlay gre-udp, busy-poll 2ms',
    ...inlay('--encapsulation', 'gre-udp', '--busy-poll', '2ms'),
  },
  'gre-udp-typescript': {
    label: 'inlay gre-udp, TypeScript core',
    ...inlay('--encapsulation', 'gre-udp', '--core', 'typescript'),
  },
  'gre-portable': {
    label: 'inlay gre, portable engine',
    ...inlay('--encapsulation', 'gre', '--engine', 'portable'),
  },
};

/** Those of a kernel with GRE devices. */
const WITH_GRE = ['kernel-gre', 'static-gre'];

/** The peers that are measured unless others are named. */
export function peersFor(nic) {
  return Object.keys(PEERS).filter((name) => !WITH_GRE.includes(name) && (nic !== 'cut' || name !== 'vxlan-cut'));
}
