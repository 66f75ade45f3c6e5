/**
 * One end of a TCP transfer in both directions at once: node tcp.mjs listen|connect ADDRESS BYTES. Sends BYTES random bytes, reads until the
 * other side has ended, and prints one JSON object: how many bytes went each way, and their SHA-256.
 */
import { createHash, randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

const PORT = 5001;
const [role, host, bytes] = process.argv.slice(2);

async function openSocket() {
  if (role === 'connect') return connect({ host, port: PORT });
  const server = createServer({ allowHalfOpen: true }).listen(PORT, host);
  await once(server, 'listening');
  process.stderr.write('listening\n');
  const [socket] = await once(server, 'connection');
  server.close();
  return socket;
}

const socket = await openSocket();
const data = randomBytes(Number(bytes));
const received = createHash('sha256');
let receivedBytes = 0;
socket.on('data', (chunk) => {
  received.update(chunk);
  receivedBytes += chunk.length;
});
socket.end(data);
await once(socket, 'close');
process.stdout.write(
  JSON.stringify({
    sent: { bytes: data.length, sha256: createHash('sha256').update(data).digest('hex') },
    received: { bytes: receivedBytes, sha256: received.digest('hex') },
  }),
);
