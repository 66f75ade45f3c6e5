/**
 * What the kernel's own GRE does with the packets of test/uml/scripts.json, and with the inbound ones of test/vectors. Prints { "SCRIPT: PACKET": what was
 * seen } and judges nothing. Runs in User-mode Linux, as root.
 *
 *     wire eth0 --- eth0 vm veth0 --- eth0 container        gre1 in vm, its other end at 192.168.16.33
 */
import { readFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { ipBatch, run } from './namespaces.mjs';
import { ARPHRD_IPGRE, completeChecksums, PacketSocket } from './sockets.mjs';

const read = (file) => JSON.parse(readFileSync(new URL(file, import.meta.url), 'utf8'));
const TO_VM = [0x02, 0, 0, 0, 0, 0x01];

/** The words of ip-link(8) for a device, see scripts.py. */
function ruleText({ key, ttl = 64, tos, pmtudisc = true, ...flags }) {
  const keyWords = key === undefined ? '' : `key ${key}`;
  const tosArguments = tos === undefined ? '' : `tos ${typeof tos === 'number' ? `0x${tos.toString(16)}` : tos}`;
  return `ttl ${ttl} ${tosArguments} ${keyWords} ${pmtudisc ? '' : 'nopmtudisc'} ${Object.keys(flags).join(' ')}`;
}

/** A star stands for all devices, and those to come. */
function setSysctls(namespace, settings) {
  const lines = ['all', 'default'].flatMap((devices) =>
    settings.map((setting) => `net.${setting.replace('*', devices)}`),
  );
  return run(namespace, 'sysctl', '-qw', ...lines);
}

async function makeNamespaces() {
  await ipBatch(undefined, [
    ...['vm', 'wire', 'container'].map((name) => `netns add ${name}`),
    'link add eth0 address 02:00:00:00:00:01 netns vm type veth peer name eth0 netns wire',
    'link add veth0 address 02:00:00:00:00:01 netns vm type veth peer name eth0 netns container',
  ]);
  // Nobody answers in `wire` and `container`, which have no addresses, and nobody is asked: without ARP, frames have the address of the sender itself.
  for (const name of ['vm', 'wire', 'container']) await setSysctls(name, ['ipv6.conf.*.disable_ipv6=1']);
  // No filter but GRE's own, every ICMP error, and none about better ways.
  await setSysctls('vm', [
    ...['ipv4.ip_forward=1', 'ipv4.icmp_ratelimit=0'],
    ...['ipv4.conf.*.rp_filter=0', 'ipv4.conf.*.send_redirects=0'],
  ]);
  await ipBatch('vm', [
    'link set lo up',
    'link set eth0 up arp off',
    'link set veth0 up arp off',
    'address add 192.168.16.32/16 dev eth0',
    'route add default dev eth0',
    'route add 10.16.32.0/24 dev veth0',
  ]);
  for (const name of ['wire', 'container']) await ipBatch(name, ['link set eth0 up arp off']);
  completeChecksums('vm', 'eth0');
}

let hasDevice = false;

async function makeDevice(device) {
  await ipBatch('vm', [
    ...(hasDevice ? ['link del gre1'] : []),
    `link add gre1 type gre local 192.168.16.32 remote 192.168.16.33 ${ruleText(device)}`,
    'address add 10.16.32.1/32 dev gre1',
    'link set gre1 up',
    'route add 10.0.0.0/8 dev gre1',
  ]);
  hasDevice = true;
}

/** Puts the header checksum right, in place. */
function withChecksum(packet) {
  packet.writeUInt16BE(0, 10);
  let sum = 0;
  for (let at = 0; at < (packet[0] & 15) * 4; at += 2) sum += packet.readUInt16BE(at);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  packet.writeUInt16BE(~sum & 0xffff, 10);
  return packet;
}
// An IPv4 header of a protocol for experiments (RFC 3692), from an address on one side to one on the other.
const MARKER = 253;
const [ON_WIRE, ON_CONTAINER] = [Buffer.from([192, 168, 16, 250]), Buffer.from([10, 16, 32, 250])];
const marker = (source, destination) =>
  withChecksum(Buffer.from([0x45, 0, 0, 20, 0, 0, 0, 0, 64, MARKER, 0, 0, ...source, ...destination]));
const MARKERS = { wire: marker(ON_WIRE, ON_CONTAINER), container: marker(ON_CONTAINER, ON_WIRE) };

await makeNamespaces();
const sockets = {
  vm: new PacketSocket('vm', 'eth0'),
  wire: new PacketSocket('wire', 'eth0'),
  container: new PacketSocket('container', 'eth0'),
};

/** Waits until a packet that is not for the tunnel has gone from one side to the other, so that what went before it has, too. */
async function follow(from, to, seen) {
  sockets[from].send(MARKERS[from], TO_VM);
  for (;;) {
    const packets = sockets[to].received();
    const others = packets.filter(({ bytes }) => bytes[9] !== MARKER);
    seen[to].push(...others);
    if (others.length < packets.length) return;
    await setTimeout(1);
  }
}

/** Sends a packet and collects what comes of it, until all has come. */
async function pass(from, packet) {
  const seen = { wire: [], container: [] };
  sockets[from].send(packet, TO_VM);
  // Twice: gre1 queues what comes out of it, and a packet that is still there when the first passes is not when the second does.
  for (let n = 0; n < 2; n++) {
    await follow('wire', 'container', seen);
    await follow('container', 'wire', seen);
  }
  const hexes = (packets) => packets.map(({ bytes }) => bytes.toString('hex'));
  const tunnel = sockets.vm.received().filter(({ kind }) => kind === ARPHRD_IPGRE);
  return { tunnel: hexes(tunnel), wire: hexes(seen.wire), container: hexes(seen.container) };
}

const facts = {};
for (const { name: script, direction, device, packets } of read('scripts.json')) {
  await makeDevice(device);
  for (const { name, input } of packets) {
    const packet = Buffer.from(input, 'hex');
    if (direction === 'inbound') {
      facts[`${script}: ${name}`] = await pass('wire', packet);
    } else {
      // The tunnel device is given what has been forwarded, which takes one off the TTL.
      packet[8]++;
      facts[`${script}: ${name}`] = await pass('container', withChecksum(packet));
    }
  }
}
for (const file of ['inbound', 'keyed']) {
  const { config, vectors } = read(`../vectors/${file}.json`);
  await makeDevice(config.key === undefined ? {} : { key: config.key });
  for (const { name, direction, input } of vectors) {
    if (direction === 'inbound') facts[`${file}: ${name}`] = await pass('wire', Buffer.from(input, 'hex'));
  }
}
process.stdout.write(JSON.stringify(facts));
