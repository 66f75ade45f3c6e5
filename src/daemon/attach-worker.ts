/**
 * The thread of a daemon that attaches containers. It enters their namespaces, and waits for the kernel's one
 * lock of the network, while the main thread goes on answering.
 */
import { realpathSync, statSync } from 'node:fs';
import { parentPort, workerData } from 'node:worker_threads';
import { library } from '../containers/cni/library.ts';
import { type CniContainers, type CniLibrary, Elsewhere } from '../containers/cni/plugin.ts';
import { meshFile } from '../containers/mesh.ts';
import { answerCalls, type CniCall } from './cni-calls.ts';

export interface AttachWorkerOptions {
  /** The daemon's own. */
  runDir: string;
}

const { runDir } = workerData as AttachWorkerOptions;

/** What was opened stays open as long as calls ask for it: they ask for the same again and again. */
const opened = new Map<string, CniContainers>();
const asked = new Set<string>();

const ours: CniLibrary = {
  open: (request) => {
    if (request.runDir !== runDir && real(request.runDir) !== real(runDir)) throw new Elsewhere();
    // The file is another one each time that the daemon writes it.
    const { ino, mtimeMs } = statSync(meshFile(request.runDir), { throwIfNoEntry: false }) ?? {};
    const key = JSON.stringify([request, ino, mtimeMs]);
    const containers = opened.get(key) ?? library.open(request);
    opened.set(key, containers);
    asked.add(key);
    return staying(containers);
  },
};

/** The same, which does not close. */
function staying(containers: CniContainers): CniContainers {
  return {
    slice: containers.slice,
    requireVm: () => containers.requireVm(),
    attach: (request) => containers.attach(request),
    detach: (target) => containers.detach(target),
    detachAll: (targets) => containers.detachAll(targets),
    check: (target) => containers.check(target),
    list: () => containers.list(),
    usage: () => containers.usage(),
    close: () => {},
  };
}

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

/** Closes what the last calls did not ask for. */
function closeOthers(): void {
  for (const [key, containers] of opened) {
    if (asked.has(key)) continue;
    containers.close();
    opened.delete(key);
  }
  asked.clear();
}

parentPort?.on('message', (calls: CniCall[]) => {
  // It is not needed any more.
  if (calls.length === 0) {
    closeOthers();
    process.exit();
  }
  const outcomes = answerCalls(calls, ours);
  closeOthers();
  // A thread that did not come back from a container would do the VM's work there.
  if (namespace() !== home) process.exit(1);
  parentPort?.postMessage(outcomes);
});
