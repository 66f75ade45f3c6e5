/**
 * Captures what this machine's kernel says, for golden.json: in a network namespace of its own (`unshare -n`) what it says of all but GRE, and in User-mode Linux
 * (test/uml/uml.sh), given `gre`, what it says of that. Prints a list of datagrams as JSON, without what they mean.
 */
import { execSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import os from 'node:os';
import { address } from '../../dist/linux/netlink/address.js';
import { Writer } from '../../dist/linux/netlink/codec.js';
import { link } from '../../dist/linux/netlink/link.js';
import { messagesIn, putMessage } from '../../dist/linux/netlink/message.js';
import { neighbour, neighbourTable } from '../../dist/linux/netlink/neighbour.js';
import { route } from '../../dist/linux/netlink/route.js';
import { openTransport } from '../../dist/linux/netlink/transport.js';

const [NLM_F_REQUEST, NLM_F_DUMP, NLM_F_CREATE] = [0x1, 0x300, 0x400];
const found = [];
const asking = openTransport(0);
const listening = openTransport(0, [1, 3, 5, 7, 24]);

function keep(name, command, datagram) {
  const source = `Linux ${os.release()}: ${command}`;
  found.push({ name, source, hex: Buffer.from(datagram).toString('hex') });
}

/** Keeps what the kernel answers. */
function ask(name, command, type, flags, codec, body) {
  const writer = new Writer();
  putMessage(writer, { type, flags: flags | NLM_F_REQUEST, sequence: 1 }, (w) => codec.put(w, body));
  asking.send(writer.bytes);
  for (let datagram = asking.receive(); datagram; datagram = asking.receive()) keep(name, command, datagram);
}

/** Keeps the first notification of this type that comes from a command, or after it. */
async function hear(name, type, command, isWanted = () => true) {
  const child = spawn('sh', ['-c', command], { stdio: 'ignore' });
  const ended = once(child, 'exit');
  for (let isDone = false; !isDone; ) {
    await new Promise((resolve) => listening.wait(resolve));
    for (let datagram = listening.receive(); datagram; datagram = listening.receive()) {
      const [message] = messagesIn(datagram);
      if (isDone || message.type !== type || !isWanted(message)) continue;
      keep(name, command, datagram);
      isDone = true;
    }
  }
  await ended;
}

const stateIs =
  (state) =>
  ({ view, start, end }) =>
    neighbour.get(view, start, end).state === state;

async function plain() {
  execSync(`ip link set lo up
    ip link add vx0 index 10 address 02:00:00:00:00:01 mtu 1400 type vxlan id 42 local 10.0.0.1 dstport 4790 ttl 64 nolearning df set
    ip link set vx0 alias 'one two' addrgenmode none
    ip link add v0 index 11 address 02:00:00:00:00:02 type veth peer name v1 index 12 address 02:00:00:00:00:03
    ip tuntap add dev tun0 mode tun multi_queue vnet_hdr`);
  const get = (name) => ask(`link ${name}`, `ip link show ${name}`, 18, 0, link, { name });
  for (const name of ['vx0', 'v0', 'tun0']) get(name);
  const isUp = ({ view, start, end }) => {
    const { index, flags } = link.get(view, start, end);
    return index === 10 && (flags & 1) === 1;
  };
  await hear('a link goes up', 16, 'ip link set vx0 up', isUp);
  await hear('a new address', 20, 'ip address add 10.20.0.1/24 label vx0:x dev vx0');
  await hear('a new route', 24, 'ip route add 10.31.0.0/24 via 10.99.0.1 dev vx0 onlink mtu 1300 protocol static');
  await hear('forwarding is turned on', 80, 'sysctl -q net.ipv4.conf.vx0.forwarding=1');
  execSync(`ip address add 10.21.0.1 peer 10.21.0.2/32 dev vx0
    ip route add unreachable 10.30.0.0/24 metric 5 protocol static
    ip route add 10.33.0.0/24 encap ip id 77 dst 192.168.1.1 ttl 64 dev vx0 protocol static
    ip neigh add 10.20.0.2 lladdr 02:00:00:00:00:41 dev vx0 nud permanent extern_learn
    ip neigh add 10.20.0.3 lladdr 02:00:00:00:00:42 dev vx0 nud permanent protocol static
    bridge fdb add 02:00:00:00:00:41 dev vx0 dst 192.168.7.7 port 999 vni 12 self static
    sysctl -q net.ipv4.neigh.vx0.app_solicit=1 net.ipv4.neigh.vx0.mcast_solicit=0`);
  const dump = (name, command, type, codec, body) => ask(name, command, type, NLM_F_DUMP, codec, body);
  dump('addresses', 'ip -4 address show dev vx0', 22, address, { family: 2, index: 10 });
  dump('routes', 'ip route show protocol static', 26, route, { family: 2, table: 254, protocol: 4 });
  dump('neighbours', 'ip neigh show dev vx0', 30, neighbour, { family: 2, filterIfindex: 10 });
  dump('entries of a forwarding database', 'bridge fdb show dev vx0', 30, neighbour, { family: 7, filterIfindex: 10 });
  dump('neighbour tables', 'ip ntable', 66, neighbourTable, { family: 2 });
  const who = 'ping -n -c 1 -W 1 10.20.0.9';
  await hear('the kernel asks for a neighbour', 30, who, stateIs(1));
  const refused = 'ip neigh add 10.20.0.8 lladdr 1 dev vx0';
  ask('an error with words', refused, 28, NLM_F_CREATE, neighbour, {
    ...{ family: 2, ifindex: 10, state: 2, dst: Uint8Array.of(10, 20, 0, 8), lladdr: Uint8Array.of(1) },
  });
  ask('an error without words', 'ip link show nobody', 18, 0, link, { name: 'nobody' });
}

async function gre() {
  execSync(`ip link add g1 index 10 type gre local 192.168.16.32 ttl 64 key 7
    ip address add 10.16.32.1/8 dev g1`);
  ask('link g1', 'ip link add g1 type gre local 192.168.16.32 ttl 64 key 7; ip link show g1', 18, 0, link, {
    name: 'g1',
  });
  execSync(`ip link set g1 arp on addrgenmode none up
    sysctl -q net.ipv4.neigh.g1.app_solicit=1 net.ipv4.neigh.g1.mcast_solicit=0 net.ipv4.neigh.g1.ucast_solicit=0`);
  const who = 'ping -n -c 1 -W 1 10.16.33.1';
  await hear('the kernel asks for a neighbour of a GRE device', 30, who, stateIs(1));
  const again = 'ip neigh replace 10.16.33.2 lladdr 192.168.16.33 dev g1 nud probe';
  await hear('the kernel asks for it again', 30, again, stateIs(0x10));
}

await (process.argv[2] === 'gre' ? gre : plain)();
process.stdout.write(`${JSON.stringify(found, null, 2)}\n`);
