/** HTTP over Unix sockets in the run directory, one request for each connection. */
import { lstatSync } from 'node:fs';
import http from 'node:http';
import type { Socket } from 'node:net';
import path from 'node:path';
import { setImmediate as nextRound, setTimeout as sleep } from 'node:timers/promises';
import { errorCode, InlayError } from '../errors.ts';
import { removeName } from '../linux/own-file.ts';
import { CONTROL_SOCKET, LONGEST_ANSWER, TIMEOUT } from './control.ts';

/** A kind of socket: what is asked there, and by whom. */
export interface SocketKind {
  /** In the run directory. */
  name: string;
  method: 'GET' | 'POST';
  /** What the kernel lets connect to it (unix(7)). */
  mode: number;
  /** ms from the whole request to the answer, at most. */
  patience: number;
  /** Of more connections the oldest goes, so that no client can keep others out. */
  connections: number;
}

/** For who looks. The group may, too. */
export const CONTROL: SocketKind = {
  ...{ name: CONTROL_SOCKET, method: 'GET', mode: 0o660 },
  ...{ patience: TIMEOUT, connections: 256 },
};
/**
 * For who attaches containers, which takes the daemon's own rights: its user and root, and nobody else. So
 * many may wait, because runtimes start and stop thousands at once.
 */
export const ATTACH: SocketKind = {
  ...{ name: 'attach.sock', method: 'POST', mode: 0o600 },
  ...{ patience: 120_000, connections: 4096 },
};

/** Rounds of the event loop without a new connection, after which none waits to be accepted. */
const QUIET = 3;

/** Bytes. What CNI says of a network with 8,189 containers is 2 MB; in a form, up to three times that. */
const LONGEST_BODY = 8 << 20;

/** An answer that is not just JSON with status 200. */
export class Answer {
  readonly status: number;
  readonly text: string;

  constructor(status: number, text: string) {
    this.status = status;
    this.text = text;
  }
}

/** `signal` is aborted when the client goes. What a route throws becomes an answer, too. */
export type ControlRoutes = Record<string, (body: string, signal: AbortSignal) => Promise<unknown>>;

interface Connection {
  /** Whether its request has come. */
  asked: boolean;
  /** Ends the connection. */
  timer: NodeJS.Timeout;
}

export class ControlServer {
  readonly #runDir: string;
  readonly #kind: SocketKind;
  readonly #routes: ControlRoutes;
  readonly #server = http.createServer((request, response) => void this.#answer(request, response));
  /** How many have connected so far. */
  #accepted = 0;
  /** Open connections, the oldest first. */
  readonly #connections = new Map<Socket, Connection>();

  private constructor(runDir: string, routes: ControlRoutes, kind: SocketKind) {
    this.#runDir = runDir;
    this.#routes = routes;
    this.#kind = kind;
    this.#server.on('connection', (socket) => this.#accept(socket));
  }

  /** Listens in `runDir`, whose lock the caller has. */
  static async listen(runDir: string, routes: ControlRoutes, kind: SocketKind = CONTROL): Promise<ControlServer> {
    const socket = path.join(runDir, kind.name);
    // That of a daemon that was killed.
    removeName(socket);
    const control = new ControlServer(runDir, routes, kind);
    // The socket is there, with its mode, when listen() returns; `listening` and `error` come later.
    const umask = process.umask(0o777 & ~kind.mode);
    const listening = new Promise<void>((resolve, reject) => {
      control.#server.on('error', reject).listen(socket, resolve);
    });
    process.umask(umask);
    await listening.catch((cause) => {
      throw new InlayError('ERR_FAILED', `socket ${socket}: ${errorCode(cause)}`, { cause });
    });
    return control;
  }

  /** Whether there is a socket in `runDir`. */
  static isThere(runDir: string, { name }: SocketKind = CONTROL): boolean {
    return lstatSync(path.join(runDir, name), { throwIfNoEntry: false }) !== undefined;
  }

