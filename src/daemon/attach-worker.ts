/**
 * The thread of a daemon that attaches containers. It enters their namespaces, and waits for the kernel's one
 * lock of the network, while the main thread goes on answering.
 */
import { realpathSync, statSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { library } from '../containers/cni/library.ts';
import { type CniLibrary, Elsewhere } from '../containers/cni/plugin.ts';
import { answerCalls, type CniCall } from './cni-calls.ts';

export interface AttachWorkerOptions {
  /** The daemon's own. */
  runDir: string;
}

const { runDir } = workerData as AttachWorkerOptions;

const ours: CniLibrary = {
  open: (request) => {
    if (real(request.runDir) !== real(runDir)) throw new Elsewhere();
    return library.open(request);
  },
};

/** A directory may have several names. */
function real(directory: string): string {
  try {
    return realpathSync(directory);
  } catch {
    return directory;
  }
}

const namespace = () => statSync('/proc/thread-self/ns/net').ino;
const home = namespace();

parentPort?.on('message', (calls: CniCall[]) => {
  const outcomes = answerCalls(calls, ours);
  // A thread that did not come back from a container would do the VM's work there.
  if (namespace() !== home) process.exit(1);
  parentPort?.postMessage(outcomes);
});
