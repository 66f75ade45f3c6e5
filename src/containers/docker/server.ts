/** The plugin's HTTP server: JSON by POST on a Unix socket, as docker's plugin API has it. It keeps nothing between two requests. */
import http from 'node:http';
import type { ListenOptions } from 'node:net';
import { ipamDriver } from './ipam-driver.ts';
import { BadRequest, constant, type Method, reasonOf, type WithStore } from './method.ts';
import { networkDriver } from './network-driver.ts';

/** Bytes of a request. docker's are shorter than a tenth, but for the labels that users give. */
const MAX_BODY = 256 << 10;
/** ms. docker gives up after 30 s. */
const TIMEOUT = 10_000;
/** Of docker alone, which asks a few things at a time. */
const MAX_CONNECTIONS = 256;
const CONTENT_TYPE = 'application/vnd.docker.plugins.v1.1+json';

const METHODS: ReadonlyMap<string, Method> = new Map([
  ['/Plugin.Activate', constant('Err', { Implements: ['NetworkDriver', 'IpamDriver'] })],
  ...Object.entries(networkDriver).map(([name, method]) => [`/NetworkDriver.${name}`, method] as const),
  ...Object.entries(ipamDriver).map(([name, method]) => [`/IpamDriver.${name}`, method] as const),
]);

export interface Call {
  method: string;
  /** Why it failed. */
  failure?: string;
}

/** `told` hears of each request of a method that there is. */
export class PluginServer {
  readonly #withStore: WithStore;
  readonly #told: (call: Call) => void;
  readonly #server: http.Server;

  constructor(withStore: WithStore, told: (call: Call) => void = () => {}) {
    this.#withStore = withStore;
    this.#told = told;
    const timeouts = { requestTimeout: TIMEOUT, headersTimeout: TIMEOUT, connectionsCheckingInterval: TIMEOUT / 4 };
    this.#server = http.createServer(timeouts, (request, response) => void this.#serve(request, response));
    this.#server.maxConnections = MAX_CONNECTIONS;
  }

  /** Of a socket that it makes, root alone can use it: docker runs as root. */
  listen(where: ListenOptions | { fd: number }): Promise<void> {
    // The socket is there, with its mode, when listen() returns; `listening` and `error` come later.
    const umask = process.umask(0o177);
    const listening = new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject).listen(where, () => resolve());
    });
    process.umask(umask);
    return listening;
  }

  close(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeIdleConnections();
    });
  }

  async #serve(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const [status, answer] = await this.#answer(request);
    const text = `${JSON.stringify(answer)}\n`;
    // One request a connection: docker never writes to one that a plugin which is restarted is about to close.
    const headers = { 'content-type': CONTENT_TYPE, 'content-length': Buffer.byteLength(text), connection: 'close' };
    response.writeHead(status, headers).end(text);
  }

  async #answer(request: http.IncomingMessage): Promise<[status: number, answer: object]> {
    const name = request.url ?? '';
    const method = METHODS.get(name);
    // docker takes 404 for a method that is newer than the plugin.
    if (!method) return [404, failures(`there is no method ${JSON.stringify(name.slice(0, 100))}`)];
    if (request.method !== 'POST') return [405, failures('expected POST')];
    try {
      const answer = method.answer(await bodyOf(request), this.#withStore);
      this.#told({ method: name.slice(1) });
      return [200, answer];
    } catch (error) {
      const failure = reasonOf(error);
      this.#told({ method: name.slice(1), failure });
      if (error instanceof BadRequest) return [400, failures(failure)];
      return [200, { [method.failure]: failure }];
    }
  }
}

/** For those who may look in either place. */
function failures(reason: string): object {
  return { Err: reason, Error: reason };
}

/** The request's JSON; an object without fields where docker sends none. Throws BadRequest. */
async function bodyOf(request: http.IncomingMessage): Promise<unknown> {
  const text = (await read(request)).toString().trim();
  if (text === '') return {};
  try {
    return JSON.parse(text) ?? {};
  } catch {
    throw new BadRequest('the request is not JSON');
  }
}

function read(request: http.IncomingMessage): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let size = 0;
    // Of a request that is too long the rest is read, too, and forgotten: otherwise the answer would not arrive.
    request.on('data', (chunk: Buffer) => {
      size += chunk.length;
      if (size > MAX_BODY) reject(new BadRequest(`the request is longer than ${MAX_BODY} bytes`));
      else chunks.push(chunk);
    });
    request.once('end', () => resolve(Buffer.concat(chunks)));
    request.once('close', () => reject(new BadRequest('the connection was closed')));
  });
}
