/**
 * A process on a VM that attaches containers by the library, and beside them others by as little as the kernel
 * needs. It is told by messages what to do.
 */
import { readdirSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Containers } from '../../dist/containers/containers.js';
import { addressBytes } from '../../dist/linux/netlink/ipv4.js';
import { parseAddress, parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';
import { timed } from './clock.mjs';
import { obey } from './commands.mjs';
import { Floor } from './floor.mjs';
import { allowFiles, Namespace } from './namespaces.mjs';

/** Descriptors beside the two of each container. */
const FILES = 1000;
/** Servers that are started before others have their turn. */
const AT_A_TIME = 200;
/** s that nobody gets an address that was given back: nobody waits for that here, but for the churn. */
const [NO_COOL_DOWN, COOL_DOWN] = [0, 60];
/** Detaches of the churn that go together. One takes 20 ms, in which the kernel does nothing else of the kind. */
const TOGETHER = 10;

let mesh;
let containers;
let floor;
/** { namespace, id, address } of what is attached, in that order. */
let present = [];

function open({ overlay, underlay, local, mtu, count }) {
  allowFiles(2 * count + FILES);
  const mappings = [new Mapping(parsePrefix(overlay), parsePrefix(underlay))];
  mesh = { mappings, local: parseAddress(local), mtu, coolDown: COOL_DOWN };
  containers = Containers.open(mesh, { coolDown: NO_COOL_DOWN });
  floor = new Floor({ mtu, gateway: addressBytes(containers.slice.gateway) });
}

/** One container more, in a namespace of its own. */
function attach(by = containers) {
  const namespace = new Namespace();
  const { id, address } = by.attach({ netns: namespace.path });
  return { namespace, id, address };
}

/** Attaches until so many are there; s that this took, namespaces included. */
function grow({ to }) {
  const { ms } = timed(() => {
    while (present.length < to) present.push(attach());
  });
  return ms / 1000;
}

/** What attaching and detaching one more takes, by the library and by the floor in turns. */
function sample({ rounds, detaches }) {
  const taken = { attach: [], floorAttach: [], detach: [], floorDetach: [] };
  const own = [];
  const bare = [];
  for (let i = 0; i < rounds; i++) {
    const [mine, other] = [new Namespace(), new Namespace()];
    const prepared = floor.prepare(other.fd);
    bare.push({ namespace: other, prepared });
    const both = [
      () => taken.attach.push(timed(() => own.push({ namespace: mine, ...containers.attach({ netns: mine.path }) }))),
      () => taken.floorAttach.push(timed(() => floor.attach(prepared))),
    ];
    for (const each of i % 2 ? both : both.toReversed()) each();
  }
  for (let i = 0; i < Math.min(detaches, rounds); i++) {
    const [{ id }, end] = [own[i], floor.prepareEnd(bare[i].prepared)];
    const both = [
      () => taken.detach.push(timed(() => containers.detach({ id }))),
      () => taken.floorDetach.push(timed(() => floor.detach(end))),
    ];
    for (const each of i % 2 ? both : both.toReversed()) each();
  }
  containers.detachAll(own.slice(detaches));
  floor.clear();
  for (const { namespace } of [...own, ...bare]) namespace.close();
  return taken;
}

/** ms of attaching where a few have just left: nearly all addresses are taken, and the next one has to be looked for. */
function replace({ count }) {
  const leaving = Array.from({ length: count }, (_, i) => present[Math.floor(((i + 0.5) * present.length) / count)]);
  remove(leaving);
  return Array.from({ length: count }, () => timed(() => present.push(attach())).ms);
}

/** Detaches all but so many; ms that this took. */
function shrink({ to }) {
  return timed(() => remove(present.slice(to))).ms;
}

function remove(some, by = containers) {
  by.detachAll(some);
  for (const { namespace } of some) namespace.close();
  const gone = new Set(some);
  present = present.filter((each) => !gone.has(each));
}

async function serve() {
  for (let i = 0; i < present.length; i += AT_A_TIME)
    await Promise.all(present.slice(i, i + AT_A_TIME).map(({ namespace, address }) => namespace.serve(address)));
}

/**
 * So many attaches and detaches a second. Those that leave were the last to come, so that who was there before
 * is there all the time.
 */
async function churn({ rate, seconds }) {
  const own = Containers.open(mesh);
  const [attachMs, detachMs] = [[], []];
  const here = new Set(present.map(({ address }) => address));
  const leftAt = new Map();
  const faults = { collisions: 0, early: 0 };
  const coming = [];
  const come = () => {
    let one;
    const { ms } = timed(() => {
      one = attach(own);
    });
    attachMs.push(ms);
    if (here.has(one.address)) faults.collisions++;
    if (performance.now() - (leftAt.get(one.address) ?? -Infinity) < COOL_DOWN * 1000) faults.early++;
    here.add(one.address);
    coming.push(one);
  };
  const go = () => {
    const leaving = coming.splice(0, TOGETHER);
    detachMs.push(timed(() => own.detachAll(leaving)).ms);
    for (const { namespace, address } of leaving) {
      namespace.close();
      here.delete(address);
      leftAt.set(address, performance.now());
    }
  };
  const start = performance.now();
  for (let done = 0; done < rate * seconds; ) {
    const due = Math.min(rate * seconds, ((performance.now() - start) / 1000) * rate);
    for (; done < due; done++) {
      come();
      if (coming.length === 2 * TOGETHER) go();
    }
    await sleep(5);
  }
  while (coming.length > 0) go();
  const elapsed = (performance.now() - start) / 1000;
  own.close();
  return { attachMs, detachMs, elapsed, attaches: attachMs.length, ...faults };
}

const addresses = () => present.map(({ address }) => address);
const descriptors = () => readdirSync('/proc/self/fd').length;

obey({ open, grow, sample, replace, shrink, serve, churn, addresses, descriptors });
