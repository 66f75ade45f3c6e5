/** Rounds: so many batches one after the other, from cores that are like new. A round's seed brings all of it back. */
import { Batch } from './batch.mjs';
import { verdictsOf } from './cores.mjs';
import { Generator } from './generate.mjs';
import { Random } from './random.mjs';

const BATCHES = 500;

const batch = new Batch();

/** The seed of round `n`. */
export const seedOf = (seed, n) => (Math.imul(seed ^ 0x5bd1e995, 0x9e3779b1) + Math.imul(n + 1, 0x85ebca6b)) >>> 0;

/** Lets `visit` look at each batch, and the set-up if it is a new one, until it returns something; returns that. */
function generate(seed, visit) {
  const generator = new Generator(new Random(seed), batch);
  for (let n = 0; n < BATCHES; n++) {
    const setup = generator.next();
    const seen = visit(setup, n);
    if (seen) return seen;
  }
  return null;
}

/** Runs a round. All of memory is compared at its end. */
export function runRound(judge, cores, seed) {
  judge.reset();
  let packets = 0;
  const wrong = generate(seed, (setup, n) => {
    packets += batch.packets;
    const unfit = setup ? judge.configure(setup) : null;
    const difference = unfit ?? (n === BATCHES - 1 ? judge.judgeAll(batch) : judge.judge(batch));
    return difference && { difference, n };
  });
  return { packets, wrong, verdicts: verdictsOf(cores[0]) };
}

/** What a round did up to batch `n`, as a case. */
export function caseOf(seed, n) {
  const steps = [];
  generate(seed, (setup, i) => {
    steps.push({ ...(setup && { config: setup.config, devices: setup.devices }), ...batch.toStep() });
    return i === n;
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
