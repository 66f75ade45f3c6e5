/**
 * Waits for descriptors. One thread of Node's pool does that for all of them: the pool has four, and the file system
 * needs them, too.
 */
import * as native from './native.ts';

const ONE = BigUint64Array.of(1n);
const COUNT = new BigUint64Array(1);
/** `struct pollfd` (poll(2)): the descriptor, and events and what came of them, 16 bits each. */
const POLLFD_WORDS = 2;
const EVENTS_BITS = 16;

/** What is to be done when a descriptor can be read, or has failed. */
const waiting = new Map<number, () => void>();
/** What is to be done when no thread waits for a descriptor any more. */
const leaving: (() => void)[] = [];
/** eventfd that ends the wait; -1 while nobody waits. */
let wakeFd = -1;
let isCalling = false;

/** Calls `done` once, when there is something to read. */
export function onReadable(fd: number, done: () => void): void {
  waiting.set(fd, done);
  waitAnew();
}

/** Ends the wait for a descriptor. It is not to be closed before `then` is called. */
export function endWait(fd: number, then: () => void): void {
  waiting.delete(fd);
  leaving.push(then);
  waitAnew();
}

/** The thread comes back and waits for what there is now. */
function waitAnew(): void {
  if (isCalling) return;
  if (wakeFd >= 0) native.write(wakeFd, ONE, ONE.byteLength);
  else wait();
}

function wait(): void {
  for (const then of leaving.splice(0)) then();
  if (waiting.size === 0) {
    if (wakeFd >= 0) native.close(wakeFd);
    wakeFd = -1;
    return;
  }
  if (wakeFd < 0) {
    wakeFd = native.must(native.eventfd(0, native.O_CLOEXEC | native.O_NONBLOCK), 'eventfd', 'to wait for descriptors');
  }
  const descriptors = [wakeFd, ...waiting.keys()];
  const places = Int32Array.from(descriptors.flatMap((fd) => [fd, native.POLLIN]));
  native.pollAsync(native.pointer(places), descriptors.length, -1, () => {
    native.read(wakeFd, native.pointer(COUNT), COUNT.byteLength);
    isCalling = true;
    try {
      for (const [i, fd] of descriptors.entries()) {
        const done = (places[POLLFD_WORDS * i + 1] as number) >>> EVENTS_BITS !== 0 && waiting.get(fd);
        if (!done) continue;
        waiting.delete(fd);
        done();
      }
    } finally {
      isCalling = false;
      wait();
    }
  });
}
