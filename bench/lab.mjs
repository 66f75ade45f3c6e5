/** Each measurement has labs of its own, which a signal closes, too. */
import { Lab } from '../dist/demo/lab.js';

const open = new Set();
let stopping = false;

export function closeOnSignals() {
  for (const [signal, code] of Object.entries({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 })) {
    process.once(signal, async () => {
      stopping = true;
      await Promise.all([...open].map((lab) => lab.close()));
      process.exit(code);
    });
  }
}

/** What `work` measures in a lab of its own, or why it could not. */
export function inLab(work) {
  // That no lab can be had is no peer's fault, and ends the benchmark.
  return inLabs(1, ([lab]) => outcomeOf(() => work(lab)));
}

/** What `work` measures in so many labs. */
export async function inLabs(count, work) {
  const labs = [];
  try {
    for (let i = 0; i < count; i++) {
      const lab = await Lab.open();
      labs.push(lab);
      open.add(lab);
    }
    return await work(labs);
  } finally {
    for (const lab of labs) {
      await lab.close();
      open.delete(lab);
    }
    if (stopping) await new Promise(() => {}); // The signal's handler ends the process.
  }
}

/** What `work` resolves to, or why it failed. */
export async function outcomeOf(work) {
  try {
    return await work();
  } catch (error) {
    return { error: [error.message, error.hint].filter(Boolean).join('; ') };
  }
}
