/**
 * Asks a daemon: HTTP over the control socket in its run directory.
 * `curl --unix-socket /run/inlay/control.sock http://inlay/status` works too.
 */
import { lstatSync } from 'node:fs';
import http from 'node:http';
import { connect } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errorCode, InlayError } from '../errors.ts';
import { commandLine } from './capabilities.ts';
import { harmless } from './harmless.ts';

/** In the run directory. */
export const CONTROL_SOCKET = 'control.sock';
/** ms until a request has to be there, however slow its client is, and that a client waits for an answer. */
export const TIMEOUT = 5000;
/** ms. No answer of a daemon takes longer. */
const LONGEST = 2 * TIMEOUT;
/** Bytes. A client takes no longer answer, and the answers that wait for all clients are no more, either. */
export const LONGEST_ANSWER: number = 64 << 20;
/**
 * Errors that a client gets when there are too many clients: its connection was closed, or could not even
 * wait (EAGAIN of connect(2)).
 */
const BUSY = ['ECONNRESET', 'EPIPE', 'EAGAIN'];
/** ms until it tries again. */
const RETRY = 20;

/** Whether somebody listens in `runDir`, be it that they do not answer. */
export function isListening(runDir: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path.join(runDir, CONTROL_SOCKET));
    socket.once('connect', () => resolve(true));
    socket.once('error', (error) => resolve(BUSY.includes(errorCode(error) ?? '')));
    socket.once('connect', () => socket.destroy());
  });
}

/**
 * Asks the daemon of `runDir`. Throws ERR_NOT_RUNNING if there is none. Who answers may be anybody whom the
 * directory belongs to: nothing of an answer can do more on a terminal than be read.
 */
export async function ask<T>(runDir: string, name: string): Promise<T> {
  const socketPath = path.join(runDir, CONTROL_SOCKET);
  const deadline = performance.now() + TIMEOUT;
  for (;;) {
    try {
      return harmless(JSON.parse(await get(socketPath, name))) as T;
    } catch (cause) {
      if (!BUSY.includes(errorCode(cause) ?? '') || performance.now() > deadline)
        throw await askError(socketPath, cause);
    }
    await sleep(RETRY);
  }
}

async function askError(socketPath: string, cause: unknown): Promise<InlayError> {
  const code = errorCode(cause);
  if (code === 'EACCES') {
    const hint = `sudo ${commandLine()}, or join the group of the socket`;
    return new InlayError('ERR_PERMISSION', `no permission for ${socketPath}`, { hint, cause });
  }
  if (code === 'ENOENT' || code === 'ECONNREFUSED') {
    return new InlayError('ERR_NOT_RUNNING', `no daemon answers at ${socketPath} (${code})`, {
      hint: (await others()) ?? 'start it with inlay up, or name its directory with --run-dir',
      cause,
    });
  }
  if (cause instanceof InlayError) return cause;
  return new InlayError('ERR_FAILED', `no answer from ${socketPath}: ${code ?? harmless((cause as Error).message)}`, {
    hint: 'the daemon is there, but busy or stuck: look at its log',
    cause,
  });
}

/** Which daemons run with other run directories, for a hint; undefined if none does. */
async function others(): Promise<string | undefined> {
  try {
    const { daemonText, findDaemons } = await import('../machine/daemons.ts');
    const found = findDaemons().map(daemonText);
    return found.length === 0 ? undefined : `name the daemon's directory with --run-dir; here runs ${found.join('; ')}`;
  } catch {
    return undefined; // Where koffi is missing, say: it is only a hint.
  }
}

async function get(socketPath: string, name: string): Promise<string> {
  // A link could lead to a socket of any other program.
  if (lstatSync(socketPath, { throwIfNoEntry: false })?.isSocket() === false)
    throw new InlayError('ERR_FAILED', `${socketPath} is no socket`, { hint: 'name the directory with --run-dir' });
  return new Promise((resolve, reject) => {
    const request = http.get({ socketPath, path: `/${name}`, timeout: TIMEOUT }, (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size > LONGEST_ANSWER) request.destroy(new Error('an endless answer'));
        else chunks.push(chunk);
      });
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        if (response.statusCode === 200) resolve(text);
        else reject(new Error(`status ${response.statusCode}: ${text.trim()}`));
      });
    });
    const tooLate = () => request.destroy(new Error('no answer in time'));
    const timer = setTimeout(tooLate, LONGEST);
    request.on('timeout', tooLate).on('close', () => clearTimeout(timer));
    request.on('error', reject);
  });
}
