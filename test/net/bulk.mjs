/**
 * Traffic in bulk between two processes that live as long as the lab. `serve` answers on port 5000 of any address. `send ADDRESS` does what each line that it
 * reads says, and prints one line: `tcp BYTES MS` how many Mbit/s arrived, 0 if not all did in that time; `udp LENGTH COUNT BURSTS` how many datagrams of each
 * length arrived.
 */
import { createSocket } from 'node:dgram';
import { createConnection, createServer } from 'node:net';
import { createInterface } from 'node:readline';

const PORT = 5000;
const CHUNK = Buffer.alloc(256 << 10);
/** ms between bursts, and until no more datagrams are expected. */
const [PAUSE, PATIENCE] = [10, 300];
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function serve() {
  createServer((socket) => {
    socket.on('error', () => {});
    // A client that asks is told what has come by UDP; what any other sends is read and forgotten.
    socket.once('data', (data) => {
      if (data[0] !== '?'.charCodeAt(0)) return;
      socket.end(JSON.stringify(lengths));
      lengths = {};
    });
    socket.resume();
  }).listen(PORT, () => {
    const udp = createSocket('udp4');
    udp.on('message', (message) => {
      lengths[message.length] = (lengths[message.length] ?? 0) + 1;
    });
    udp.bind(PORT, () => {
      udp.setRecvBufferSize(4 << 20);
      console.log('ready');
    });
  });
}
let lengths = {};

function tcp(address, bytes, timeout) {
  return new Promise((resolve) => {
    const socket = createConnection({ host: address, port: PORT });
    let start = performance.now();
    const end = (rate) => {
      clearTimeout(timer);
      socket.destroy();
      resolve(rate);
    };
    const timer = setTimeout(() => end(0), timeout);
    let left = bytes;
    const push = () => {
      while (left > 0) {
        const piece = CHUNK.subarray(0, Math.min(left, CHUNK.length));
        left -= piece.length;
        if (!socket.write(piece)) return socket.once('drain', push);
      }
      return socket.end();
    };
    socket.once('connect', () => {
      start = performance.now();
      push();
    });
    // The other end says that it has everything by closing too.
    socket.resume().once('end', () => end((8 * bytes) / 1000 / (performance.now() - start)));
    socket.once('error', () => end(0));
  });
}

async function udp(address, length, count, bursts) {
  const socket = createSocket('udp4');
  await new Promise((resolve) => socket.connect(PORT, address, resolve));
  for (let i = 0; i < bursts; i++) {
    const sent = Array.from(
      { length: count },
      () => new Promise((resolve) => socket.send(Buffer.alloc(length), resolve)),
    );
    await Promise.all(sent);
    await sleep(PAUSE);
  }
  socket.close();
  await sleep(PATIENCE);
  return await new Promise((resolve) => {
    let answer = '';
    const asked = createConnection({ host: address, port: PORT }, () => asked.write('?'));
    asked.on('data', (data) => {
      answer += data;
    });
    asked.once('end', () => resolve(answer));
    asked.once('error', (error) => resolve(JSON.stringify(String(error))));
  });
}

const [what, address] = process.argv.slice(2);
if (what === 'serve') serve();
else {
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    const [kind, ...rest] = line.split(' ');
    console.log(await (kind === 'tcp' ? tcp : udp)(address, ...rest.map(Number)));
  }
}
