/**
 * What the kernel data plane does with the kernel's GRE: node dataplane.mjs BYTES OPTIONS. Each TCP transfer carries BYTES each way. OPTIONS is a JSON list of
 * flags for two daemons, one list for each try. Prints one JSON document with what was seen and judges nothing. Runs in User-mode Linux, as root.
 *
 *     own-container --- kernel --- inlay --- container
 *                         |
 *                       third
 */
import { existsSync } from 'node:fs';
import { release } from 'node:os';
import { setTimeout } from 'node:timers/promises';
import { CLI, PREFIXES, transfer, up } from './daemons.mjs';
import * as scene from './namespaces.mjs';
import { RawSocket } from './sockets.mjs';

const { OVERLAY, UNDERLAY } = scene;
const TRANSFER = Number(process.argv[2]);
const PINGS = 20;
/** Where nothing is to come back, less will do. */
const LOST_PINGS = 3;
const KERNEL = ['--dataplane', 'kernel'];
/** All ways between the VMs, their containers included. */
const WAYS = ['kernel', 'own-container'].flatMap((here) =>
  ['inlay', 'container'].flatMap((there) => [
    [here, there],
    [there, here],
  ]),
);
/** Of what the commands of --dry-run make: the catch-all. */
const CATCH_ALL = [
  'route del unreachable 10.0.0.0/8 proto 75 metric 1',
  'rule del priority 32700',
  'rule del priority 32701',
];
/** And of the slices that no VM has. */
const UNUSED = ['route del unreachable 10.0.0.0/24', 'route del unreachable 10.255.255.0/24'];

/** Containers behind `inlay` that share the namespace `container`: index 2 to 202, but for the one that is there anyway. */
const MANY = Array.from({ length: 201 }, (_, i) => `10.16.33.${i + 2}`).filter((to) => to !== OVERLAY.container);
/** ms */
const DEADLINE = 20_000;
/** Pings a second while daemons come and go, and how many of them each stage waits for. */
const [RATE, SOME] = [100, 20];

const pings = (ways, count) => Promise.all(ways.map(([from, to]) => scene.ping(from, to, count)));

/** Asks again and again until the answer is right; after DEADLINE it says what it was then. */
async function until(question, isRight) {
  for (const deadline = performance.now() + DEADLINE; ; ) {
    const answer = await question();
    if (isRight(answer) || performance.now() > deadline) return answer;
    await setTimeout(50);
  }
}

const json = async (namespace, ...words) =>
  JSON.parse((await scene.run(namespace, 'ip', '-j', '-d', ...words)) || '[]');

async function linkOf(namespace) {
  return (await json(namespace, 'link', 'show', 'dev', 'inlay0'))[0];
}

/** The routes and neighbours of the device, each as a line. */
async function entriesOf(namespace) {
  const text = await scene.run(
    namespace,
    'sh',
    '-c',
    'ip -d route show dev inlay0; ip route show type unreachable; echo; ip -d neighbour show dev inlay0',
  );
  const [routes, neighbours] = text.split('\n\n').map((part) => part.split('\n').filter((line) => line.trim() !== ''));
  return {
    routes: routes.map((line) => line.trim()).sort(),
    // Whether it was used lately is not the point.
    neighbours: neighbours.map((line) => line.trim().replace(/ (STALE|DELAY)\b/, '')).sort(),
  };
}

/** All there is to know about the device but what differs between any two: numbers and statistics. */
async function deviceOf(namespace) {
  const { ifindex, stats64, ...link } = await linkOf(namespace);
  const addresses = (await json(namespace, 'address', 'show', 'dev', 'inlay0'))[0].addr_info;
  const folders = ['ipv4/neigh', 'ipv4/conf', 'ipv6/neigh', 'ipv6/conf'].map((name) => `/proc/sys/net/${name}/inlay0`);
  const sysctls = await scene.run(namespace, 'sh', '-c', `grep -rs . ${folders.join(' ')} || true`);
  return { link, addresses, sysctls: sysctls.split('\n').sort() };
}

/** What the two daemons count about each other, by the names of their namespaces. */
async function countsOf(daemons) {
  const found = {};
  for (const [name, daemon] of Object.entries(daemons)) {
    found[name] = { status: await daemon.status(), tunnels: await daemon.tunnels() };
  }
  return found;
}

