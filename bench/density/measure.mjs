/** What is done with the VMs, in this order; each step's figures. */
import { busyCores } from '../machine.mjs';
import { tcp, udp } from '../overlay/measure.mjs';
import { median } from '../statistics.mjs';
import { settledMemory, World } from './world.mjs';

/** Numbers of containers at which attaching is measured, as far as there are so many. */
const LEVELS = [100, 1000, 4000, 8000];
/** Attaches and detaches before anything counts: compilers settle. */
const WARM_UP = 1000;
/** Single detaches that are measured at each number: each takes 20 ms. */
const DETACHES = 30;
/** Containers that leave a full VM, and are replaced. */
const REPLACED = 30;
/** Streams to either VM, in turns; restarts of either daemon. */
const [STREAMS, RESTARTS] = [6, 3];
/** ms after a daemon's start in which its CPU time is looked at. */
const SETTLING = 5000;
/** s of traffic without churn, for comparison. */
const CALM = 15;
/** Pings a second during the churn, to those that stay. */
const PULSE = 500;
/** How often those that did not answer a ping are tried again. */
const AGAIN = 3;
/** First port of iperf3's servers: each has its own, so that none waits for one that is just ending. */
const PORT = 5201;

export async function measure(lab, options, tell) {
  const { containers, rounds, churn, dataplane } = options;
  const background = await busyCores(2000);
  tell(`before anything was started, the machine used ${background.toFixed(2)} cores`);
  const flags = ['--dataplane', dataplane, ...(dataplane === 'kernel' ? ['--encapsulation', 'vxlan'] : [])];
  const world = await World.make(lab, flags, containers);
  const figures = { background };
  figures.throughputBefore = await throughput(world, options.seconds, PORT);
  await world.host('sample', { rounds: WARM_UP, detaches: 3 });

  const before = {
    kernel: await settledMemory(),
    daemon: await world.daemon(world.dense),
    peer: await world.counts(world.peer),
  };
  figures.levels = [];
  figures.seconds = 0;
  // One of them is there from the beginning.
  const others = containers - 1;
  for (const level of [...LEVELS.filter((each) => each < others), others]) {
    figures.seconds += await world.host('grow', { to: level });
    if (level === others && World.capacity - containers < rounds) break;
    const { attach, floorAttach, ...detaches } = await world.host('sample', { rounds, detaches: DETACHES });
    figures.levels.push({ present: level, attach, floorAttach, ...detaches });
    tell(
      `${level}: attached in ${msOf(attach).toFixed(3)} ms, by the kernel alone in ${msOf(floorAttach).toFixed(3)} ms`,
    );
  }
  figures.memory = await memory(world, before, others);
  tell(`${containers} containers attached in ${figures.seconds.toFixed(1)} s`);

  figures.reach = await reach(world, tell);
  figures.entries = { before: before.peer, after: await world.counts(world.peer) };
  figures.replace = await world.host('replace', { count: REPLACED });
  tell(`with ${containers} there, one that comes for one that left: ${median(figures.replace).toFixed(2)} ms`);
  figures.throughput = await throughput(world, options.seconds, PORT + 100);
  figures.starts = await starts(world);
  tell(`the daemon starts in ${median(figures.starts.dense.map(({ ms }) => ms)).toFixed(0)} ms`);

  const staying = Math.min(options.present, others);
  const leaving = others - staying;
  if (leaving > 0) figures.together = { count: leaving, ms: await world.host('shrink', { to: staying }) };
  if (churn > 0) figures.churn = await comeAndGo(world, options, tell);
  figures.rest = { count: staying, ms: await world.host('shrink', { to: 0 }) };
  figures.left = await world.counts(world.dense);
  return figures;
}

const msOf = (taken) => median(taken.map(({ ms }) => ms));

/** Gbit/s of one TCP stream and thousands of small UDP packets a second, to a VM with very many containers and to one with one. */
export async function throughput(world, seconds, firstPort, rounds = STREAMS) {
  const found = { dense: [], single: [] };
  let port = firstPort;
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 ? ['dense', 'single'] : ['single', 'dense']) {
      const stream = await tcp(world.streamTo(world[name], port++), 1, seconds);
      const { delivered } = await udp(world.streamTo(world[name], port++), 0, seconds);
      found[name].push({ tcp: stream.rate, udp: delivered });
    }
  }
  return found;
}

/** kB of the kernel, of one container with its namespace; MB of the daemon, of all. */
async function memory(world, before, count) {
  const now = await settledMemory();
  const daemon = await world.daemon(world.dense);
  return {
    available: (before.kernel.available - now.available) / count,
    objects: (now.objects - before.kernel.objects) / count,
    daemon: { before: before.daemon.memory, after: daemon.memory },
  };
}

/** Whether each answers a ping and a TCP connection from another VM's container. */
async function reach(world, tell) {
  await world.host('serve');
  const addresses = await world.host('addresses');
  const lost = [];
  let missing = addresses;
  for (let i = 0; i <= AGAIN && missing.length > 0; i++) {
    missing = await world.probe('pingAll', { addresses: missing });
    lost.push(missing.length);
  }
  const unconnected = await world.probe('connectAll', { addresses });
  tell(
    `${addresses.length - missing.length} of ${addresses.length} answer pings, ${addresses.length - unconnected.length} connections`,
  );
  return { count: addresses.length, lost, silent: missing.length, unconnected: unconnected.length };
}

async function starts(world) {
  const found = { dense: [], single: [] };
  for (let i = 0; i < RESTARTS; i++)
    for (const name of i % 2 ? ['dense', 'single'] : ['single', 'dense'])
      found[name].push(await world.restart(world[name], SETTLING));
  return found;
}

/** What is there and what is used, at one moment. */
async function moment(world) {
  const [counts, daemon, descriptors] = [
    await world.counts(world.dense),
    await world.daemon(world.dense),
    await world.host('descriptors'),
  ];
  return { at: performance.now(), counts, daemon, descriptors, kernel: await settledMemory() };
}

async function comeAndGo(world, { rate, churn }, tell) {
  const addresses = await world.host('addresses');
  await world.probe('start', { addresses, rate: PULSE });
  const first = await moment(world);
  await new Promise((resolve) => setTimeout(resolve, CALM * 1000));
  const before = await moment(world);
  const { attachMs, detachMs, ...rest } = await world.host('churn', { rate, seconds: churn });
  const after = await moment(world);
  const pulse = await world.probe('stop');
  tell(
    `${rest.attaches} came and went in ${rest.elapsed.toFixed(1)} s; ${pulse.lost} of ${pulse.sent} pings to the others lost`,
  );
  const percent = (a, b, what) => ((b.daemon[what] - a.daemon[what]) / ((b.at - a.at) / 1000)) * 100;
  const cpu = (a, b) => ({ all: percent(a, b, 'cpu'), control: percent(a, b, 'control') });
  return {
    ...{ ...rest, attachMs, detachMs, pulse, present: addresses.length },
    ...{ calmCpu: cpu(first, before), churnCpu: cpu(before, after) },
    ...{ before, after },
  };
}
