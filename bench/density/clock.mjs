/** How long something takes: on the clock, and of the processor, which says more where other programs run, too. */
import koffi from 'koffi';

const clockGettime = koffi.load(null).func('int clock_gettime(int clock, void *time)');
const CLOCK_THREAD_CPUTIME_ID = 3;
const time = new BigInt64Array(2); // struct timespec

/** ms of the processor that this thread has used. */
function used() {
  clockGettime(CLOCK_THREAD_CPUTIME_ID, time);
  return Number(time[0]) * 1e3 + Number(time[1]) / 1e6;
}

/** Both in ms. */
export function timed(work) {
  const [start, before] = [performance.now(), used()];
  work();
  return { ms: performance.now() - start, cpu: used() - before };
}
