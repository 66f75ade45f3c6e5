/**
 * One daemon for each device, whatever its run directory. The lock is a socket with an abstract name (unix(7)): each network namespace has names of its own, and
 * the socket goes with its process.
 */
import { once } from 'node:events';
import net from 'node:net';
import { errorCode, InlayError } from '../errors.ts';
import { lockName } from '../machine/remains.ts';

export interface DeviceLock {
  release(): void;
}

/** Throws ERR_FAILED if another daemon has the device. */
export async function lockDevice(device: string): Promise<DeviceLock> {
  const server = net.createServer((socket) => socket.destroy());
  server.unref();
  try {
    server.listen(`\0${lockName(device)}`);
    await once(server, 'listening');
  } catch (cause) {
    if (errorCode(cause) !== 'EADDRINUSE') throw cause;
    throw new InlayError('ERR_FAILED', `another daemon has the device ${device}`, {
      hint: 'choose another name with --device, or look for it with: pgrep -af "inlay|cli.js up"',
      cause,
    });
  }
  return { release: () => server.close() };
}
