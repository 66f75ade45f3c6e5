/** The control socket: HTTP over a Unix socket in the run directory. `curl --unix-socket /run/inlay/control.sock http://inlay/status` works too. */
import { chmodSync, rmSync } from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { errorCode, InlayError } from './errors.ts';

const SOCKET = 'control.sock';
/** ms within which a request has to be complete, and an answer to come. */
const TIMEOUT = 5000;

export type ControlRoutes = Record<string, () => Promise<unknown>>;

export class ControlServer {
  readonly #server: http.Server;

  private constructor(server: http.Server) {
    this.#server = server;
  }

  /** Listens in `runDir`, whose lock the caller has, with mode 0660. */
  static async listen(runDir: string, routes: ControlRoutes): Promise<ControlServer> {
    const socket = path.join(runDir, SOCKET);
    removeDeadSocket(runDir);
    const server = http.createServer({ requestTimeout: TIMEOUT, headersTimeout: TIMEOUT }, (request, response) => {
      void answer(routes, request, response);
    });
    server.maxConnections = 64;
    await new Promise<void>((resolve, reject) => server.once('error', reject).listen(socket, resolve)).catch(
      (cause) => {
        throw new InlayError('ERR_FAILED', `control socket ${socket}: ${errorCode(cause)}`, { cause });
      },
    );
    chmodSync(socket, 0o660);
    return new ControlServer(server);
  }

  /** Stops listening, which removes the socket. */
  close(): Promise<void> {
    this.#server.closeAllConnections();
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

async function answer(
  routes: ControlRoutes,
  request: http.IncomingMessage,
  response: http.ServerResponse,
): Promise<void> {
  const name = (request.url ?? '').slice(1);
  const route = request.method === 'GET' && Object.hasOwn(routes, name) ? routes[name] : undefined;
  let [status, body]: [number, unknown] = [
    404,
    {
      error: `expected GET ${Object.keys(routes)
        .map((r) => `/${r}`)
        .join(' or ')}`,
    },
  ];
  if (route) {
    try {
      [status, body] = [200, await route()];
    } catch (error) {
      [status, body] = [500, { error: String(error) }];
    }
  }
  response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
}

/** Removes the socket that a killed daemon left. Only for whoever has the lock of `runDir`. */
export function removeDeadSocket(runDir: string): void {
  rmSync(path.join(runDir, SOCKET), { force: true });
}

/** Asks the daemon of `runDir`. Throws ERR_NOT_RUNNING if there is none. */
export async function ask<T>(runDir: string, name: string): Promise<T> {
  const socketPath = path.join(runDir, SOCKET);
  let text: string;
  try {
    text = await get(socketPath, name);
  } catch (cause) {
    const code = errorCode(cause);
    if (code === 'EACCES') {
      throw new InlayError('ERR_PERMISSION', `no permission for ${socketPath}`, {
        hint: 'run as root, or join the group of the socket',
        cause,
      });
    }
    if (code !== 'ENOENT' && code !== 'ECONNREFUSED') {
      throw new InlayError('ERR_FAILED', `no answer from ${socketPath}: ${code ?? (cause as Error).message}`, {
        cause,
      });
    }
    throw new InlayError('ERR_NOT_RUNNING', `no daemon answers at ${socketPath} (${code})`, {
      hint: 'start it with inlay up, or name its directory with --run-dir',
      cause,
    });
  }
  return JSON.parse(text);
}

function get(socketPath: string, name: string): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.get({ socketPath, path: `/${name}`, timeout: TIMEOUT }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString();
        if (response.statusCode === 200) resolve(text);
        else reject(new Error(`status ${response.statusCode}: ${text.trim()}`));
      });
    });
    request.on('timeout', () => request.destroy(new Error('no answer in time')));
    request.on('error', reject);
  });
}
