/** Rounds: so many batches one after the other, from cores that are like new. A round's seed brings all of it back. */
import { Batch } from './batch.mjs';
import { Generator } from './generate.mjs';
import { Random } from './random.mjs';

const BATCHES = 500;

const batch = new Batch();

/** The seed of round `n`. */
export const seedOf = (seed, n) => (Math.imul(seed ^ 0x5bd1e995, 0x9e3779b1) + Math.imul(n + 1, 0x85ebca6b)) >>> 0;

/** Runs a round, up to what is wrong. All of memory is compared at its end. `note` is told of each batch before, and of the set-up if it is a new one. */
export function runRound(judge, seed, note = () => {}) {
  judge.reset();
  const generator = new Generator(new Random(seed), batch, judge.sent);
  let packets = 0;
  for (let n = 0; n < BATCHES; n++) {
    const setup = generator.next();
    note(setup);
    packets += batch.packets;
    const unfit = setup ? judge.configure(setup) : null;
    const difference = unfit ?? (n === BATCHES - 1 ? judge.judgeAll(batch) : judge.judge(batch));
    if (difference) return { packets, wrong: { difference, n }, verdicts: judge.verdicts };
  }
  return { packets, wrong: null, verdicts: judge.verdicts };
}

/**
 * What a round did up to what is wrong, as a case: each step with its set-up, so that any of them can be left out. What is generated
 * depends on what the cores sent before, so they have to be the same.
 */
export function caseOf(judge, seed) {
  const steps = [];
  let last = null;
  runRound(judge, seed, (setup) => {
    last = setup ?? last;
    steps.push({ config: last.config, devices: last.devices, ...batch.toStep() });
  });
  return { steps };
}

/** Runs a case from the beginning. Returns what differs, or null. */
export function replay(judge, { steps }) {
  judge.reset();
  for (const { config, devices, ...step } of steps) {
    const unfit = config ? judge.configure({ config, devices }) : null;
    const difference = unfit ?? judge.judge(batch.fromStep(step));
    if (difference) return difference;
  }
  return judge.judgeAll(batch.fromStep(steps.at(-1)));
}
