/**
 * beat.mjs ADDRESS INTERVAL MINUTES sends a numbered packet to ADDRESS every INTERVAL ms, for MINUTES at most; pulse.mjs answers. Two messages ask it: `flows`
 * waits for the answer to a packet that was sent after some time, `missed` counts the packets of a period that had no answer.
 */
import dgram from 'node:dgram';

const PORT = 7777;
const [, , address, interval, minutes] = process.argv;
/** How many packets it remembers: those of four minutes. */
const KEPT = 1 << 17;
/** An answer that takes longer counts as none, in ms. */
const LATE = 1000;

const now = () => Number(process.hrtime.bigint()) / 1e6;
const sentAt = new Float64Array(KEPT);
const answeredAt = new Float64Array(KEPT);
let next = 0;
let waiting = [];

const socket = dgram.createSocket('udp4');
socket.on('message', (message) => {
  const number = message.readUInt32BE();
  if (number < next - KEPT) return;
  const slot = number % KEPT;
  answeredAt[slot] ||= now();
  waiting = waiting.filter(({ after, resolve }) => {
    if (sentAt[slot] < after) return true;
    resolve(answeredAt[slot]);
    return false;
  });
});

/** If the timer comes late, the packets of all missed intervals are sent at once. */
const start = now();
const timer = setInterval(() => {
  for (const due = (now() - start) / Number(interval); next < due; next++) {
    const message = Buffer.alloc(32);
    message.writeUInt32BE(next);
    sentAt[next % KEPT] = now();
    answeredAt[next % KEPT] = 0;
    socket.send(message, PORT, address, () => {});
  }
  if (now() - start > Number(minutes) * 60_000) clearInterval(timer);
}, Number(interval));

/** When the answer came to a packet that was sent after `after`; undefined if none does within `limit` ms. */
function flows({ after, limit }) {
  return new Promise((resolve) => {
    waiting.push({ after, resolve });
    setTimeout(resolve, limit);
  });
}

/** How many packets were sent between two times, how many of them had no answer, and when the last of those was sent. */
function missed({ from, to }) {
  let [sent, count, last] = [0, 0, undefined];
  for (let number = Math.max(0, next - KEPT); number < next; number++) {
    const slot = number % KEPT;
    if (sentAt[slot] < from || sentAt[slot] >= to) continue;
    sent++;
    if (answeredAt[slot] && answeredAt[slot] - sentAt[slot] < LATE) continue;
    count++;
    last = sentAt[slot];
  }
  return { sent, count, last };
}

const COMMANDS = { flows, missed };
process.on('message', async ([id, name, options]) => process.send([id, await COMMANDS[name](options)]));
process.on('disconnect', () => process.exit());
process.send('ready');
