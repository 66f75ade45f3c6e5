/** Who listens at an abstract name: each network namespace has names of its own (unix(7)). */

import * as native from './native.ts';
import { SystemError } from './system-error.ts';

/** struct sockaddr_un (<linux/un.h>): the family, then the name, whose first byte is zero. */
const FAMILY_SIZE = 2;
/** struct ucred (<linux/socket.h>): process, user and group. */
const UCRED_SIZE = 12;

/** Whom the kernel saw when it began to listen, as this process's namespaces number them. */
export interface Peer {
  /** 0 if it cannot be seen from here. */
  pid: number;
  uid: number;
}

/**
 * Who listens at `name`, which begins with a zero; undefined if nobody does. Waits `patience` ms at most where
 * others wait, too, and then answers `busy`.
 */
export function listenerOf(name: string, patience: number): Peer | 'busy' | undefined {
  const fd = native.must(
    native.socket(native.AF_UNIX, native.SOCK_STREAM | native.SOCK_CLOEXEC, 0),
    'socket',
    'AF_UNIX',
  );
  try {
    const limit = new Uint8Array(BigInt64Array.of(0n, BigInt(Math.round(patience * 1000))).buffer);
    native.must(
      native.setsockopt(fd, native.SOL_SOCKET, native.SO_SNDTIMEO, limit, limit.length),
      'SO_SNDTIMEO',
      'of a socket',
    );
    const address = addressOf(name);
    if (native.connect(fd, address, address.length) < 0) {
      const errno = native.errno();
      if (errno === native.ECONNREFUSED) return undefined;
      if (errno === native.EAGAIN || errno === native.EINTR) return 'busy';
      throw new SystemError('connect', errno, 'to an abstract name');
    }
    const found = new Int32Array(UCRED_SIZE / Int32Array.BYTES_PER_ELEMENT);
    const bytes = new Uint8Array(found.buffer);
    native.must(
      native.getsockopt(fd, native.SOL_SOCKET, native.SO_PEERCRED, bytes, native.int(UCRED_SIZE)),
      'SO_PEERCRED',
      'of a socket',
    );
    return { pid: found[0] as number, uid: (found[1] as number) >>> 0 };
  } finally {
    native.close(fd);
  }
}

function addressOf(name: string): Uint8Array {
  const bytes = Buffer.from(name);
  const address = new Uint8Array(FAMILY_SIZE + bytes.length);
  address[0] = native.AF_UNIX;
  address.set(bytes, FAMILY_SIZE);
  return address;
}
