/**
 * Asks the kernel of the network namespace that it runs in. Standard input has questions as JSON, standard output gets the answers. Bytes are strings that
 * begin with `hex:`; `fd:FILE` is the number of that file, opened.
 */
import { spawn } from 'node:child_process';
import { openSync, readFileSync } from 'node:fs';
import { address } from '../../dist/linux/netlink/address.js';
import { link } from '../../dist/linux/netlink/link.js';
import { request } from '../../dist/linux/netlink/message.js';
import { Monitor } from '../../dist/linux/netlink/monitor.js';
import { neighbour, neighbourTable } from '../../dist/linux/netlink/neighbour.js';
import { Netlink } from '../../dist/linux/netlink/netlink.js';
import { chain } from '../../dist/linux/netlink/nf-tables.js';
import { route } from '../../dist/linux/netlink/route.js';
import { bpfFilter, trafficControl } from '../../dist/linux/netlink/traffic-control.js';
import { openTransport } from '../../dist/linux/netlink/transport.js';

const codecs = { address, chain, link, neighbour, neighbourTable, route, bpfFilter, trafficControl };

function revive(_, value) {
  if (typeof value !== 'string') return value;
  if (value.startsWith('hex:')) return Uint8Array.from(Buffer.from(value.slice(4), 'hex'));
  return value.startsWith('fd:') ? openSync(value.slice(3), 'r') : value;
}

function replace(_, value) {
  return value instanceof Uint8Array ? `hex:${Buffer.from(value).toString('hex')}` : value;
}

const sockets = new Map();
function socketOf(protocol) {
  if (!sockets.has(protocol)) sockets.set(protocol, Netlink.open(protocol));
  return sockets.get(protocol);
}

/** `{ verb: 'do' | 'get' | 'dump', protocol?, type, flags?, what?, codec, body }`: what Netlink answers, or the error. */
function ask({ verb, protocol = 0, type, flags = 0, what = 'x', codec, body }) {
  const asked = request(type, flags, what, codecs[codec], body);
  try {
    return socketOf(protocol)[verb](asked, codecs[codec]) ?? null;
  } catch ({ code, message }) {
    return { code, message };
  }
}

/** Of RTM_NEW..., RTM_DEL... and RTM_GET... */
const codecOf = (type) => ({ 16: link, 20: address, 24: route, 28: neighbour })[type & ~3];

/** `{ verb: 'listen', groups, type, count, command?, questions? }`: what is heard meanwhile, until `count` messages of the type came. */
async function listen({ groups, count, type, command, questions = [] }) {
  const heard = [];
  const transport = openTransport(0, groups);
  const enough = new Promise((resolve, reject) => {
    const monitor = new Monitor(transport, {
      onMessages(messages) {
        for (const { view, start, end, ...header } of messages)
          heard.push({ ...header, size: end - start, body: codecOf(header.type).get(view, start, end) });
        if (heard.filter((message) => message.type === type).length < count) return;
        monitor.close();
        resolve();
      },
      onOverrun: () => reject(new Error('overrun')),
      onFailure: reject,
    });
  });
  const child = command && spawn(command[0], command.slice(1), { stdio: 'ignore' });
  const answers = questions.map(ask);
  await enough;
  child?.kill();
  return { heard, answers, ports: { own: socketOf(0).port, listener: transport.port } };
}

const results = [];
for (const question of JSON.parse(readFileSync(0, 'utf8'), revive))
  results.push(question.verb === 'listen' ? await listen(question) : ask(question));
process.stdout.write(JSON.stringify(results, replace));
