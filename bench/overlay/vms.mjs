/** Two VMs in a lab of their own, joined by a veth, and a peer between them. Whatever was made goes when the lab is closed. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Entries } from '../../dist/dataplane/kernel/entries.js';
import { parseAddress, parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';
import { TICKS } from '../machine.mjs';
import { OVERLAY_PREFIX, SEGMENTATION, UNDERLAY_PREFIX, VMS } from './peers.mjs';

const CLI = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
/** Name of the underlay's device in each VM, and of the overlay's. */
export const UNDERLAY = 'eth0';
export const OVERLAY = 'overlay0';
const MTU = 1500;
/** What vxlan adds: outer IPv4 (20), UDP (8), VXLAN (8) and the inner Ethernet header (14). */
const VXLAN_OVERHEAD = 50;
/** s */
const READY_TIMEOUT = 30;

/** Makes the VMs and starts the peer. Resolves, once it answers, to what the measurements need to know. */
export async function joinVms(lab, peer, nic) {
  await makeVms(lab, nic);
  if (peer.underlayOff) for (const { name } of VMS) await switchFeatures(lab, name, UNDERLAY, peer.underlayOff, 'off');
  if (peer.kind === 'vxlan') await startVxlan(lab, peer);
  if (peer.kind === 'static') await setUpByHand(lab, peer);
  const daemons = peer.kind === 'inlay' ? VMS.map((vm) => startDaemon(lab, vm, peer.flags)) : [];
  const [from, to] = VMS;
  const address = peer.kind === 'none' ? to.underlay : to.overlay;
  await answers(lab, from, address, daemons);
  return { from: from.name, to: to.name, address, cpu: await cpuMeter(lab, daemons) };
}

/** Two VMs; `cut`: what TCP sends is cut in software before the wire, and merged behind it. */
export async function makeVms(lab, nic) {
  const [a, b] = VMS;
  await lab.ip(undefined, [
    `netns add ${a.name}`,
    `netns add ${b.name}`,
    `link add ${UNDERLAY} netns ${a.name} mtu ${MTU} type veth peer name ${UNDERLAY} netns ${b.name} mtu ${MTU}`,
  ]);
  for (const { name, underlay } of VMS) {
    // Neighbour discovery and the like would be traffic that nobody asked for.
    const quiet = 'for i in all default; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done';
    await lab.must(name, ['sh', '-c', `[ ! -d /proc/sys/net/ipv6 ] || { ${quiet}; }`]);
    const length = UNDERLAY_PREFIX.split('/')[1];
    await lab.ip(name, [
      'link set lo up',
      `address add ${underlay}/${length} dev ${UNDERLAY}`,
      `link set ${UNDERLAY} up`,
    ]);
    if (nic !== 'cut') continue;
    await switchFeatures(lab, name, UNDERLAY, SEGMENTATION, 'off');
    await switchFeatures(lab, name, UNDERLAY, ['gro'], 'on');
  }
}

/** Switches features of a device and makes sure of it: ethtool(8) is content if some of them cannot be changed. */
async function switchFeatures(lab, vm, device, features, state) {
  await lab.must(vm, ['ethtool', '-K', device, ...features.flatMap((feature) => [feature, state])]);
  const shown = await lab.must(vm, ['ethtool', '-k', device]);
  const longNames = {
    tso: 'tcp-segmentation-offload',
    gso: 'generic-segmentation-offload',
    gro: 'generic-receive-offload',
  };
  for (const feature of features) {
    const name = longNames[feature] ?? feature;
    if (!new RegExp(`^${name}: ${state}`, 'm').test(shown))
      throw new Error(`${device}: ${name} cannot be set ${state}`);
  }
}

