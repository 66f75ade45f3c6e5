/** Measures one case on one core, and makes sure that the core really did the work. */
import { abi } from 'inlay/core';

/** ms that a case runs before it is measured: the engine compiles it for speed. */
const WARM_UP = 10;

/** Seconds that one run of the case takes, as this timer says. */
export async function measure(benchCase, { core, empty }, timer) {
  forget(core);
  const { run, refresh, direction, packets, check } = benchCase.prepare(core);
  const before = direction && core.counters(direction);
  let runs = 0;
  const whole = () => {
    runs++;
    refresh?.();
    run();
  };
  const overhead = () => {
    refresh?.();
    empty?.();
  };
  for (const end = performance.now() + WARM_UP; performance.now() < end; ) whole();
  const time = (await timer(benchCase.name, whole)) - (refresh || empty ? await timer('overhead', overhead) : 0);
  if (direction) {
    const { received, forwarded } = core.counters(direction);
    const passed = forwarded - before.forwarded;
    if (runs === 0 || passed !== runs * packets || received - before.received !== passed) {
      throw new Error(`${passed} packets were forwarded instead of ${runs * packets}`);
    }
  }
  check?.();
  return time;
}

/** Makes a core one that has seen nothing: its whole state is its memory. */
function forget(core) {
  core.bytes.fill(0);
  core.attach({});
}

/** Runs a case once, on a core that has seen nothing before; throws if what came of it is not what the case says. */
export function runOnce({ prepare }, { core }) {
  forget(core);
  const { run, refresh, direction, packets, messages } = prepare(core);
  refresh?.();
  run();
  if (!direction) return;
  const made = core.messages.all();
  const carried = made.reduce((sum, message) => sum + core.messages.content(message).packets, 0);
  if (carried !== packets) throw new Error(`${carried} packets were forwarded instead of ${packets}`);
  if (messages !== undefined && made.length !== messages)
    throw new Error(`${made.length} messages instead of ${messages}`);
}

/** Whether two cores have the same bytes in all of their memory that docs/abi.md specifies. */
export function isSame(a, b) {
  const parts = [
    [0, abi.SCRATCH],
    [abi.SCRATCH + abi.SCRATCH_SIZE, abi.MEMORY_SIZE],
  ];
  return parts.every(([from, to]) => Buffer.compare(a.bytes.subarray(from, to), b.bytes.subarray(from, to)) === 0);
}
