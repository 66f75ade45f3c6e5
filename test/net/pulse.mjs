/**
 * `serve` answers UDP datagrams. `send ADDRESS INTERVAL MOST` sends numbered ones, one every so many ms, until its standard input ends or they are so many, waits
 * for the answers, and prints what became of them.
 */
import dgram from 'node:dgram';

const PORT = 7777;
/** ms that the last answers may take. */
const LATEST = 3000;
const [, , command, address, interval, most] = process.argv;
const socket = dgram.createSocket('udp4');

if (command === 'serve') {
  socket.on('message', (message, from) => socket.send(message, from.port, from.address));
  socket.bind(PORT, () => process.stdout.write('ready\n'));
} else {
  const waiting = new Set();
  const errors = new Map();
  let sent = 0;
  let isOver = false;

  const report = () => {
    const lost = [...waiting];
    process.stdout.write(`${JSON.stringify({ sent, received: sent - lost.length, lost, errors: [...errors] })}\n`);
    process.exit(0);
  };
  const finish = () => {
    if (isOver) return;
    isOver = true;
    clearInterval(timer);
    if (waiting.size === 0) report();
    setTimeout(report, LATEST);
  };
  socket.on('message', (message) => {
    if (waiting.size === sent) process.stdout.write('first\n');
    waiting.delete(message.readUInt32BE());
    if (isOver && waiting.size === 0) report();
  });
  const send = () => {
    if (sent === Number(most)) {
      finish();
      return;
    }
    const number = sent++;
    waiting.add(number);
    const message = Buffer.alloc(32);
    message.writeUInt32BE(number);
    socket.send(message, PORT, address, (error) => error && errors.set(number, error.code));
  };
  const timer = setInterval(send, Number(interval));
  process.stdin.on('end', finish).resume();
}
