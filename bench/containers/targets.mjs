/** What was to be reached, as ratios in the same run. */
import { figure, ratio } from '../rows.mjs';

/**
 * The figure of plain gre with the fast path against `reference`, over two VMs with super-packets `whole` or `cut`: what it was to be at least, and
 * what would be better; where less is better, at most.
 */
const OVER_VMS = [
  { part: 'whole', key: 'tcp1', reference: 'vxlan', bounds: [1.3, 1.5] },
  { part: 'cut', key: 'tcp1', reference: 'vxlan', bounds: [1.08, 1.25] },
  { part: 'whole', key: 'tcp4', reference: 'vxlan', bounds: [1.2, 1.4] },
  { part: 'whole', key: 'udp', reference: 'vxlan', bounds: [1.5, 2] },
  { part: 'cut', key: 'udp', reference: 'vxlan', bounds: [1.4, 1.7] },
  { part: 'whole', key: 'rtt', reference: 'vxlan', bounds: [0.6, 0.5] },
  { part: 'whole', key: 'exchanges', reference: 'vxlan', bounds: [1.3, 1.6] },
  { part: 'whole', key: 'cpu', reference: 'vxlan', bounds: [0.8, 0.65] },
  { part: 'whole', key: 'tcp1', reference: 'routing', bounds: [1.05, 1.15] },
  { part: 'whole', key: 'udp', reference: 'routing', bounds: [1, 1.1] },
  { part: 'whole', key: 'rtt', reference: 'routing', bounds: [1.05, 0.95] },
];

/** `MEASURES` of report.mjs in which less is better. */
const LESS = ['rtt', 'cpu'];

/** Each target that was measured, with the `measured` median and range and whether it was `reached`. */
export function targetsOf(result, titles) {
  const { whole, cut, vms, containers } = result;
  const parts = { whole, cut };
  const found = OVER_VMS.map(({ part, key, reference, bounds }) => ({
    ...{ what: `${titles[key]}, ${part}`, against: reference === 'vxlan' ? 'kernel vxlan' : reference, bounds },
    measured: parts[part] && ratio(parts[part], 'gre', key, reference),
    isLess: LESS.includes(key),
  }));
  const scale = [
    {
      ...{ what: `UDP 64 B to ${vms?.count} VMs in random order`, against: 'to one VM', bounds: [0.95, 0.98] },
      measured: vms?.rows && figure(vmRows(vms), 'all', 'ratio'),
    },
    ...['tcp', 'udp'].map((key) => ({
      what: `${key === 'tcp' ? 'TCP x1' : 'UDP 64 B'}, ${containers?.count} containers on the VM`,
      ...{ against: 'one', bounds: [0.97, 1] },
      measured: containers?.after && figure(containerRows(containers.after), 'dense', key),
    })),
  ];
  return [...found, ...scale]
    .filter(({ measured }) => measured)
    .map((target) => ({ ...target, reached: target.bounds.map((bound) => isReached(target, bound)) }));
}

function isReached({ measured, isLess }, bound) {
  return isLess ? measured.median <= bound : measured.median >= bound;
}

function vmRows({ rows }) {
  return rows.map(({ round, one, all }) => ({ round, peer: 'all', ratio: all / one }));
}

/** The ratios of each round to the VM with one container. */
export function containerRows({ dense, single }) {
  return dense.map(({ tcp, udp }, i) => ({
    ...{ round: i + 1, peer: 'dense' },
    ...{ tcp: tcp / single[i].tcp, udp: udp / single[i].udp },
  }));
}
