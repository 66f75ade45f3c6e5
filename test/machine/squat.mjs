/** Takes the abstract names of a device's lock, as any process can: NAME... without their zeros; says its number when it has them. */
import net from 'node:net';

const MAX_NAME = 107;
for (const name of process.argv.slice(2)) {
  const server = net.createServer((socket) => socket.destroy());
  await new Promise((resolve) => server.listen(`\0${name}`.padEnd(1 + MAX_NAME, '\0'), resolve));
}
process.stdout.write(`${process.pid}\n`);