/** Resolves to what it says. */
function down(namespace) {
  return scene.run(namespace, 'node', CLI, 'down', '--run-dir', `/run/${namespace}`);
}

async function interoperate(key) {
  const flags = key === null ? [] : ['--key', String(key)];
  const [kernel, inlay] = await Promise.all([up('kernel', ...KERNEL, ...flags), up('inlay', ...flags)]);
  const found = await pings(WAYS, PINGS);
  const counts = await countsOf({ kernel, inlay });
  const transfers = [
    await transfer('own-container', 'container', TRANSFER),
    await transfer('inlay', 'kernel', TRANSFER),
  ];
  const { drops, packets } = (await kernel.status()).inbound;
  const { ifindex } = await linkOf('kernel');
  return { kernel, inlay, packets, facts: { key, pings: found, counts, transfers, drops, ifindex } };
}

/** Pings of addresses that nobody can have, one after the other. */
/** Many packets at once to a VM that is not known yet; how many are answered, by the kernel's own count. */
async function flood() {
  const sender = new RawSocket('kernel');
  const answers = () => scene.icmpCounter('kernel', 'InEchoReps');
  const before = await answers();
  for (let i = 0; i < FLOOD; i++) sender.send(echoRequest(OVERLAY.kernel, OVERLAY.container, i));
  return (await until(answers, (now) => now >= before + FLOOD)) - before;
}

async function forNobody(kernel) {
  const refusedBefore = (await kernel.status()).neighbours.refused;
  const found = [];
  for (const from of ['kernel', 'own-container']) {
    for (const to of ['10.16.34.0', '10.16.34.255']) {
      // Without a refusal the kernel itself gives up after 3 s.
      const { stdout } = await scene.start(from, 'ping', '-n', '-c', '1', '-W', '2', to).done;
      found.push({ from, to, said: /^From .*$/m.exec(stdout)?.[0] ?? '' });
    }
  }
  const { refused } = (await kernel.status()).neighbours;
  return { pings: found, refused: refused - refusedBefore, entries: await entriesOf('kernel') };
}

