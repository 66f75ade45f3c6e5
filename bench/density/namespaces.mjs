/** Network namespaces without names: each stays as long as its descriptor is open. */
import { closeSync, openSync, readFileSync } from 'node:fs';
import net from 'node:net';
import koffi from 'koffi';
import { Home } from '../../dist/containers/namespace.js';
import * as native from '../../dist/linux/native.js';

const library = koffi.load(null);
const unshare = library.func('int unshare(int kind)');
const setrlimit = library.func('int setrlimit(int resource, void *limit)');
const RLIMIT_NOFILE = 7;
const OWN = '/proc/thread-self/ns/net';
/** TCP port on which each namespace tells its address. */
export const PORT = 5001;

const back = openSync(OWN, 'r');
const home = new Home();

/** Allows this process so many open files, if it may not have them yet. */
export function allowFiles(count) {
  const [, limit] = /^Max open files +(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8'));
  if (Number(limit) >= count || setrlimit(RLIMIT_NOFILE, BigUint64Array.of(BigInt(count), BigInt(count))) === 0) return;
  throw new Error(`this process may open ${limit} files, and needs ${count}: ulimit -n ${count}`);
}

export class Namespace {
  #fd;
  #server;

  constructor() {
    native.must(unshare(native.CLONE_NEWNET), 'unshare', 'a network namespace');
    this.#fd = openSync(OWN, 'r');
    native.must(native.setns(back, native.CLONE_NEWNET), 'setns', 'back');
  }

  get fd() {
    return this.#fd;
  }

  /** As the library takes it. */
  get path() {
    return `/proc/self/fd/${this.#fd}`;
  }

  /** Whoever connects is told the address. */
  serve(address) {
    this.#server = net.createServer((socket) => {
      socket.on('error', () => socket.destroy());
      socket.end(address);
    });
    // Without a host the socket is made at once, where this thread is.
    const listening = new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      home.within({ fd: this.#fd, name: this.path }, () => this.#server.listen(PORT, resolve));
    });
    return listening;
  }

  close() {
    this.#server?.close();
    closeSync(this.#fd);
  }
}
