/**
 * One daemon for each device, whatever its run directory. The lock is a socket with an abstract name
 * (unix(7)): each network namespace has names of its own, and the socket goes with its process.
 */
import { once } from 'node:events';
import net from 'node:net';
import { errorCode, InlayError } from '../errors.ts';
import { Netlink } from '../linux/netlink/netlink.ts';
import { findLink } from '../linux/netlink/rtnetlink.ts';
import { makerOf } from '../machine/alias.ts';
import { daemonText, lockName, runDirFlag } from '../machine/daemons.ts';
import { LOOK_FOR_DAEMON } from './lock.ts';

export interface DeviceLock {
  release(): void;
}

/** Throws ERR_FAILED if another daemon has the device. */
export async function lockDevice(device: string): Promise<DeviceLock> {
  const server = net.createServer((socket) => socket.destroy());
  server.unref();
  try {
    server.listen(lockName(device));
    await once(server, 'listening');
  } catch (cause) {
    if (errorCode(cause) !== 'EADDRINUSE') throw cause;
    throw isTaken(device, cause);
  }
  return { release: () => server.close() };
}

function isTaken(device: string, cause: unknown): InlayError {
  const maker = makerOf(aliasNow(device));
  const who = maker ? `: ${daemonText(maker)}` : '';
  const look = maker?.runDir === undefined ? LOOK_FOR_DAEMON : `look at it with inlay status${runDirFlag(maker)}`;
  return new InlayError('ERR_FAILED', `another Inlay daemon has the device ${device}${who}`, {
    hint: `${look}; for a second mesh choose another --device, --run-dir and overlay`,
    cause,
  });
}

function aliasNow(device: string): string | undefined {
  const netlink = Netlink.open();
  try {
    return findLink(netlink, device)?.alias;
  } finally {
    netlink.close();
  }
}
