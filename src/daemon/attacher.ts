/**
 * Attaches containers for the shim of CNI: calls wait here for the one thread that does the work. That thread
 * may end or hang, which the daemon survives.
 */
import path from 'node:path';
import { Worker } from 'node:worker_threads';
import { CniError, errorText } from '../containers/cni/error.ts';
import { readForm } from '../containers/cni/form.ts';
import { versionOf } from '../containers/cni/network.ts';
import type { LimitedLog } from '../log-limit.ts';
import type { Trouble } from '../machine/machine.ts';
import type { AttachWorkerOptions } from './attach-worker.ts';
import { type CniCall, type CniOutcome, containerOf, isDetaching } from './cni-calls.ts';
import { Answer, type ControlRoutes } from './control-server.ts';

/** ms that one piece of work takes at most: the kernel may have thousands of links to delete. */
const PATIENCE = 30_000;
/** Calls that are answered together, at most. */
const MOST = 1000;
/** Threads that hang in the kernel, at most. They cannot be ended. */
const MAX_STUCK = 4;
/** An error of CNI: "try again later". */
const LATER = 11;

/** What is needed of a worker thread. */
export type AttachThread = Pick<Worker, 'on' | 'postMessage' | 'terminate'>;

export interface AttacherOptions {
  log: LimitedLog;
  /** Starts the thread. */
  start: () => AttachThread;
  /** ms that one piece of work may take. */
  patience?: number;
}

interface Waiting {
  call: CniCall;
  /** Aborted when nobody waits for the answer any more. */
  signal: AbortSignal;
  answer: (answer: Answer) => void;
}

export class Attacher {
  readonly #options: AttacherOptions;
  #queue: Waiting[] = [];
  #underWay: readonly Waiting[] = [];
  #thread: AttachThread | undefined;
  #timer: NodeJS.Timeout | undefined;
  /** Threads that were told to end, and have not. */
  #stuck = 0;
  #isClosed = false;
  /** Called when nothing is under way any more. */
  #idle: () => void = () => {};

  constructor(options: AttacherOptions) {
    this.#options = options;
    try {
      this.#thread = this.#start();
    } catch {} // The first call tries again, and says why.
  }

  /** `runDir` is the daemon's own. */
  static open(runDir: string, log: LimitedLog): Attacher {
    const workerData: AttachWorkerOptions = { runDir: path.resolve(runDir) };
    const start = () => new Worker(new URL('./attach-worker.js', import.meta.url), { workerData });
    return new Attacher({ log, start });
  }

  /** What whoever attaches may ask. */
  get routes(): ControlRoutes {
    return { cni: (form, signal) => this.#cni(readForm(form), signal) };
  }

  /** Why no container can be attached at present; undefined if that is possible. */
  get obstacle(): Trouble | undefined {
    if (this.#stuck < MAX_STUCK) return undefined;
    return {
      what: `${this.#stuck} threads that attach containers hang in the kernel, so no more are started`,
      hint: 'look at /proc/PID/task/*/stack of the daemon; a restart of it changes nothing for containers',
    };
  }

  /** Whoever waits, or comes yet, has to do it without the daemon; what is under way is waited for. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const { answer } of this.#queue.splice(0)) answer(notHere('the daemon ends'));
    if (this.#underWay.length > 0) {
      await new Promise<void>((resolve) => {
        this.#idle = resolve;
      });
    }
    await this.#thread?.terminate();
  }

  async #cni(call: CniCall, signal: AbortSignal): Promise<Answer> {
    if (this.#isClosed) return notHere('the daemon ends');
    return new Promise((resolve) => {
      this.#queue.push({ call, signal, answer: resolve });
      this.#next();
    });
  }

  #next(): void {
    if (this.#underWay.length > 0) return;
    if (this.#isClosed) {
      this.#idle();
      return;
    }
    const batch = this.#take();
    if (batch.length === 0) return;
    const { obstacle } = this;
    if (obstacle) {
      for (const { call, answer } of batch) answer(later(call, obstacle.what));
      this.#next();
      return;
    }
    this.#underWay = batch;
    try {
      this.#thread ??= this.#start();
      this.#thread.postMessage(batch.map(({ call }) => call));
      this.#timer = setTimeout(() => this.#giveUp(), this.#options.patience ?? PATIENCE);
    } catch (error) {
      this.#fail((error as Error).message);
    }
  }

  /** The next call. One that detaches takes along all that detach, but none before another call about its container. */
  #take(): Waiting[] {
    const [first, ...others] = this.#queue.filter(({ signal }) => !signal.aborted);
    this.#queue = others;
    if (!first || !isDetaching(first.call)) return first ? [first] : [];
    const batch = [first];
    const before = new Set<string>();
    this.#queue = others.filter((waiting) => {
      const isTaken = isDetaching(waiting.call) && batch.length < MOST && !before.has(containerOf(waiting.call));
      if (isTaken) batch.push(waiting);
      else before.add(containerOf(waiting.call));
      return !isTaken;
    });
    return batch;
  }

  #start(): AttachThread {
    const thread = this.#options.start();
    let failure = 'it ended';
    thread.on('error', (error: Error) => {
      failure = error.message.split('\n')[0] ?? '';
    });
    thread.on('message', (outcomes: CniOutcome[]) => {
      if (this.#thread !== thread) return; // Too late: its callers have been answered.
      this.#done((_, i) => answerOf(outcomes[i]));
    });
    thread.on('exit', () => {
      if (this.#thread !== thread) this.#stuck--;
      else if (!this.#isClosed || this.#underWay.length > 0) this.#fail(failure);
    });
    return thread;
  }

  /**
   * The thread hangs. When it comes back from the kernel, it finds that it is to end. Ended in the middle, it would
   * leave open what it has opened, and a container's namespace would never go.
   */
  #giveUp(): void {
    this.#stuck++;
    this.#thread?.postMessage([]);
    this.#fail('it hangs');
  }

  #fail(why: string): void {
    const { log } = this.#options;
    log('warn', 'attaching failed', { why, calls: this.#underWay.length }, 'the thread that attaches is started anew');
    this.#thread = undefined;
    this.#done(({ call }) => later(call, `the thread of the daemon that attaches had to be started anew: ${why}`));
  }

  #done(answerFor: (waiting: Waiting, i: number) => Answer): void {
    clearTimeout(this.#timer);
    const batch = this.#underWay;
    this.#underWay = [];
    for (const [i, waiting] of batch.entries()) waiting.answer(answerFor(waiting, i));
    this.#next();
  }
}

function answerOf(outcome: CniOutcome): Answer {
  if (!outcome) return notHere('the configuration names the run directory of another daemon');
  return new Answer(outcome.code === 0 ? 200 : 400, outcome.stdout);
}

/** Nothing was done: the shim starts Node, which does it. */
function notHere(why: string): Answer {
  return new Answer(404, `${JSON.stringify({ error: why })}\n`);
}

/** The caller may try again, and has to: what of the call was done is not known. */
function later({ config }: CniCall, why: string | undefined): Answer {
  return new Answer(503, errorText(new CniError(LATER, 'the daemon could not answer', why), versionOf(config)));
}
