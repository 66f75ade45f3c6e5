/**
 * One daemon for each device, whatever its run directory. The lock is a socket with an abstract name, which
 * goes with its process.
 */
import { once } from 'node:events';
import net from 'node:net';
import { errorCode, InlayError } from '../errors.ts';
import { Netlink } from '../linux/netlink/netlink.ts';
import { findLink } from '../linux/netlink/rtnetlink.ts';
import { makerOf } from '../machine/alias.ts';
import { daemonText, runDirFlag } from '../machine/daemons.ts';
import { bare, lockName, lockNames, patient } from '../machine/device-locks.ts';
import { LOOK_FOR_DAEMON } from './lock.ts';

export interface DeviceLock {
  /** Names of this device that processes have which are no daemons: to the log with them. */
  readonly strangers: number;
  release(): void;
}

/**
 * Throws ERR_FAILED if another daemon has the device. Of two that try at once, one gets it. Only where a
 * stranger lets go of a name at that moment, both may fail.
 */
export async function lockDevice(device: string): Promise<DeviceLock> {
  const holderOf = patient();
  for (let number = 0; ; number++) {
    const name = lockName(device, number);
    const server = await listen(name);
    if (server === undefined) {
      if (holderOf(name) === 'daemon') throw isTaken(device);
      continue;
    }
    // Where strangers came or went in between, another daemon may have another name.
    const others = lockNames().filter((other) => other.device === bare(device) && other.number !== number);
    if (!others.some((other) => holderOf(lockName(device, other.number)) === 'daemon'))
      return { strangers: others.length, release: () => server.close() };
    server.close();
    throw isTaken(device);
  }
}

/** Undefined if the name is taken. */
async function listen(name: string): Promise<net.Server | undefined> {
  const server = net.createServer((socket) => socket.destroy());
  server.unref();
  try {
    server.listen(name);
    await once(server, 'listening');
    return server;
  } catch (cause) {
    if (errorCode(cause) === 'EADDRINUSE') return undefined;
    throw cause;
  }
}

function isTaken(device: string): InlayError {
  const maker = makerOf(aliasNow(device));
  const who = maker ? `: ${daemonText(maker)}` : '';
  const look = maker?.runDir === undefined ? LOOK_FOR_DAEMON : `look at it with inlay status${runDirFlag(maker)}`;
  return new InlayError('ERR_FAILED', `another Inlay daemon has the device ${device}${who}`, {
    hint: `${look}; for a second mesh choose another --device, --run-dir and overlay`,
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
