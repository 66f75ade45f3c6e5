/** Peers that take turns, from container to container: what each test measures of one. */
import { outcomeOf } from '../lab.mjs';
import { quiet } from '../machine.mjs';
import { tcp, udp } from '../overlay/measure.mjs';
import { exchanges, roundTrip } from './traffic.mjs';

/** First TCP port of the servers: each has its own, so that none waits for one that is just ending. */
const PORT = 5201;
/** s of TCP before anything is measured: compilers and congestion windows settle. */
const WARM_UP = 1;
/** The least part of the packets that has to go the fast path, where there is one: else it is not the fast path that is measured. */
const LEAST_TAKEN = 0.9;

/**
 * us of a round trip; thousands of requests a second that were answered; thousands of UDP packets a second; Gbit/s with four
 * streams and with one, and for the latter the CPU seconds of the whole machine per GB.
 */
const TESTS = [
  async (run) => ({ rtt: await roundTrip(run) }),
  async (run, seconds) => ({ exchanges: (await exchanges(run, seconds)) / 1000 }),
  async (run, seconds) => ({ udp: deliveredOf(await udp(run, 0, seconds)) }),
  async (run, seconds) => ({ tcp4: (await tcp(run, 4, seconds)).rate }),
  async (run, seconds) => {
    const { rate, cpu } = await tcp(run, 1, seconds);
    return { tcp1: rate, cpu };
  },
];

/**
 * Rows of all peers, a round after the other. All are there at once and take turns with each test, so that a busy second hits all of
 * them. `join` makes a peer in a lab; `tell` is given each row. A peer that fails in a test is left out for the rest of the round.
 */
export async function takeTurns({ labs, peers, join, rounds, seconds, tell }) {
  const runs = [];
  for (const [i, peer] of peers.entries()) runs.push(await joined(labs[i], peer, join));
  const all = [];
  for (let round = 1; round <= rounds; round++) {
    const background = await quiet();
    const turns = runs.map((run) => ({ run, row: { round, peer: run.peer.name, background } }));
    if (round % 2 === 0) turns.reverse();
    const inTurn = async (work) => {
      for (const { run, row } of turns) if (!row.error) Object.assign(row, await outcomeOf(() => work(run)));
    };
    await inTurn(begin);
    for (const test of TESTS) await inTurn((run) => test(run, seconds));
    await inTurn(end);
    const rows = runs.map((run) => turns.find((turn) => turn.run === run).row);
    for (const row of rows) tell(row);
    all.push(...rows);
  }
  return all;
}

async function joined(lab, peer, join) {
  const run = { lab, peer, port: PORT };
  const failed = await outcomeOf(async () => {
    run.vms = await join(lab, peer);
    await tcp(run, 1, WARM_UP);
  });
  return { ...run, ...failed };
}

async function begin(run) {
  if (run.error) throw new Error(run.error);
  run.before = await run.vms.status();
}

async function end({ before, vms, peer }) {
  return before && { part: partTaken(before, await vms.status(), peer.fastPath === 'on') };
}

function deliveredOf({ delivered }) {
  if (!(delivered > 0)) throw new Error('no UDP packet was delivered');
  return delivered;
}

/** Which part of the packets the fast path took between two looks at `status`. Throws if that is not what was to be measured. */
export function partTaken(before, after, isOn) {
  const part = partOf(before, after);
  if (isOn ? part >= LEAST_TAKEN : part === 0) return part;
  throw new Error(`the fast path took ${part.toFixed(3)} of the packets`);
}

/** The same, whatever it is. Packets between containers of one VM count nowhere else. */
export function partOf(before, after) {
  const taken = packetsOf(after.fastPath) - packetsOf(before.fastPath);
  const local = (after.fastPath?.local.packets ?? 0) - (before.fastPath?.local.packets ?? 0);
  const all = after.outbound.received - before.outbound.received + local;
  return all > 0 ? taken / all : 0;
}

/** What the fast path took, out of a VM or between two containers of it. */
export function packetsOf(fastPath) {
  return (fastPath?.outbound.packets ?? 0) + (fastPath?.local.packets ?? 0);
}