export async function startVxlan(lab, { overlayOff }) {
  for (const [i, vm] of VMS.entries()) {
    const ends = `local ${vm.underlay} remote ${VMS[1 - i].underlay} dev ${UNDERLAY}`;
    await lab.ip(vm.name, [
      `link add ${OVERLAY} type vxlan id 42 ${ends} dstport 4789 nolearning`,
      `address add ${vm.overlay}/${OVERLAY_PREFIX.split('/')[1]} dev ${OVERLAY}`,
      `link set ${OVERLAY} mtu ${MTU - VXLAN_OVERHEAD} up`,
    ]);
    if (overlayOff) await switchFeatures(lab, vm.name, OVERLAY, overlayOff, 'off');
  }
}

/** What `up --dry-run` prints, and what the daemon does at the first packet. */
async function setUpByHand(lab, { encapsulation }) {
  const flags = ['--overlay', OVERLAY_PREFIX, '--underlay', UNDERLAY_PREFIX, '--device', OVERLAY];
  const words = [...flags, '--dataplane', 'kernel', '--encapsulation', encapsulation, '--dry-run'];
  const [overlay, underlay] = [OVERLAY_PREFIX, UNDERLAY_PREFIX].map((text) => parsePrefix(text));
  const mappings = [new Mapping(overlay, underlay)];
  for (const [i, vm] of VMS.entries()) {
    const commands = await lab.must(vm.name, [process.execPath, CLI, 'up', ...words]);
    const local = parseAddress(vm.underlay);
    const isVxlan = encapsulation === 'vxlan';
    const entries = new Entries({ mappings, local, device: OVERLAY, ifindex: 0, isVxlan });
    const other = Number(parseAddress(VMS[1 - i].underlay).bits);
    await lab.must(vm.name, ['sh', '-e'], [commands, ...entries.commands(other)].join('\n'));
  }
}

/** Starts one VM's daemon; it configures device, address and routes itself. */
export function startDaemon(lab, { name }, flags) {
  const prefixes = ['--overlay', OVERLAY_PREFIX, '--underlay', UNDERLAY_PREFIX];
  const words = [process.execPath, CLI, 'up', ...prefixes, '--device', OVERLAY, '--run-dir', `/run/${name}`, ...flags];
  const child = lab.start(name, words, { stdio: ['ignore', 'ignore', 'pipe'] });
  const daemon = { name, child, log: '' };
  child.stderr.on('data', (chunk) => {
    daemon.log = (daemon.log + chunk).slice(-2000);
  });
  return daemon;
}

/** Waits until an address answers. */
export async function answers(lab, from, address, daemons) {
  const deadline = performance.now() + READY_TIMEOUT * 1000;
  for (;;) {
    const { code } = await lab.run(from.name, ['ping', '-n', '-c', '1', '-W', '1', address]);
    if (code === 0) return;
    const ended = daemons.find(({ child }) => child.exitCode !== null || child.signalCode !== null);
    if (ended) throw new Error(`the daemon of ${ended.name} ended${logsOf([ended])}`);
    if (performance.now() > deadline) throw new Error(`${address} does not answer${logsOf(daemons)}`);
    await sleep(100);
  }
}

/**
 * A function that tells the CPU seconds that the daemons have used so far, with all their threads and what the kernel did for them in
 * system calls. A daemon is what runs in the VMs before anything is measured.
 */
async function cpuMeter(lab, daemons) {
  const lists = await Promise.all(VMS.map(({ name }) => lab.must(undefined, ['ip', 'netns', 'pids', name])));
  const files = lists.flatMap((list) => list.split('\n').filter(Boolean)).map((pid) => lab.path(`/proc/${pid}/stat`));
  return () => {
    try {
      return files.reduce((sum, file) => sum + ticksIn(readFileSync(file, 'utf8')), 0) / TICKS;
    } catch (cause) {
      throw new Error(`a daemon ended${logsOf(daemons)}`, { cause });
    }
  };
}

/** utime and stime, the 14th and 15th field (proc(5)). The second is the command's name in parentheses, which may hold anything. */
function ticksIn(stat) {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return Number(fields[11]) + Number(fields[12]);
}

function logsOf(daemons) {
  return daemons.map(({ name, log }) => `\n${name}: ${log.trim()}`).join('');
}
