/**
 * One end of a TCP transfer in both directions at once: node tcp.mjs listen|connect ADDRESS [BYTES]. Says on standard error when it
 * listens or is connected. Sends BYTES random bytes, or without BYTES some every few milliseconds until its standard input ends; reads
 * until the other side has ended, and prints one JSON object: how many bytes went each way, and their SHA-256.
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

const PORT = 5001;
/** Bytes, and ms between them. */
const [CHUNK, INTERVAL] = [64 << 10, 10];
const [role, host, bytes] = process.argv.slice(2);

async function openSocket() {
  if (role === 'connect') {
    const socket = connect({ host, port: PORT });
    await once(socket, 'connect');
    process.stderr.write('connected\n');
    return socket;
  }
  const server = createServer({ allowHalfOpen: true }).listen(PORT, host);
  await once(server, 'listening');
  process.stderr.write('listening\n');
  const [socket] = await once(server, 'connection');
  server.close();
  return socket;
}

const socket = await openSocket();
const [sent, received] = [createHash('sha256'), createHash('sha256')];
let [sentBytes, receivedBytes] = [0, 0];
socket.on('data', (chunk) => {
  received.update(chunk);
  receivedBytes += chunk.length;
});

function send(data) {
  sent.update(data);
  sentBytes += data.length;
  socket.write(data);
}

if (bytes === undefined) {
  send(randomBytes(CHUNK));
  const timer = setInterval(() => send(randomBytes(CHUNK)), INTERVAL);
  process.stdin.resume().once('end', () => {
    clearInterval(timer);
    socket.end();
  });
} else {
  send(randomBytes(Number(bytes)));
  socket.end();
}
await once(socket, 'close');
process.stdout.write(
  JSON.stringify({
    sent: { bytes: sentBytes, sha256: sent.digest('hex') },
    received: { bytes: receivedBytes, sha256: received.digest('hex') },
  }),
);
