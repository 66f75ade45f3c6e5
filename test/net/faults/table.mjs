/** The faults: what others do to a VM's network while its daemon runs, as shell commands in the VM's namespace. */
import { PLANES } from '../planes.mjs';
import { restoreFilters, restoreRoutes, restoreSysctls } from './foreign.mjs';

const WASM = ['wasm', 'wasm-udp'];
const KERNEL = ['kernel'];
const ADDRESS = '192.168.16.32/16';
const CONTAINER = '10.16.32.91 dev veth90';
const DEVICE = '/proc/sys/net/ipv4/conf/inlay0';
const ALL_FORWARD = '/proc/sys/net/ipv4/ip_forward';
/** The lab's own namespace, where the underlay's bridge is. */
const OUTSIDE = 'nsenter --target 1 --net';

/**
 * A fault is one step or several. Each step is a command, and what has to be seen after it: `state` (everything as before), `traffic` (answers come) or `mtu`
 * (the MTU of inlay0 is 100 bytes less). `counted`: `repaired` has to grow. `warnings`: how many lines at level warn a step may cost.
 */
function fault(name, command, { planes = Object.keys(PLANES), counted = true, warnings = 1, more = [] } = {}) {
  const steps = [typeof command === 'string' ? { command, seen: 'state' } : command, ...more];
  return { name, planes, counted, warnings: warnings * steps.length, steps };
}
const state = (command) => ({ command, seen: 'state' });
/** The underlay goes and comes back: two lines of the log. */
const underlay = { counted: false, warnings: 2 };
/** Two changes, which a busy machine makes so far apart that each is put right by itself. */
const twice = { warnings: 2 };

export const FAULTS = [
  fault('device down', 'ip link set inlay0 down'),
  fault('device deleted', 'ip link del inlay0'),
  fault(
    'device renamed',
    "printf 'link set inlay0 down\\nlink set inlay0 name x0\\n' | ip -batch -; ip link set x0 up 2>/dev/null || true",
  ),
  fault('device MTU 1400', 'ip link set inlay0 mtu 1400'),
  fault('address deleted', 'ip address del 10.16.32.1/32 dev inlay0'),
  fault('addresses flushed', 'ip address flush dev inlay0'),
  fault('overlay route deleted', 'ip route del 10.0.0.0/8 dev inlay0'),
  fault("device's routes flushed", 'ip route flush dev inlay0'),
  fault('flush of proto 73', 'ip route flush proto 73'),
  fault('flush of proto 75', 'ip route flush proto 75'),
  fault("slice's unreachable deleted", 'ip route del unreachable 10.16.32.0/24 metric 4294967295'),
  fault('catch-all route deleted', 'ip route del unreachable 10.0.0.0/8 proto 75 metric 1'),
  fault("catch-all's rules deleted", 'ip rule del priority 32700; ip rule del priority 32701', twice),
  fault('flush of the overlay', `ip route flush root 10.0.0.0/8; ip route add ${CONTAINER}\n${restoreRoutes}`),
  fault('forwarding of inlay0 off', `echo 0 >${DEVICE}/forwarding`),
  fault(
    'ip_forward on and off',
    `echo 1 >${ALL_FORWARD}; echo 0 >${ALL_FORWARD}; echo 1 >/proc/sys/net/ipv4/conf/veth90/forwarding\n${restoreSysctls}`,
    twice,
  ),
  fault('rp_filter of inlay0 on', `echo 1 >${DEVICE}/rp_filter`, { planes: ['wasm'] }),
  fault('accept_local of inlay0 off', `echo 0 >${DEVICE}/accept_local`, { planes: WASM }),
  fault('filter of inlay0 removed', 'tc filter del dev inlay0 ingress prio 73', { planes: KERNEL }),
  fault('clsact of inlay0 removed', 'tc qdisc del dev inlay0 clsact', { planes: KERNEL }),
  fault('filter of eth0 removed', 'tc filter del dev eth0 ingress prio 73', { planes: KERNEL }),
  fault('clsact of eth0 removed', `tc qdisc del dev eth0 clsact\n${restoreFilters}`, { planes: KERNEL }),
  fault(
    'underlay address gone for 0.3 s',
    `ip address del ${ADDRESS} dev eth0; sleep 0.3; ip address add ${ADDRESS} dev eth0`,
    underlay,
  ),
  fault(
    'underlay address moved',
    { command: `ip address del ${ADDRESS} dev eth0; ip address add ${ADDRESS} dev eth1`, seen: 'traffic' },
    { ...underlay, more: [state(`ip address del ${ADDRESS} dev eth1; ip address add ${ADDRESS} dev eth0`)] },
  ),
  fault('underlay device down for 0.3 s', 'ip link set eth0 down; sleep 0.3; ip link set eth0 up', underlay),
  fault(
    'underlay device made anew',
    `mac=$(cat /sys/class/net/eth0/address); ip link del eth0; sleep 0.3
     ip link add eth0 address $mac type veth peer name port-a netns 1
     ${OUTSIDE} ip link set port-a master underlay up
     ip link set eth0 addrgenmode none up; ip address add ${ADDRESS} dev eth0
     echo 1 >/proc/sys/net/ipv4/conf/eth0/arp_ignore\n${restoreFilters}`,
    underlay,
  ),
  fault(
    'underlay MTU 1400 and 1500',
    { command: 'ip link set eth0 mtu 1400', seen: 'mtu' },
    { counted: false, more: [state('ip link set eth0 mtu 1500')] },
  ),
];

/** Those of one data plane. */
export const faultsOf = (plane) => FAULTS.filter(({ planes }) => planes.includes(plane));

/** Puts the underlay and foreign objects right, whatever a fault did. */
export const PUT_BACK = `ip route del 10.0.0.0/8 dev o-veth2 2>/dev/null; ip address del ${ADDRESS} dev eth1 2>/dev/null; ip link set eth0 up mtu 1500
  ip address replace ${ADDRESS} dev eth0; ip route replace ${CONTAINER}
  echo 1 >/proc/sys/net/ipv4/conf/veth90/forwarding
  tc filter show dev eth0 ingress | grep -q u32 || { tc qdisc del dev eth0 clsact; ${restoreFilters}
  }
  ${restoreRoutes}${restoreSysctls}`;
