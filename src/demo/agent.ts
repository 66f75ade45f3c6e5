/**
 * An agent that runs on a VM, with ordinary sockets in the VM's containers. It takes TCP streams in all of
 * them, and sends one from one of them when it is told to. Its arguments are their network namespaces.
 */
import { closeSync } from 'node:fs';
import net from 'node:net';
import { Home, openNamespace } from '../containers/namespace.ts';
import * as native from '../linux/native.ts';

/** TCP port on which every agent listens. */
const PORT = 5001;
const CHUNK = Buffer.alloc(64 << 10, 'inlay');
/** ms */
const TIMEOUT = 20_000;

/** Send at least `bytes` from the container `from` to the address `to`, for at least `milliseconds`. */
export interface AgentRequest {
  from: string;
  to: string;
  bytes: number;
  milliseconds: number;
}

export interface AgentAnswer {
  /** What the other end says that it got; absent if the stream failed. */
  received?: number;
  sent?: number;
  milliseconds?: number;
  error?: string;
}

const home = new Home();
const listening = process.argv.slice(2).map(listenIn);
void Promise.all(listening).then(() => process.send?.('ready'));
process.on('message', (request: AgentRequest) => void stream(request).then((answer) => process.send?.(answer)));
process.on('disconnect', () => process.exit());

/** What `work` opens is in the container, and stays there. */
function within<T>(container: string, work: () => T): T {
  const namespace = openNamespace(container);
  try {
    return home.within(namespace, work);
  } finally {
    closeSync(namespace.fd);
  }
}

function listenIn(container: string): Promise<void> {
  const server = net.createServer({ allowHalfOpen: true }, (socket) => {
    let received = 0;
    socket.on('data', (chunk) => {
      received += chunk.length;
    });
    socket.on('end', () => socket.end(String(received)));
    socket.on('error', () => socket.destroy());
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    // Without a host the socket is made at once.
    within(container, () => server.listen(PORT, resolve));
  });
}

/** A socket that is being connected: net.connect would make it later, when this thread is no longer there. */
function connectFrom(container: string, to: string): net.Socket {
  const type = native.SOCK_STREAM | native.SOCK_NONBLOCK | native.SOCK_CLOEXEC;
  const socket = () => native.socket(native.AF_INET, type, 0);
  const fd = native.must(within(container, socket), 'socket', `in ${container}`);
  const name = new Uint8Array(16); // struct sockaddr_in (ip(7)).
  name.set([native.AF_INET, 0, PORT >> 8, PORT & 255, ...to.split('.').map(Number)]);
  native.connect(fd, name, name.length); // That it takes a while is no error.
  return new net.Socket({ fd, readable: true, writable: true, allowHalfOpen: true });
}

async function stream({ from, to, bytes, milliseconds }: AgentRequest): Promise<AgentAnswer> {
  const start = performance.now();
  const socket = connectFrom(from, to);
  let sent = 0;
  let answer = '';
  const more = () => sent < bytes || performance.now() - start < milliseconds;
  const pump = () => {
    while (more()) {
      sent += CHUNK.length;
      if (!socket.write(CHUNK)) return void socket.once('drain', pump);
    }
    socket.end();
  };
  return new Promise((resolve) => {
    const fail = (error: Error) => resolve({ error: error.message });
    socket.setTimeout(TIMEOUT, () => socket.destroy(new Error(`no progress for ${TIMEOUT} ms`)));
    socket.on('error', fail);
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('end', () => resolve({ received: Number(answer), sent, milliseconds: performance.now() - start }));
    pump();
  });
}
