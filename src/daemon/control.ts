/**
 * The control socket: HTTP over a Unix socket in the run directory, one request for each connection.
 * `curl --unix-socket /run/inlay/control.sock http://inlay/status` works too.
 */
import { lstatSync } from 'node:fs';
import http from 'node:http';
import { connect, type Socket } from 'node:net';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { errorCode, InlayError } from '../errors.ts';
import { removeName } from '../linux/own-file.ts';
import { commandLine } from './capabilities.ts';
import { harmless } from './harmless.ts';

const SOCKET = 'control.sock';
/**
 * ms. A connection lasts so long at most, however slow its client is, and a client waits so long for an
 * answer.
 */
const TIMEOUT = 5000;
/** ms. No answer of a daemon takes longer. */
const LONGEST = 2 * TIMEOUT;
const MAX_CONNECTIONS = 256;
/**
 * How many bytes of answers may wait for their clients to read them, over all connections. A client takes no
 * longer answer.
 */
const MAX_UNREAD = 64 << 20;
/**
 * Errors that a client gets when there are too many clients: its connection was closed, or could not even
 * wait (EAGAIN of connect(2)).
 */
const BUSY = ['ECONNRESET', 'EPIPE', 'EAGAIN'];
/** ms until it tries again. */
const RETRY = 20;

export type ControlRoutes = Record<string, () => Promise<unknown>>;

export class ControlServer {
  readonly #routes: ControlRoutes;
  readonly #server = http.createServer((request, response) => void this.#answer(request, response));
  /** Open connections, the oldest first, and whether their request has come. */
  readonly #connections = new Map<Socket, { asked: boolean }>();

  private constructor(routes: ControlRoutes) {
    this.#routes = routes;
    this.#server.on('connection', (socket) => this.#accept(socket));
  }

  /** Listens in `runDir`, whose lock the caller has, with mode 0660. */
  static async listen(runDir: string, routes: ControlRoutes): Promise<ControlServer> {
    const socket = path.join(runDir, SOCKET);
    removeDeadSocket(runDir);
    const control = new ControlServer(routes);
    // The socket is there, with its mode, when listen() returns; `listening` and `error` come later.
    const umask = process.umask(0o117);
    const listening = new Promise<void>((resolve, reject) => {
      control.#server.on('error', reject).listen(socket, resolve);
    });
    process.umask(umask);
    await listening.catch((cause) => {
      throw new InlayError('ERR_FAILED', `control socket ${socket}: ${errorCode(cause)}`, { cause });
    });
    return control;
  }

  /** Whether there is a socket in `runDir`. */
  static isThere(runDir: string): boolean {
    return lstatSync(path.join(runDir, SOCKET), { throwIfNoEntry: false }) !== undefined;
  }

  /** Stops listening, which removes the socket. */
  close(): Promise<void> {
    for (const socket of this.#connections.keys()) socket.destroy();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  #accept(socket: Socket): void {
    const timer = setTimeout(() => socket.destroy(), TIMEOUT);
    this.#connections.set(socket, { asked: false });
    socket.once('close', () => {
      clearTimeout(timer);
      this.#connections.delete(socket);
    });
    this.#makeRoom();
  }

  /** The oldest connections go, so that no client can keep others out. */
  #makeRoom(): void {
    const sockets = [...this.#connections.keys()];
    let unread = sockets.reduce((sum, socket) => sum + socket.writableLength, 0);
    for (let i = 0; sockets.length - i > MAX_CONNECTIONS || unread > MAX_UNREAD; i++) {
      const socket = sockets[i] as Socket;
      unread -= socket.writableLength;
      this.#connections.delete(socket);
      socket.destroy();
    }
  }

  async #answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const connection = this.#connections.get(request.socket);
    // Pipelined requests are ignored, because the answer to the first ends the connection.
    if (!connection || connection.asked) return;
    connection.asked = true;
    const [status, body] = await this.#result(request.method, (request.url ?? '').slice(1));
    const text = Buffer.from(`${JSON.stringify(body)}\n`);
    response.writeHead(status, {
      'content-type': 'application/json',
      'content-length': text.length,
      connection: 'close',
    });
    response.end(text);
    this.#makeRoom();
  }

  async #result(method: string | undefined, name: string): Promise<[status: number, body: unknown]> {
    const route = method === 'GET' && Object.hasOwn(this.#routes, name) ? this.#routes[name] : undefined;
    if (!route) {
      const names = Object.keys(this.#routes).map((r) => `/${r}`);
      return [404, { error: `expected GET ${names.join(' or ')}` }];
    }
    try {
      return [200, await route()];
    } catch (error) {
      return [500, { error: String(error) }];
    }
  }
}

/** Removes the socket that a killed daemon left. Only for whoever has the lock of `runDir`. */
export function removeDeadSocket(runDir: string): void {
  removeName(path.join(runDir, SOCKET));
}

/** Whether somebody listens in `runDir`, be it that they do not answer. */
export function isListening(runDir: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path.join(runDir, SOCKET));
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
  const socketPath = path.join(runDir, SOCKET);
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
        if (size > MAX_UNREAD) request.destroy(new Error('an endless answer'));
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
