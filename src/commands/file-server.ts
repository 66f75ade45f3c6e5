/** Serves the files of one folder over HTTP to this machine alone. */
import { readdirSync, readFileSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { errorCode, InlayError } from '../errors.ts';

const LOOPBACK = '127.0.0.1';
const TYPES: Record<string, string> = {
  '.css': 'text/css; charset=utf-8',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.wasm': 'application/wasm',
};
/** A page gets what it needs from here, runs WebAssembly, and is shown in no other page. */
const POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  ...['style', 'img', 'connect'].map((kind) => `${kind}-src 'self'`),
  ...['base-uri', 'form-action', 'frame-ancestors'].map((what) => `${what} 'none'`),
].join('; ');
const HEADERS = {
  'Content-Security-Policy': POLICY,
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'Cache-Control': 'no-cache',
};

interface File {
  type: string;
  bytes: Buffer;
}

export class FileServer {
  readonly #server: Server;
  readonly url: string;

  private constructor(server: Server) {
    this.#server = server;
    this.url = `http://${LOOPBACK}:${(server.address() as AddressInfo).port}/`;
  }

  /**
   * Serves what is in `folder` now, without its folders; port 0 is any that is free. Throws ERR_FAILED if the folder
   * cannot be read or the port is taken.
   */
  static async open(folder: string, port: number): Promise<FileServer> {
    const files = filesOf(folder);
    const server = createServer((request, response) => answer(files, request, response));
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(port, LOOPBACK, resolve);
      });
    } catch (cause) {
      throw new InlayError('ERR_FAILED', `cannot listen at ${LOOPBACK}:${port}: ${errorCode(cause)}`, {
        hint: 'leave --port out, and any free port is taken',
        cause,
      });
    }
    return new FileServer(server);
  }

  /** Ends every connection. */
  async close(): Promise<void> {
    await new Promise((resolve) => {
      this.#server.close(resolve);
      this.#server.closeAllConnections();
    });
  }
}

/** By the path that a request has. They are read once: no path of a request ever becomes one of this machine. */
function filesOf(folder: string): Map<string, File> {
  try {
    const names = readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isFile());
    const files = names.map(({ name }): [string, File] => {
      const type = TYPES[path.extname(name)] ?? 'application/octet-stream';
      return [`/${name}`, { type, bytes: readFileSync(path.join(folder, name)) }];
    });
    const index = files.find(([name]) => name === '/index.html');
    return new Map([...files, ...(index ? [['/', index[1]] as const] : [])]);
  } catch (cause) {
    throw new InlayError('ERR_FAILED', `cannot read ${folder}: ${errorCode(cause)}`, { cause });
  }
}

function answer(files: ReadonlyMap<string, File>, request: IncomingMessage, response: ServerResponse): void {
  if (request.method !== 'GET' && request.method !== 'HEAD') {
    refuse(response, 405, { Allow: 'GET, HEAD' });
    return;
  }
  const [name = ''] = (request.url ?? '').split('?');
  const file = files.get(name);
  if (!file) {
    refuse(response, 404);
    return;
  }
  response.writeHead(200, { ...HEADERS, 'Content-Type': file.type, 'Content-Length': file.bytes.length });
  // Node leaves the body of an answer to HEAD out.
  response.end(file.bytes);
}

function refuse(response: ServerResponse, status: 404 | 405, headers: Record<string, string> = {}): void {
  response.writeHead(status, { ...HEADERS, ...headers, 'Content-Type': 'text/plain; charset=utf-8' });
  response.end(status === 404 ? 'There is no such file.\n' : 'GET and HEAD are what this server answers.\n');
}
