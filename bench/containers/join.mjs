/** Two containers in a lab, and a peer between them. Whatever was made goes when the lab is closed. */
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { ask } from '../../dist/daemon/control.js';
import { busySeconds } from '../machine.mjs';
import { OVERLAY_PREFIX, UNDERLAY_PREFIX, VMS } from '../overlay/peers.mjs';
import { answers, makeVms, OVERLAY, startDaemon, startVxlan, UNDERLAY } from '../overlay/vms.mjs';
import { packetsOf } from './measure.mjs';

const ATTACH = fileURLToPath(new URL('../../dist/demo/attach.js', import.meta.url));
const BRIDGE = 'bridge0';
/** ms that a daemon and its fast path may take to be ready, and between two looks. */
const [PATIENCE, LOOK] = [30_000, 50];

/** Resolves, once they reach each other, to what the measurements need to know. */
export async function joinContainers(lab, peer, containers, nic) {
  await makeVms(lab, nic);
  await lab.ip(
    undefined,
    containers.map(({ name }) => `netns add ${name}`),
  );
  // Those of a VM that has no container here carry nothing.
  const vms = VMS.filter((_, i) => containers.some(({ vm }) => vm === i));
  const daemons = peer.flags ? vms.map((vm) => startDaemon(lab, vm, peer.flags)) : [];
  if (peer.flags) await Promise.all(vms.map((vm) => running(lab, vm)));
  else await forward(lab, vms);
  if (peer.kind === 'vxlan' && vms.length > 1) await startVxlan(lab, {});
  if (peer.isBridged) await attachToBridges(lab, peer, containers, vms);
  else await attachByRoutes(lab, peer, containers, vms);
  const [from, to] = containers;
  await answers(lab, from, to.address, daemons);
  if (peer.fastPath === 'on') await taken(lab, vms, from, to.address);
  return {
    ...{ from: from.name, to: to.name, address: to.address, cpu: busySeconds },
    status: () => (peer.flags ? statusOf(lab, vms[0]) : undefined),
  };
}

const runDirOf = ({ name }) => `/run/${name}`;
export const statusOf = (lab, vm) => ask(lab.path(runDirOf(vm)), 'status');

export async function running(lab, vm) {
  const isRunning = async () => (await statusOf(lab, vm).catch(() => undefined))?.state === 'running';
  await until(isRunning, () => `the daemon of ${vm.name} does not get ready`);
}

/** Waits until packets of both containers go the fast path. */
async function taken(lab, vms, from, address) {
  let last;
  const isTaken = async () => {
    await lab.run(from.name, ['ping', '-n', '-q', '-c', '3', '-i', '0.01', '-W', '1', address]);
    last = await Promise.all(vms.map(async (vm) => (await statusOf(lab, vm)).fastPath));
    return last.every((fastPath) => packetsOf(fastPath) > 0);
  };
  await until(isTaken, () => `the fast path takes nothing: ${JSON.stringify(last)}`);
}

async function until(isSo, words) {
  for (const deadline = performance.now() + PATIENCE; !(await isSo()); await sleep(LOOK))
    if (performance.now() > deadline) throw new Error(words());
}

/** What the daemon does by itself, where there is none: the VM forwards, and it has its overlay address. */
async function forward(lab, vms) {
  for (const { name, overlay } of vms) {
    await lab.must(name, ['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
    await lab.ip(name, [`address add ${overlay}/32 dev lo`]);
  }
}

/** Attached as Inlay does it, whatever carries the packets on: the same veths, routes and neighbours. */
export async function attachByRoutes(lab, peer, containers, vms) {
  for (const vm of vms) {
    const mtu = peer.mtu ?? (await statusOf(lab, vm)).mtu;
    const own = containers.filter((container) => VMS[container.vm] === vm);
    const plan = {
      ...{ overlay: OVERLAY_PREFIX, underlay: UNDERLAY_PREFIX, local: vm.underlay, mtu },
      containers: own.map(({ name, number }) => ({ netns: name, id: name, container: number })),
    };
    await lab.must(vm.name, [process.execPath, ATTACH], JSON.stringify(plan));
    if (peer.flags) continue;
    for (const other of VMS.filter((each) => each !== vm)) {
      const gateway = peer.kind === 'vxlan' ? `${other.overlay} dev ${OVERLAY}` : `${other.underlay} dev ${UNDERLAY}`;
      await lab.ip(vm.name, [`route add ${sliceOf(other)} via ${gateway} onlink`]);
    }
  }
}

const sliceOf = ({ overlay }) => overlay.replace(/\d+$/, '0/24');

/** One network of the second layer for all containers, as bridges make it. */
async function attachToBridges(lab, { mtu }, containers, vms) {
  for (const vm of vms) {
    await lab.ip(vm.name, [
      `link add ${BRIDGE} type bridge`,
      `link set ${BRIDGE} mtu ${mtu} up`,
      ...(vms.length > 1 ? [`address flush dev ${OVERLAY}`, `link set ${OVERLAY} master ${BRIDGE}`] : []),
    ]);
    for (const { name, address } of containers.filter((container) => VMS[container.vm] === vm)) {
      await lab.ip(vm.name, [
        `link add port-${name} mtu ${mtu} type veth peer name eth0 netns ${name} mtu ${mtu}`,
        `link set port-${name} master ${BRIDGE} up`,
      ]);
      const length = OVERLAY_PREFIX.split('/')[1];
      await lab.ip(name, ['link set lo up', `address add ${address}/${length} dev eth0`, 'link set eth0 up']);
    }
  }
}
