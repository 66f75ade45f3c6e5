/**
 * Packets of a container that neighbours, routes and redirects lead to another VM than that of their destination, with the kernel's GRE: node diverted.mjs
 * FLAGS, a JSON list for both daemons. Prints one JSON document with what was seen and judges nothing. Runs in User-mode Linux, as root.
 *
 *     own-container --- kernel --- inlay --- container
 *                         |
 *                       third
 */
import { setTimeout } from 'node:timers/promises';
import { up } from './daemons.mjs';
import * as scene from './namespaces.mjs';
import { PacketSocket, RawSocket } from './sockets.mjs';

const { OVERLAY, UNDERLAY } = scene;
const FLAGS = JSON.parse(process.argv[2]);
/** Packets each time. */
const COUNT = 5;
/** ms */
const DEADLINE = 20_000;

function checksum(bytes) {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += bytes.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** An ICMP message in an IPv4 packet; `rest` is the second word of its header. */
function icmp(source, destination, [type, code], rest, payload = Buffer.alloc(0)) {
  const bytes = (address) => address.split('.').map(Number);
  const message = Buffer.concat([Buffer.from([type, code, 0, 0, ...rest]), payload]);
  message.writeUInt16BE(checksum(message), 2);
  const header = Buffer.from([0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 1, 0, 0, ...bytes(source), ...bytes(destination)]);
  header.writeUInt16BE(header.length + message.length, 2);
  header.writeUInt16BE(checksum(header), 10);
  return Buffer.concat([header, message]);
}

async function until(question, isRight) {
  for (const deadline = performance.now() + DEADLINE; ; ) {
    const answer = await question();
    if (isRight(answer) || performance.now() > deadline) return answer;
    await setTimeout(50);
  }
}

await scene.makeNamespaces();
await scene.makeMoreNamespaces();
const daemon = await up('kernel', '--dataplane', 'kernel', ...FLAGS);
await up('inlay', ...FLAGS);
const ping = () => scene.ping('own-container', 'container', COUNT);
const first = await ping();

const [sender, third] = [new RawSocket('own-container'), new PacketSocket('third', 'eth0')];
const echo = icmp(OVERLAY['own-container'], OVERLAY.container, [8, 0], [0x49, 0x4e, 0, 1]);
const drops = async () => (await daemon.status()).outbound.drops;
const isLed = ({ bytes }) => bytes.includes(Buffer.from(OVERLAY.container.split('.').map(Number)));

/** Sends packets while `lines` have led them astray and the daemon cannot see to it; then it can again. */
async function lead(lines) {
  const [dropped, forwarded] = [await drops(), await scene.counter('kernel', 'Ip', 'ForwDatagrams')];
  third.received();
  daemon.signal('SIGSTOP');
  await scene.ipBatch('kernel', lines);
  for (let i = 0; i < COUNT; i++) sender.send(echo);
  await until(
    () => scene.counter('kernel', 'Ip', 'ForwDatagrams'),
    (now) => now >= forwarded + COUNT,
  );
  daemon.signal('SIGCONT');
  const after = await drops();
  const more = Object.entries(after).flatMap(([name, count]) =>
    count === (dropped[name] ?? 0) ? [] : [[name, count - (dropped[name] ?? 0)]],
  );
  return { drops: Object.fromEntries(more), arrived: third.received().filter(isLed).length };
}

const neighbour = (address) => [`neighbour replace ${OVERLAY.inlay} lladdr ${address} dev inlay0 nud permanent`];
const led = {
  'to another VM': await lead(neighbour(UNDERLAY.third)),
  'to all': await lead(neighbour('255.255.255.255')),
  'to a group': await lead(neighbour('224.0.0.1')),
};
await until(
  () => scene.run('kernel', 'ip', 'neighbour', 'show', 'dev', 'inlay0'),
  (lines) => lines.includes(`${OVERLAY.inlay} lladdr ${UNDERLAY.inlay} `),
);
const repaired = await ping();
// The kernel asks for that neighbour, and the daemon knows it.
led['by a route'] = await (async () => {
  await scene.ipBatch('kernel', [`route add ${OVERLAY.container}/32 via ${OVERLAY.third} dev inlay0 onlink`]);
  const before = (await drops()).diverted ?? 0;
  third.received();
  for (let i = 0; i < COUNT; i++) sender.send(echo);
  const after = await until(drops, ({ diverted = 0 }) => diverted >= before + COUNT);
  await scene.ipBatch('kernel', [`route del ${OVERLAY.container}/32`]);
  return { drops: { diverted: (after.diverted ?? 0) - before }, arrived: third.received().filter(isLed).length };
})();

// A redirect for what the VM itself has sent, from the next hop, as it seems (RFC 792).
third.received();
const quoted = icmp(OVERLAY.kernel, OVERLAY.container, [0, 0], [0, 0, 0, 0]);
const gateway = OVERLAY.third.split('.').map(Number);
for (let i = 0; i < 3; i++) {
  sender.send(icmp(OVERLAY.inlay, OVERLAY.kernel, [5, 1], gateway, quoted));
  await setTimeout(300);
}
for (let i = 0; i < COUNT; i++) sender.send(echo);
await setTimeout(1000);
const redirected = third.received().filter(isLed).length;

process.stdout.write(`${JSON.stringify({ first, led, repaired, redirected })}\n`);
process.exit(0);
