/**
 * Two VMs of the kernel data plane over the kernel's GRE, and a router between them: node ways.mjs BYTES. Prints one JSON document with what was seen and
 * judges nothing. Runs in User-mode Linux, as root.
 *
 *     own-container --- kernel --- router --- inlay --- container
 */
import { setTimeout } from 'node:timers/promises';
import { transfer, up } from './daemons.mjs';
import * as scene from './namespaces.mjs';

const { OVERLAY, UNDERLAY } = scene;
const BYTES = Number(process.argv[2]);
const KERNEL = ['--dataplane', 'kernel'];
const NARROW = 1300;
const VMS = ['kernel', 'inlay'];
/** ms */
const DEADLINE = 20_000;
const SLICE = '10.16.33.0/24';

/** Asks again and again until the answer is right; after DEADLINE it says what it was then. */
async function until(question, isRight) {
  for (const deadline = performance.now() + DEADLINE; ; ) {
    const answer = await question();
    if (isRight(answer) || performance.now() > deadline) return answer;
    await setTimeout(50);
  }
}

/** What ping says of three requests. */
async function said(...options) {
  const words = ['-n', '-c', '3', '-i', '0.3', '-W', '1', ...options, OVERLAY.container];
  return (await scene.start('own-container', 'ping', ...words).done).stdout;
}

/** What the router lets through to either VM from now on. */
const wayThrough = (mtu) =>
  scene.ipBatch(
    'router',
    VMS.map((name) => `route replace ${UNDERLAY[name]} dev to-${name} mtu ${mtu}`),
  );

/** The VMs find each other by the router alone. */
async function makeRouter() {
  await scene.ipBatch(undefined, ['netns add router']);
  for (const name of VMS) {
    await scene.ipBatch(name, ['link del eth0']).catch(() => {}); // It went with the other end.
    await scene.ipBatch(undefined, [`link add eth0 netns ${name} type veth peer name to-${name} netns router`]);
    await scene.ipBatch('router', [`link set to-${name} up`, `address add 172.31.1.1/32 dev to-${name}`]);
    await scene.ipBatch(name, [
      ...['link set eth0 addrgenmode none up', `address add ${UNDERLAY[name]}/32 dev eth0`],
      ...['route add 172.31.1.1 dev eth0', 'route add 192.168.0.0/16 via 172.31.1.1'],
    ]);
  }
  await scene.run('router', 'sysctl', '-qw', 'net.ipv4.ip_forward=1', 'net.ipv4.icmp_ratelimit=0');
  await wayThrough(1500);
}

const slice = () => scene.run('kernel', 'ip', 'route', 'show', SLICE);

await scene.makeNamespaces();
await scene.makeMoreNamespaces();
await makeRouter();
const [kernel, inlay] = await Promise.all(VMS.map((name) => up(name, ...KERNEL)));
const tunnels = async () => {
  const found = await Promise.all([kernel, inlay].map((daemon) => daemon.tunnels()));
  return found.map(([tunnel]) => ({ mtu: tunnel?.mtu, unreachable: tunnel?.unreachable }));
};
const facts = { wide: await said('-M', 'do', '-s', '1400') };

await wayThrough(NARROW);
facts.stream = await transfer('own-container', 'container', BYTES);
// What it has learnt itself would end its packets there.
await scene.ipBatch('own-container', ['route flush cache']);
facts.narrow = {
  tunnels: await tunnels(),
  mtu: (await kernel.status()).mtu,
  slice: await slice(),
  tooLong: await said('-M', 'do', '-s', '1400'),
  cut: await until(
    () => said('-M', 'dont', '-s', '1400'),
    (text) => text.includes(' 0% packet loss'),
  ),
};

await scene.ipBatch('kernel', ['route del 192.168.0.0/16']);
await until(slice, (text) => text.includes('via 10.16.33.0 '));
facts.lost = { slice: await slice(), said: await said(), tunnels: await tunnels() };
await scene.ipBatch('kernel', ['route add 192.168.0.0/16 via 172.31.1.1']);
facts.back = await until(said, (text) => text.includes(' 0% packet loss'));
await Promise.all([kernel.end(), inlay.end()]);
process.stdout.write(`${JSON.stringify(facts)}\n`);
