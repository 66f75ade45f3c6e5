/** Measures one case on one core, and makes sure that the core really did the work. */
import { createHash } from 'node:crypto';

/** Seconds that one run of the case takes, as this timer says. */
export async function measure(benchCase, { core, empty }, timer) {
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
  const time = (await timer(benchCase.name, whole)) - (refresh || empty ? await timer('overhead', overhead) : 0);
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

/** Runs a case once and returns a digest of what came of it; throws if that is not what the case says. */
export function outcome({ prepare }, { core }) {
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
