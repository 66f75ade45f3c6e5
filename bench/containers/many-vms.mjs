/**
 * A container that sends small UDP packets to 65,533 VMs in random order, beside the same to one VM. The other VMs are one network
 * namespace that has all their addresses. Before anything is measured, it has sent one packet of each of them, as the fast path
 * sends to nobody who has not been heard. It counts what arrives and drops it, so nearly all that is measured is the sender's work.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';
import { udpPacket, withOuterHeader } from '../core/packets.mjs';
import { quiet } from '../machine.mjs';
import { OVERLAY_PREFIX, UNDERLAY_PREFIX, VMS } from '../overlay/peers.mjs';
import { startDaemon, UNDERLAY } from '../overlay/vms.mjs';
import { attachByRoutes, running, statusOf } from './join.mjs';
import { packetsOf, partOf, partTaken } from './measure.mjs';
import { CONTAINERS } from './peers.mjs';
import { flood, inject } from './traffic.mjs';

const WORLD = 'world';
const GATEWAY = '192.168.255.254';
/** UDP port that nobody listens at. */
const PORT = 9;
/** Bytes of an inner packet that other VMs send. */
const UDP_SIZE = 64;
/** Packets are sent to all before anything is measured, s at a time, until so great a part goes the fast path: their tunnels are open. */
const WARM_UP = { seconds: 1, part: 0.98, attempts: 30 };
/** Packets of other VMs that are sent at once, and ms until the next ones: no socket's buffer overflows. */
const [AT_A_TIME, PAUSE] = [2000, 50];
/** ms that the fast path may take to begin. */
const PATIENCE = 30_000;
/** How much longer than others this takes: the data plane is to hear of the tunnels meanwhile, as it does every 15 s. */
const LONGER = 2;
/** The number that is multiplied for the random order, and what is added: a full period modulo 2^32 (Numerical Recipes). */
const [FACTOR, SUMMAND] = [1664525, 1013904223];

/** Counts what arrives in tunnels, and drops it as early as can be. */
const SINK = `table netdev sink {
  counter arrived {}
  chain ingress {
    type filter hook ingress device "${UNDERLAY}" priority 0;
    ip protocol gre counter name arrived drop
  }
}
`;

const [VM] = VMS;
const [FROM] = CONTAINERS;
const mapping = new Mapping(parsePrefix(OVERLAY_PREFIX), parsePrefix(UNDERLAY_PREFIX));
const number = (text) => text.split('.').reduce((value, part) => value * 256 + Number(part), 0);

export async function manyVms(lab, { rounds, seconds }, tell) {
  await makeWorld(lab);
  const flags = ['--encapsulation', 'gre', '--fast-path', 'on'];
  startDaemon(lab, VM, flags);
  await running(lab, VM);
  await lab.ip(undefined, [`netns add ${FROM.name}`]);
  await attachByRoutes(lab, { flags }, [FROM], [VM]);

  const vms = otherVms();
  const all = vms.map((vm) => containerOf(vm));
  const one = [containerOf(number(VMS[1].underlay))];
  await greet(lab, vms);
  await begun(lab, one);
  tell(`${vms.length} tunnels opened in ${(await open(lab, all)).toFixed(0)} s`);
  const background = await quiet();
  const rows = [];
  const before = await statusOf(lab, VM);
  for (let round = 1; round <= rounds; round++) {
    const row = { round };
    for (const [name, addresses] of round % 2 ? [['one', one], ['all', all]] : [['all', all], ['one', one]]) // biome-ignore format: one line
      row[name] = await delivered(lab, addresses, LONGER * seconds);
    rows.push(row);
    tell(`to ${vms.length} VMs [${round}/${rounds}] ${row.all.toFixed(0)} kpps, to one ${row.one.toFixed(0)} kpps`);
  }
  const after = await statusOf(lab, VM);
  return { count: vms.length, rows, background, part: partTaken(before, after, true), tunnels: after.tunnels };
}