/** Internet checksum (RFC 1071) of an even number of bytes. */
function checksum(bytes) {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += bytes.readUInt16BE(i);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

function ipv4(source, destination, protocol, payload) {
  const header = Buffer.from([
    0x45,
    0,
    0,
    0,
    0,
    0,
    0x40,
    0,
    64,
    protocol,
    0,
    0,
    ...addressBytes(source),
    ...addressBytes(destination),
  ]);
  header.writeUInt16BE(header.length + payload.length, 2);
  header.writeUInt16BE(checksum(header), 10);
  return Buffer.concat([header, payload]);
}

function addressBytes(text) {
  return text.split('.').map(Number);
}

function echoRequest(source, destination, sequence = 1) {
  const message = Buffer.from([8, 0, 0, 0, 0x49, 0x4e, sequence >> 8, sequence & 0xff]);
  message.writeUInt16BE(checksum(message), 2);
  return ipv4(source, destination, 1, message);
}

function gre(outerSource, inner, key) {
  const header = Buffer.alloc(key === undefined ? 4 : 8);
  header.writeUInt16BE(key === undefined ? 0 : 0x2000);
  header.writeUInt16BE(0x800, 2);
  if (key !== undefined) header.writeUInt32BE(key, 4);
  return ipv4(outerSource, UNDERLAY.kernel, 47, Buffer.concat([header, inner]));
}

const SPOOFED = 5;
/** Packets that wait for one answer. */
const FLOOD = 400;

/** Sends some packets and then one that is in order, and says what arrived where they all lead to, and what was dropped. */
async function spoof(sender, { packet, honest, at, drops }) {
  const [echoesBefore, dropsBefore] = [await scene.icmpCounter(at, 'InEchos'), await drops()];
  for (let i = 0; i < SPOOFED; i++) sender.send(packet);
  sender.send(honest);
  // Packets stay in order.
  const echoes = await until(
    () => scene.icmpCounter(at, 'InEchos'),
    (now) => now > echoesBefore,
  );
  const dropped = Object.entries(await drops()).map(([reason, count]) => [reason, count - (dropsBefore[reason] ?? 0)]);
  return { delivered: echoes - echoesBefore, drops: Object.fromEntries(dropped.filter(([, count]) => count > 0)) };
}

async function sources(kernel) {
  const to = OVERLAY['own-container'];
  const inbound = {
    at: 'own-container',
    honest: gre(UNDERLAY.inlay, echoRequest(OVERLAY.container, to)),
    drops: async () => (await kernel.status()).inbound.drops,
  };
  const outbound = {
    at: 'container',
    honest: echoRequest(to, OVERLAY.container),
    drops: async () => (await kernel.status()).outbound.drops,
  };
  const [vm, container] = [new RawSocket('inlay'), new RawSocket('own-container')];
  const from = (outer, inner, destination = to) => gre(outer, echoRequest(inner, destination));
  // The fallback device takes what the overlay's does not.
  await scene.ipBatch('kernel', ['link set gre0 up']);
  const keyed = gre(UNDERLAY.inlay, echoRequest('10.16.34.91', to), 99);
  const besides = await spoof(vm, { ...inbound, packet: keyed });
  await scene.ipBatch('kernel', ['link set gre0 down']);
  await scene.run('kernel', 'sysctl', '-qw', 'net.ipv4.conf.veth0.rp_filter=0');
  return {
    'with another key, and gre0 is up': besides,
    "of a third VM's container": await spoof(vm, { ...inbound, packet: from(UNDERLAY.inlay, '10.16.34.91') }),
    'of the other VM, by a third VM': await spoof(vm, { ...inbound, packet: from(UNDERLAY.third, OVERLAY.container) }),
    'of the internet': await spoof(vm, { ...inbound, packet: from(UNDERLAY.inlay, '192.0.2.1') }),
    'of the own container': await spoof(vm, { ...inbound, packet: from(UNDERLAY.inlay, to) }),
    'to another slice': await spoof(vm, { ...inbound, packet: from(UNDERLAY.inlay, OVERLAY.container, '10.16.34.91') }),
    "of another VM's container, outbound": await spoof(container, {
      ...outbound,
      packet: echoRequest('10.16.34.91', OVERLAY.container),
    }),
    'of the internet, outbound': await spoof(container, {
      ...outbound,
      packet: echoRequest('192.0.2.1', OVERLAY.container),
    }),
  };
}

/** The first packets to many containers of one VM, all at once. */
async function many() {
  const [sender, receiver] = [new RawSocket('kernel'), new RawSocket('kernel', 1)];
  for (const [i, to] of MANY.entries()) sender.send(echoRequest(OVERLAY.kernel, to, i));
  const answers = [];
  await until(
    () => {
      // Echo replies; the messages follow headers of 20 bytes.
      const replies = receiver.received().filter((packet) => packet[20] === 0);
      answers.push(...replies.map((packet) => [...packet.subarray(12, 16)].join('.')));
      return answers.length;
    },
    (count) => count >= MANY.length,
  );
  return {
    containers: MANY.length,
    answered: new Set(answers.filter((from) => MANY.includes(from))).size,
    answers: answers.length,
    entries: await entriesOf('kernel'),
  };
}

/** Pings that go on until they are stopped. */
function pingOn(from, to) {
  const { child, done } = scene.start(from, 'ping', '-n', '-i', String(1 / RATE), '-w', '120', OVERLAY[to]);
  return async () => {
    child.kill('SIGINT');
    const { stdout } = await done;
    const sequences = [...stdout.matchAll(/^\d+ bytes from .*icmp_seq=(\d+)/gm)].map(([, sequence]) =>
      Number(sequence),
    );
    const seen = new Set(sequences);
    // The last may still be under way.
    const missing = Array.from({ length: Math.max(0, ...sequences) }, (_, i) => i + 1).filter((i) => !seen.has(i));
    return {
      received: seen.size,
      duplicates: sequences.length - seen.size,
      missing,
      errors: stdout.match(/^From .*$/gm) ?? [],
    };
  };
}

/** Daemons of `kernel` are killed, end and are back while packets flow. */
async function survive(inlay) {
  const arrived = async () => (await inlay.status()).inbound.packets;
  const moreArrive = async () => {
    const start = await arrived();
    return (await until(arrived, (now) => now >= start + SOME)) - start;
  };
  const indexOf = async () => (await linkOf('kernel')).ifindex;
  const facts = { ifindexes: [], whileAlive: [], whileDead: [], ends: [] };
  const start = () => up('kernel', ...KERNEL, '--idle-timeout', '1h');
  let daemon = await start();
  const burst = await many();
  const stop = pingOn('own-container', 'container');
  for (const signal of ['SIGKILL', 'SIGTERM']) {
    facts.whileAlive.push(await moreArrive());
    facts.ifindexes.push(await indexOf());
    facts.ends.push(await daemon.end(signal));
    facts.whileDead.push(await moreArrive());
    daemon = await start();
  }
  facts.whileAlive.push(await moreArrive());
  facts.ifindexes.push(await indexOf());
  const ping = await stop();
  const { tunnels } = await daemon.status();
  return { daemon, burst, facts: { ...facts, ping, tunnels } };
}

/** The other end, made by hand: a point-to-point tunnel at `third`. Before its VM is known, one of its addresses has a neighbour made by hand here, too. */
async function meetStatic(kernel) {
  const byHand = '10.16.34.77';
  await scene.ipBatch('third', [
    `link add gre1 type gre local ${UNDERLAY.third} remote ${UNDERLAY.kernel} ttl 64`,
    `address add ${OVERLAY.third}/32 dev gre1`,
    `address add ${byHand}/32 dev gre1`,
    'link set gre1 up',
    'route add 10.0.0.0/8 dev gre1',
  ]);
  await scene.ipBatch('kernel', [`neighbour add ${byHand} lladdr ${UNDERLAY.third} dev inlay0 nud permanent`]);
  const { answered } = (await kernel.status()).neighbours;
  const one = await scene.ping('kernel', byHand, PINGS);
  const asked = (await kernel.status()).neighbours.answered - answered;
  const ways = [
    ['own-container', 'third'],
    ['third', 'own-container'],
    ['third', 'kernel'],
    ['kernel', 'third'],
  ];
  const found = await pings(ways, PINGS);
  const { neighbours } = await entriesOf('kernel');
  const tunnels = await kernel.tunnels();
  await scene.ipBatch('kernel', [`neighbour del ${byHand} dev inlay0`]);
  await scene.ipBatch('third', ['link del gre1']);
  return { one, asked, pings: found, neighbours, tunnels };
}

/** Others take away what the daemon made. */
async function repair() {
  const whole = await entriesOf('kernel');
  const facts = [];
  const isWhole = (entries) => JSON.stringify(entries) === JSON.stringify(whole);
  const damages = [
    'route del 10.16.33.0/24 dev inlay0',
    'route del 10.0.0.0/8 dev inlay0',
    'route del unreachable 10.16.32.0/24',
    `neighbour del ${OVERLAY.inlay} dev inlay0`,
    'link set inlay0 arp off',
    'link set inlay0 mtu 1300',
  ];
  for (const damage of damages) {
    const { ifindex } = await linkOf('kernel');
    await scene.ipBatch('kernel', [damage]);
    const entries = await until(() => entriesOf('kernel'), isWhole);
    const link = await until(
      () => linkOf('kernel'),
      ({ mtu, flags }) => mtu === 1476 && !flags.includes('NOARP'),
    );
    facts.push({ damage, entries, mtu: link.mtu, flags: link.flags, isSame: link.ifindex === ifindex });
  }
  await scene.run('kernel', 'tc', 'qdisc', 'del', 'dev', 'inlay0', 'clsact');
  const show = ['ingress', 'egress'].map((place) => `tc filter show dev inlay0 ${place} 2>&1 || true`).join(';');
  const places = async () => (await scene.run('kernel', 'sh', '-c', show)).match(/\binlay\b/g)?.length ?? 0;
  const filters = await until(places, (count) => count === 2);
  const found = await pings(WAYS, PINGS);
  return { whole, damages: facts, filters, pings: found };
}

/** The device goes, or what makes the kernel forget all that leads there; the first packets to a VM bring it back. */
async function loseDevice(damage) {
  const before = await linkOf('kernel');
  await scene.ipBatch('kernel', [damage]);
  const forwarding = 'cat /proc/sys/net/ipv4/conf/inlay0/forwarding';
  await until(
    () => scene.run('kernel', 'sh', '-c', `ip -o address; ip route; ${forwarding} 2>&1 || true`),
    (text) => /^\d+: inlay0 .* 10\./m.test(text) && /^10\.0\.0\.0\/8/m.test(text) && /^1$/m.test(text),
  );
  const after = await linkOf('kernel');
  return {
    isSame: after.ifindex === before.ifindex,
    pings: await pings(WAYS, PINGS),
    entries: await entriesOf('kernel'),
  };
}

async function dryRunOf(namespace, ...flags) {
  const words = ['up', ...PREFIXES, '--run-dir', `/run/${namespace}`, ...KERNEL, ...flags, '--dry-run'];
  const text = await scene.run(namespace, 'node', CLI, ...words);
  // This machine's kernel has no nftables.
  const lines = text.replace(/^nft -f - <<'EOF'\n[\s\S]*?^EOF\n/m, '').split('\n');
  return {
    commands: lines.filter((line) => !line.startsWith('#')).join('\n'),
    entries: lines.flatMap((line) => /^# {3}(.*)/.exec(line)?.[1] ?? []).join('\n'),
  };
}

/** Of two VMs only one is in use: `inlay`. Nobody is at the other. */
async function idle(kernel) {
  const stop = pingOn('own-container', 'container');
  new RawSocket('kernel').send(echoRequest(OVERLAY.kernel, '10.16.35.1'));
  const [opened, left] = [
    await until(kernel.tunnels, ({ length }) => length === 2),
    await until(kernel.tunnels, ({ length }) => length === 1),
  ].map((tunnels) => tunnels.map(({ vm }) => vm).sort());
  return { opened, left, ping: await stop(), entries: await entriesOf('kernel') };
}

/** What a daemon makes of `inlay`, and what the commands do that it tells; with which `inlay` is a VM that nobody tends. */
async function byHand(kernel) {
  const before = await scene.snapshot();
  const daemon = await up('inlay', ...KERNEL);
  const device = await deviceOf('inlay');
  const found = await pings(WAYS, PINGS);
  const daemons = { device, entries: await entriesOf('inlay') };
  const idled = await idle(kernel);
  const { exitStatus } = await daemon.end();
  const stayed = await entriesOf('inlay');
  await down('inlay');
  const left = scene.difference(before, await scene.snapshot());

  const told = await dryRunOf('inlay');
  await scene.run('inlay', 'sh', '-e', '-c', told.commands);
  const commands = { device: await deviceOf('inlay') };
  await scene.run('inlay', 'sh', '-e', '-c', told.entries);
  commands.entries = await entriesOf('inlay');
  const staticPings = await pings(WAYS, PINGS);
  await scene.ipBatch('inlay', ['link del inlay0', ...CATCH_ALL, 'route del unreachable 10.16.33.0/24', ...UNUSED]);
  return { idle: idled, pings: found, daemon: daemons, exitStatus, stayed, left, commands, staticPings };
}

/** Both sides are the kernel's, with these options. */
async function bothKernels(options) {
  const names = ['kernel', 'inlay'];
  const [kernel, inlay] = await Promise.all(names.map((name) => up(name, ...KERNEL, ...options)));
  const found = await pings(WAYS, PINGS);
  const counts = await countsOf({ kernel, inlay });
  const [first, second] = [await linkOf('kernel'), await linkOf('inlay')];
  // Another VM's commands, for the words of each option.
  await scene.run('third', 'sh', '-e', '-c', (await dryRunOf('third', ...options)).commands);
  const told = await linkOf('third');
  await scene.ipBatch('third', ['link del inlay0', ...CATCH_ALL, 'route del unreachable 10.16.34.0/24', ...UNUSED]);
  await Promise.all([kernel.end(), inlay.end()]);
  return { options, pings: found, counts, links: [first, second, told].map((link) => link.linkinfo), mtu: first.mtu };
}

async function refuseGreUdp() {
  const before = await scene.snapshot('kernel');
  const words = ['up', ...PREFIXES, '--run-dir', '/run/udp', ...KERNEL, '--encapsulation', 'gre-udp'];
  const { status, stderr } = await scene.start('kernel', 'node', CLI, ...words).done;
  const left = scene.difference(before, await scene.snapshot('kernel'));
  const fou = await scene.run('kernel', 'ip', 'fou', 'show');
  return { status, stderr, left, fou, hasRunDir: existsSync('/run/udp') };
}

async function demo() {
  const words = ['demo', ...KERNEL, '--vms', '2', '--containers', '1', '--json'];
  const { status, stdout, stderr } = await scene.start('third', 'node', CLI, ...words).done;
  return { status, stderr, result: stdout === '' ? null : JSON.parse(stdout) };
}

/** What it takes, on standard error: only people read it. */
async function timed(name, work) {
  const start = performance.now();
  const result = await work();
  process.stderr.write(`${name}: ${Math.round(performance.now() - start)} ms\n`);
  return result;
}

async function interoperability() {
  const early = await up('kernel', ...KERNEL);
  // The socket by which a kernel answers pings has room for some 300 answers. By the fast path they are charged to it until they are at the
  // other VM. So with all requests at once, that kernel would give up the others (OutDiscards in the container's namespace).
  const target = await up('inlay', '--fast-path', 'off');
  const flooded = await flood();
  await Promise.all([early.end(), target.end()]);
  await down('kernel');
  const plain = await interoperate(null);
  const nobody = await forNobody(plain.kernel);
  const spoofed = await sources(plain.kernel);
  await Promise.all([plain.kernel.end(), plain.inlay.end()]);

  // The device has another key now.
  const keyed = await interoperate(7);
  await keyed.inlay.end();
  const inlay = await up('inlay', '--key', '8');
  const wrongKey = {
    pings: await pings([...WAYS.slice(0, 2), ...WAYS.slice(-2)], LOST_PINGS),
    drops: (await inlay.status()).inbound.drops,
    packets: [(await keyed.kernel.status()).inbound.packets, (await inlay.status()).inbound.packets],
    packetsBefore: [keyed.packets, 0],
  };
  await Promise.all([keyed.kernel.end(), inlay.end()]);
  return { flooded, interoperate: [plain.facts, keyed.facts], nobody, spoofed, wrongKey };
}

async function endurance() {
  const inlay = await up('inlay');
  const { daemon, burst, facts } = await survive(inlay);
  const met = await meetStatic(daemon);
  const repaired = await repair();
  const lost = [];
  for (const damage of ['link del inlay0', 'link set inlay0 down', `address del ${OVERLAY.kernel}/32 dev inlay0`])
    lost.push({ damage, ...(await loseDevice(damage)) });
  await Promise.all([daemon.end(), inlay.end()]);
  // The catch-all outlives the daemon.
  await down('inlay');
  return { burst, survive: facts, static: met, repair: repaired, lost };
}

async function alone() {
  const kernel = await up('kernel', ...KERNEL, '--idle-timeout', '3s');
  const facts = await byHand(kernel);
  await kernel.end();
  return facts;
}

await scene.makeNamespaces();
await scene.makeMoreNamespaces();
await scene.ipBatch(
  'container',
  MANY.map((address) => `address add ${address}/32 dev lo`),
);
await scene.ipBatch(
  'inlay',
  MANY.map((address) => `route add ${address} dev veth0`),
);
// To a device with an address the guard leaves its rp_filter, so that our own check sees what the container sends.
await scene.ipBatch('kernel', ['address add 198.51.100.1/32 dev veth0']);
const before = await scene.snapshot('kernel');
const facts = { kernel: release(), ...(await timed('interoperability', interoperability)) };
facts.removed = [await timed('down', () => down('kernel'))];
facts.left = [scene.difference(before, await scene.snapshot('kernel'))];
Object.assign(facts, await timed('endurance', endurance));
facts.byHand = await timed('by hand', alone);
facts.bothKernels = [];
for (const options of JSON.parse(process.argv[3])) {
  facts.bothKernels.push(await timed(options.join(' '), () => bothKernels(options)));
}
facts.removed.push(await timed('down', () => down('kernel')), await down('inlay'));
facts.left.push(scene.difference(before, await scene.snapshot('kernel')));
facts.greUdp = await timed('gre-udp', refuseGreUdp);
facts.demo = await timed('demo', demo);
process.stdout.write(`${JSON.stringify(facts)}\n`);
