/** Measures one case on one core, and makes sure that the core really did the work. */
import { createHash } from 'node:crypto';
import Benchmark from 'benchmark';
import { quantile } from '../statistics.mjs';

/** s: of one measurement, and of each of its samples, which is shorter than the time that a scheduler takes the CPU away for. */
const TIME = 0.03;
const SAMPLE = 0.001;

/** Seconds that one run of the case takes. */
export function measure(benchCase, core) {
  const { run, refresh, direction, packets, check } = benchCase.prepare(core);
  const before = direction && core.counters(direction);
  let runs = 0;
  const whole = refresh
    ? () => {
        runs++;
        refresh();
        run();
      }
    : () => {
        runs++;
        run();
      };
  const time = secondsOf(benchCase.name, whole) - (refresh ? secondsOf('refresh', refresh) : 0);
  if (direction) {
    const { received, forwarded } = core.counters(direction);
    const passed = forwarded - before.forwarded;
    if (runs === 0 || passed !== runs * packets || received - before.received !== passed) {
      throw new Error(`${passed} packets were forwarded instead of ${runs * packets}`);
    }
  }
  check?.();
  if (!(time > 0)) throw new Error('it took no time');
  return time;
}

function secondsOf(name, run) {
  const bench = new Benchmark(name, run, { maxTime: TIME, minTime: SAMPLE, minSamples: 3 });
  bench.run();
  if (bench.error) throw bench.error;
  // On a busy machine, whatever else runs only ever adds to a sample.
  return quantile(bench.stats.sample, 0.25);
}

/** Runs a case once and returns a digest of what came of it; throws if that is not what the case says. */
export function outcome({ prepare }, core) {
  const { run, refresh, direction, packets, messages } = prepare(core);
  refresh?.();
  run();
  if (!direction) return '';
  const count = core.messages.count();
  const hash = createHash('sha256');
  let carried = 0;
  for (let i = 0; i < count; i++) {
    carried += core.messages.content(i).packets;
    hash.update(core.messages.bytes(i));
  }
  if (carried !== packets) throw new Error(`${carried} packets were forwarded instead of ${packets}`);
  if (messages !== undefined && count !== messages) throw new Error(`${count} messages instead of ${messages}`);
  return hash.digest('hex');
}