/** The underlay is routed: a neighbour table of 65,534 VMs would be too much for any kernel as it is. */
async function makeWorld(lab) {
  await lab.ip(undefined, [
    `netns add ${VM.name}`,
    `netns add ${WORLD}`,
    `link add ${UNDERLAY} netns ${VM.name} type veth peer name ${UNDERLAY} netns ${WORLD}`,
  ]);
  await lab.ip(VM.name, [
    ...['link set lo up', `address add ${VM.underlay}/32 dev ${UNDERLAY}`, `link set ${UNDERLAY} up`],
    ...[`route add ${GATEWAY} dev ${UNDERLAY}`, `route add ${UNDERLAY_PREFIX} via ${GATEWAY}`],
  ]);
  await lab.ip(WORLD, [
    ...['link set lo up', `address add ${GATEWAY}/32 dev ${UNDERLAY}`, `link set ${UNDERLAY} up`],
    ...[`route add ${VM.underlay} dev ${UNDERLAY}`, `route add local ${UNDERLAY_PREFIX} dev lo table main`],
  ]);
  await lab.must(WORLD, ['nft', '-f', '-'], SINK);
}

/** All but this one, in random order. The first and the last address of the prefix are no VMs. */
function otherVms() {
  const first = number(UNDERLAY_PREFIX.split('/')[0]);
  const numbers = Array.from({ length: 2 ** mapping.vmBits - 2 }, (_, i) => first + 1 + i);
  const vms = numbers.filter((vm) => vm !== number(VM.underlay));
  let random = 1;
  for (let i = vms.length - 1; i > 0; i--) {
    random = (Math.imul(random, FACTOR) + SUMMAND) >>> 0;
    const other = Math.floor((random / 2 ** 32) * (i + 1));
    [vms[i], vms[other]] = [vms[other], vms[i]];
  }
  return vms;
}

function containerOf(vm) {
  const slice = (vm % 2 ** mapping.vmBits) * 2 ** mapping.containerBits;
  return number(OVERLAY_PREFIX.split('/')[0]) + slice + FROM.number + 1;
}

/** A packet of each VM to the container. */
async function greet(lab, vms) {
  const here = number(VM.underlay);
  for (let i = 0; i < vms.length; i += AT_A_TIME) {
    const packets = vms.slice(i, i + AT_A_TIME).map((vm) => {
      const inner = udpPacket(UDP_SIZE, containerOf(vm), number(FROM.address));
      return withOuterHeader(inner, vm, here);
    });
    await inject(lab, WORLD, packets);
    await sleep(PAUSE);
  }
}

/** Waits until packets of the container go the fast path. */
async function begun(lab, one) {
  for (const deadline = performance.now() + PATIENCE; ; ) {
    await flood(lab, FROM.name, one, PORT, 0.01);
    const { fastPath } = await statusOf(lab, VM);
    if (packetsOf(fastPath) > 0) return;
    if (performance.now() > deadline) throw new Error(`the fast path takes nothing: ${JSON.stringify(fastPath)}`);
  }
}

/** Resolves to how many s it took. */
async function open(lab, all) {
  for (let attempt = 1, before = await statusOf(lab, VM); ; attempt++) {
    await flood(lab, FROM.name, all, PORT, WARM_UP.seconds);
    const after = await statusOf(lab, VM);
    const part = partOf(before, after);
    if (part >= WARM_UP.part) return attempt * WARM_UP.seconds;
    if (attempt === WARM_UP.attempts)
      throw new Error(`of packets to ${all.length} VMs, only ${part.toFixed(2)} go the fast path`);
    before = after;
  }
}

/** Thousands of packets a second that arrive. */
async function delivered(lab, addresses, seconds) {
  const before = await arrived(lab);
  const { seconds: time } = await flood(lab, FROM.name, addresses, PORT, seconds);
  return ((await arrived(lab)) - before) / time / 1000;
}

async function arrived(lab) {
  const text = await lab.must(WORLD, ['nft', 'list', 'counter', 'netdev', 'sink', 'arrived']);
  return Number(/packets (\d+)/.exec(text)[1]);
}
