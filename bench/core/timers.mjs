/** Two libraries that measure how long a function takes, to check one by the other. Each answers in seconds. */
import Benchmark from 'benchmark';
import { measure } from 'mitata';
import { quantile } from '../statistics.mjs';

/** s: of one measurement, and of each of its samples, which is shorter than the time that a scheduler takes the CPU away for. */
const TIME = 0.03;
const SAMPLE = 0.001;
/** Calls in one of mitata's samples, if they are short. */
const CALLS = 128;

/** On a busy machine, whatever else runs only ever adds to a sample: so both answer what a quarter of the samples stay below. */
export const TIMERS = {
  benchmark(name, run) {
    const bench = new Benchmark(name, run, { maxTime: TIME, minTime: SAMPLE, minSamples: 7 });
    bench.run();
    if (bench.error) throw bench.error;
    return quantile(bench.stats.sample, 0.25);
  },
  async mitata(_name, run) {
    const options = { min_cpu_time: TIME * 1e9, min_samples: 3, batch_samples: CALLS, gc: false };
    return (await measure(run, options)).p25 / 1e9;
  },
};
