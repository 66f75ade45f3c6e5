/** `serve` gives back what a TCP connection sends, until its standard input ends. `send ADDRESS BYTES` sends so many bytes and prints how many came back as they were sent. */
import { randomBytes } from 'node:crypto';
import { connect, createServer } from 'node:net';

const PORT = 7000;
const [, , command, address, bytes] = process.argv;

if (command === 'serve') {
  const server = createServer((socket) => socket.on('error', () => socket.destroy()).pipe(socket));
  process.stdin.on('end', () => process.exit(0)).resume();
  server.listen(PORT, '0.0.0.0', () => process.stdout.write('ready\n'));
} else {
  const sent = randomBytes(Number(bytes));
  let same = 0;
  const report = () => {
    process.stdout.write(`${same}\n`);
    process.exit(0);
  };
  const socket = connect(PORT, address, () => socket.end(sent));
  socket.on('data', (chunk) => {
    if (chunk.equals(sent.subarray(same, same + chunk.length))) same += chunk.length;
  });
  socket.on('end', report).on('error', report);
}