  /**
   * Listens no more, and answers whoever has connected. Resolves when all have gone, or were waited for so many
   * ms. The name goes first, so that nobody comes any more while those are accepted who wait for that: libuv
   * accepts one each time that the event loop goes round, and the kernel resets those who still wait when the
   * socket is closed.
   */
  async finish(patience: number): Promise<void> {
    removeName(path.join(this.#runDir, this.#kind.name));
    const deadline = performance.now() + patience;
    for (let last = this.#accepted, quiet = 0; quiet < QUIET && performance.now() < deadline; quiet++) {
      await nextRound();
      if (this.#accepted !== last) quiet = 0;
      last = this.#accepted;
    }
    const gone = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const late = new AbortController();
    await Promise.race([gone, sleep(deadline - performance.now(), undefined, { signal: late.signal }).catch(() => {})]);
    late.abort();
    for (const socket of this.#connections.keys()) socket.destroy();
  }

  /** Stops listening, which removes the socket. */
  close(): Promise<void> {
    for (const socket of this.#connections.keys()) socket.destroy();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }

  #accept(socket: Socket): void {
    this.#accepted++;
    const connection = { asked: false, timer: setTimeout(() => socket.destroy(), TIMEOUT) };
    this.#connections.set(socket, connection);
    socket.once('close', () => {
      clearTimeout(connection.timer);
      this.#connections.delete(socket);
    });
    this.#makeRoom();
  }

  #makeRoom(): void {
    const sockets = [...this.#connections.keys()];
    let unread = sockets.reduce((sum, socket) => sum + socket.writableLength, 0);
    for (let i = 0; sockets.length - i > this.#kind.connections || unread > LONGEST_ANSWER; i++) {
      const socket = sockets[i] as Socket;
      unread -= socket.writableLength;
      this.#connections.delete(socket);
      socket.destroy();
    }
  }

  async #answer(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const { socket } = request;
    const connection = this.#connections.get(socket);
    // Pipelined requests are ignored, because the answer to the first ends the connection.
    if (!connection || connection.asked) return;
    connection.asked = true;
    const gone = new AbortController();
    socket.once('close', () => gone.abort());
    let body: string | undefined = '';
    try {
      if (request.method === 'POST') body = await bodyOf(request);
    } catch {
      return; // The client has gone.
    }
    if (this.#kind.patience > TIMEOUT) {
      clearTimeout(connection.timer);
      connection.timer = setTimeout(() => socket.destroy(), this.#kind.patience);
    }
    const { status, text } = await this.#result(request, body, gone.signal);
    const bytes = Buffer.from(text);
    response.writeHead(status, {
      'content-type': 'application/json',
      'content-length': bytes.length,
      connection: 'close',
    });
    response.end(bytes);
    this.#makeRoom();
  }

  async #result(request: http.IncomingMessage, body: string | undefined, signal: AbortSignal): Promise<Answer> {
    const name = (request.url ?? '').slice(1);
    const { method } = this.#kind;
    const route = request.method === method && Object.hasOwn(this.#routes, name) ? this.#routes[name] : undefined;
    if (!route) {
      const names = Object.keys(this.#routes).map((r) => `/${r}`);
      return json(404, { error: `expected ${method} ${names.join(' or ')}` });
    }
    if (body === undefined) return json(413, { error: `expected at most ${LONGEST_BODY} bytes` });
    try {
      const result = await route(body, signal);
      return result instanceof Answer ? result : json(200, result);
    } catch (error) {
      return json(500, { error: String(error) });
    }
  }
}

function json(status: number, value: unknown): Answer {
  return new Answer(status, `${JSON.stringify(value)}\n`);
}

/** Undefined if it is too long. Throws if it does not come whole. */
async function bodyOf(request: http.IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > LONGEST_BODY) return undefined;
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString();
}

/** Removes the sockets that a killed daemon left. Only for whoever has the lock of `runDir`. */
export function removeDeadSockets(runDir: string): void {
  for (const { name } of [CONTROL, ATTACH]) removeName(path.join(runDir, name));
}
