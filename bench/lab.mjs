/** Each measurement has a lab of its own, which a signal closes, too. */
import { Lab } from '../dist/demo/lab.js';

/** The lab of the moment. */
let lab;
let stopping = false;

export function closeOnSignals() {
  for (const [signal, code] of Object.entries({ SIGINT: 130, SIGTERM: 143, SIGHUP: 129 })) {
    process.once(signal, async () => {
      stopping = true;
      await lab?.close();
      process.exit(code);
    });
  }
}

/** What `work` measures in a lab of its own, or why it could not. */
export async function inLab(work) {
  // That no lab can be had is no peer's fault, and ends the benchmark.
  lab = await Lab.open();
  try {
    return await work(lab);
  } catch (error) {
    return { error: [error.message, error.hint].filter(Boolean).join('; ') };
  } finally {
    await lab.close();
    if (stopping) await new Promise(() => {}); // The signal's handler ends the process.
  }
}
