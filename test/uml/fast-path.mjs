/**
 * The fast path on an old kernel, which has GRE: node fast-path.mjs BYTES CONFIGS GOLDEN. CONFIGS are those that programs are loaded for,
 * GOLDEN is what they are run on, and each TCP transfer carries BYTES each way. Prints one JSON document with what was seen and judges
 * nothing. Runs in User-mode Linux, as root.
 *
 *     own-container --- kernel --- inlay --- container
 */
import { release } from 'node:os';
import { fileURLToPath } from 'node:url';
import { enterNamespace } from '../fast-path/namespace.mjs';
import { ProgramTwin } from '../fast-path/twin.mjs';
import { CLI, LEAST, transfer, up } from './daemons.mjs';
import * as scene from './namespaces.mjs';

const [BYTES, CONFIGS, GOLDEN] = process.argv.slice(2);
const LOADER = fileURLToPath(new URL('../fast-path/load.mjs', import.meta.url));
const PINGS = 20;
/** Where nothing is to come back, less will do. */
const LOST_PINGS = 3;
const BETWEEN_CONTAINERS = [
  ['own-container', 'container'],
  ['container', 'own-container'],
];
const TO_VM = ['inlay', 'kernel'];

/** What the programs make of golden packets. */
function golden() {
  const leave = enterNamespace();
  try {
    return JSON.parse(GOLDEN).map(({ file, config, frames }) => {
      const twin = new ProgramTwin(config);
      const wrong = frames.flatMap(({ name, direction, frame, address, link, ...rest }) => {
        twin.place(address, link);
        const found = twin.check(direction, Uint8Array.from(Buffer.from(frame, 'hex')), rest);
        return found === null ? [] : [`${name}: ${found}`];
      });
      twin.close();
      const { passed } = twin.met;
      return { file, encapsulation: config.encapsulation, wrong, taken: frames.length - passed, passed };
    });
  } finally {
    leave();
  }
}

async function pings(ways, count = PINGS) {
  const found = [];
  for (const [from, to] of ways) found.push(await scene.ping(from, to, count));
  return found;
}

const fastPathOf = async (daemon) => (await daemon.status()).fastPath;

/** Traffic, and what the daemons' fast paths say of themselves and took of it. */
async function meet(daemons, ways, connection) {
  const before = await Promise.all(Object.values(daemons).map(fastPathOf));
  const found = await pings(ways);
  const transferred = connection ? [await transfer(...connection, BYTES)] : [];
  const facts = {};
  for (const [i, [name, daemon]] of Object.entries(daemons).entries()) {
    const { state, obstacle, outbound, inbound } = await fastPathOf(daemon);
    const more = (direction, now) => now.packets - before[i][direction].packets;
    facts[name] = { state, obstacle, outbound: more('outbound', outbound), inbound: more('inbound', inbound) };
  }
  return { pings: found, transfers: transferred, fastPaths: facts };
}

const down = (name) => scene.run(name, 'node', CLI, 'down', '--run-dir', `/run/${name}`);
/** What a command says that may fail. */
const said = async (...words) => (await scene.start(...words).done).stderr.trim();

const facts = { kernel: release(), golden: golden() };
await scene.makeNamespaces();
await scene.makeContainer('own-container', 'kernel');
facts.load = JSON.parse(await scene.run('kernel', ...LEAST, 'node', LOADER, CONFIGS));

// With a peer that is the kernel's GRE and nothing else.
let inlay = await up('inlay');
await scene.makeKernelTunnel('multipoint', null);
const withDevice = [
  ['kernel', 'container'],
  ['container', 'kernel'],
];
facts.device = await meet({ inlay }, withDevice, withDevice[0]);
await scene.removeKernelTunnel();

// With the kernel data plane, which has a fast path, too. The port for GRE-in-UDP takes nothing from plain GRE.
const PORT = 'fou add port 4754 ipproto 47';
await scene.ipBatch('kernel', [PORT]);
const kernel = await up('kernel', '--dataplane', 'kernel');
facts.plane = await meet({ kernel, inlay }, [...BETWEEN_CONTAINERS, TO_VM], BETWEEN_CONTAINERS[0]);

// What a GRE device takes depends on the port alone.
await inlay.end();
inlay = await up('inlay', '--encapsulation', 'gre-udp');
facts.udp = await meet({ kernel, inlay }, [...BETWEEN_CONTAINERS, TO_VM]);
await scene.ipBatch('kernel', [PORT.replace('add', 'del')]);
facts.withoutPort = await pings([['container', 'own-container'], TO_VM], LOST_PINGS);
const device =
  'link add gre2 type gre local 192.168.16.32 remote 192.168.16.33 encap fou encap-sport auto encap-dport 4754';
facts.encap = await said('kernel', 'ip', ...device.split(' '));
await Promise.all([kernel.end(), inlay.end()]);
await Promise.all(['kernel', 'inlay'].map(down));

// Without filters that run programs: this machine's kernel finds no modules by itself.
await scene.run('inlay', 'rmmod', 'cls_bpf');
inlay = await up('inlay');
await scene.makeKernelTunnel('multipoint', null);
facts.lacking = await meet({ inlay }, withDevice);
await inlay.end();
process.stdout.write(`${JSON.stringify(facts)}\n`);
process.exit(0);
