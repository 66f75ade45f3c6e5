/**
 * An agent that runs inside a container, with ordinary sockets. It takes TCP streams, and sends one when it
 * is told to.
 */
import net from 'node:net';

/** TCP port on which every agent listens. */
const PORT = 5001;
const CHUNK = Buffer.alloc(64 << 10, 'inlay');
/** ms */
const TIMEOUT = 20_000;

/** Send at least `bytes` to `to`, for at least `milliseconds`. */
export interface AgentRequest {
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

const server = net.createServer({ allowHalfOpen: true }, (socket) => {
  let received = 0;
  socket.on('data', (chunk) => {
    received += chunk.length;
  });
  socket.on('end', () => socket.end(String(received)));
  socket.on('error', () => socket.destroy());
});
server.listen(PORT, () => process.send?.('ready'));
process.on('message', (request: AgentRequest) => void stream(request).then((answer) => process.send?.(answer)));
process.on('disconnect', () => process.exit());

async function stream({ to, bytes, milliseconds }: AgentRequest): Promise<AgentAnswer> {
  const socket = net.connect({ host: to, port: PORT, allowHalfOpen: true });
  const start = performance.now();
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
    socket.on('connect', pump);
    socket.on('data', (chunk) => {
      answer += chunk;
    });
    socket.on('end', () => resolve({ received: Number(answer), sent, milliseconds: performance.now() - start }));
  });
}
