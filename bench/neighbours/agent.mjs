/** One process in a network namespace, told by messages what to do: sends packets, receives them, or changes neighbours of another device. */
import dgram from 'node:dgram';
import { once } from 'node:events';
import { setImmediate as turn } from 'node:timers/promises';
import { request } from '../../dist/linux/netlink/message.js';
import { NUD_STALE, neighbour, RTM_NEWNEIGH } from '../../dist/linux/netlink/neighbour.js';
import { Netlink } from '../../dist/linux/netlink/netlink.js';
import { AF_INET, findLink } from '../../dist/linux/netlink/rtnetlink.js';

/** What a packet carries: its number and when it was sent, in ns of a clock that all processes share. */
const PAYLOAD = 12;
const PORT = 9;
const NLM_F_CREATE_REPLACE = 0x500;

const now = () => process.hrtime.bigint();
const address = (number) => [24, 16, 8, 0].map((shift) => (number >>> shift) & 255).join('.');

/** Sends a packet to each address, so many a second or as fast as it goes. */
async function send({ addresses, rate }) {
  const socket = dgram.createSocket({ type: 'udp4', sendBufferSize: 4 << 20 });
  socket.bind();
  await once(socket, 'listening');
  const start = now();
  let errors = 0;
  for (let i = 0; i < addresses.length; ) {
    const due = rate ? Math.min(addresses.length, Number(now() - start) * rate * 1e-9 + 1) : i + 64;
    for (; i < due && i < addresses.length; i++) {
      const payload = Buffer.alloc(PAYLOAD);
      payload.writeUInt32BE(i);
      payload.writeBigUInt64BE(now(), 4);
      socket.send(payload, PORT, address(addresses[i]), (error) => {
        if (error) errors++;
      });
    }
    await turn();
  }
  const seconds = Number(now() - start) * 1e-9;
  socket.close();
  return { seconds, errors };
}

let received = new Map();
/** Receives on a port; `header` bytes come before what was sent. */
async function receive({ port, header }) {
  const socket = dgram.createSocket({ type: 'udp4', recvBufferSize: 16 << 20 });
  socket.on('message', (message) => {
    if (message.length < header + PAYLOAD) return;
    const i = message.readUInt32BE(header);
    const ms = Number(now() - message.readBigUInt64BE(header + 4)) * 1e-6;
    if (!received.has(i)) received.set(i, ms);
  });
  socket.bind(port);
  await once(socket, 'listening');
}

/** What came since the last call: the time that each packet took, in ms. */
function collect() {
  const times = [...received.values()];
  received = new Map();
  return times;
}

/** Changes neighbours of another device for so many ms; answers how many changes that were. */
async function churn({ device, ms }) {
  const netlink = Netlink.open();
  const { index } = findLink(netlink, device);
  let count = 0;
  for (const end = performance.now() + ms; performance.now() < end; await turn()) {
    const requests = Array.from({ length: 64 }, (_, i) => {
      const lladdr = Uint8Array.of(2, 1, 0, 0, count & 255, i);
      const body = { family: AF_INET, ifindex: index, state: NUD_STALE, dst: Uint8Array.of(172, 30, 0, i + 1), lladdr };
      return request(RTM_NEWNEIGH, NLM_F_CREATE_REPLACE, 'neighbour', neighbour, body);
    });
    netlink.tryAll(requests);
    count += requests.length;
  }
  netlink.close();
  return count;
}

const COMMANDS = { send, receive, collect, churn };
process.on('message', async ([name, options]) => process.send((await COMMANDS[name](options)) ?? null));
process.on('disconnect', () => process.exit());
process.send('ready');
