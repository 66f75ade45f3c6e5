/** Network namespaces of containers: found by name, path or process, and entered for a moment. */
import { closeSync, constants, fstatSync, openSync, statSync } from 'node:fs';
import os from 'node:os';
import { errorCode, InlayError } from '../errors.ts';
import * as native from '../linux/native.ts';
import { ContainerError } from './reasons.ts';

/** Where ip-netns(8) keeps names. */
export const NAMED = '/run/netns';
const { EPERM } = os.constants.errno;
/** A FIFO does not keep us waiting, and a terminal does not become ours. */
const CAREFUL = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;

/** An open network namespace: it stays as long as it is open. */
export interface Namespace {
  fd: number;
  inode: number;
  /** What the caller called it. */
  name: string;
}

/** The file of a namespace that is a name, a path or a process id. A name that looks like a number is a name. */
export function namespacePath(text: string): string {
  if (text.includes('/')) return text;
  const named = `${NAMED}/${text}`;
  const isProcess = /^[1-9]\d{0,9}$/.test(text) && !statSync(named, { throwIfNoEntry: false });
  return isProcess ? `/proc/${text}/ns/net` : named;
}

/** Throws ContainerError. Whoever opens it closes it. */
export function openNamespace(text: string): Namespace {
  const path = namespacePath(text);
  if (text === '' || text === '.' || text === '..' || text.includes('\0'))
    throw new ContainerError('invalid', `namespace ${JSON.stringify(text)}: expected a name, a path or a process id`);
  let fd: number;
  try {
    fd = openSync(path, CAREFUL);
  } catch (cause) {
    throw openError(text, path, cause);
  }
  try {
    if (native.ioctlNumber(fd, native.NS_GET_NSTYPE, 0) !== native.CLONE_NEWNET)
      throw new ContainerError('no-namespace', `${path} is no network namespace`, {
        hint: 'ip netns list shows those that have names',
      });
    return { fd, inode: fstatSync(fd).ino, name: text };
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function openError(text: string, path: string, cause: unknown): ContainerError {
  const code = errorCode(cause);
  if (code === 'EACCES' || code === 'EPERM') {
    return new ContainerError('permission', `no permission to open ${path}`, {
      hint: 'namespaces of other users need CAP_SYS_PTRACE, named ones root',
      cause,
    });
  }
  if (!['ENOENT', 'ENOTDIR', 'ESRCH', 'ENAMETOOLONG'].includes(code ?? ''))
    return new ContainerError('system', `${path} cannot be opened: ${code}`, { cause });
  return new ContainerError('no-namespace', `there is no network namespace ${text} (${path}: ${code})`, {
    hint: 'ip netns list shows those that have names',
    cause,
  });
}

/** This thread's own network namespace, from which it enters others and comes back. */
export class Home {
  readonly #fd = openSync('/proc/thread-self/ns/net', CAREFUL);
  readonly inode: number = fstatSync(this.#fd).ino;

  /**
   * Runs `work` in another namespace: what it opens is there. It must not wait for anything. Throws
   * ContainerError where this process may not.
   */
  within<T>({ fd, name }: Namespace, work: () => T): T {
    if (native.setns(fd, native.CLONE_NEWNET) < 0) {
      const missing = native.errno() === EPERM;
      throw new ContainerError(missing ? 'permission' : 'system', `network namespace ${name} cannot be entered`, {
        ...(missing && { hint: 'entering a namespace needs CAP_SYS_ADMIN' }),
        cause: new InlayError('ERR_FAILED', `setns: errno ${native.errno()}`),
      });
    }
    try {
      return work();
    } finally {
      // A thread that stayed there would do the VM's work in a container. (In a worker this throws: attach-worker.ts looks.)
      if (native.setns(this.#fd, native.CLONE_NEWNET) < 0) process.abort();
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}
