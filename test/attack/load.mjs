/**
 * What a tenant at full rate costs the others: a neighbour's ping and TCP, the daemon's CPU, what goes out,
 * what grows.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Agents } from '../../dist/demo/traffic.js';
import { arp, superPacket, TCP, TUNNELS, tcp, UDP, udp } from './packets.mjs';
import { HOSTS, linkOf, World } from './world.mjs';

const FLOOD = fileURLToPath(new URL('flood.mjs', import.meta.url));
const { tenant, neighbour, other, vm, v } = HOSTS;
/** Packets a second; super-packets are sent as fast as can be. */
const RATE = 300_000;
/** Frames that differ, of each kind. */
const VARIETY = 2048;
/** Ticks a second of /proc/PID/stat. */
const TICKS = 100;
/** ms between two pings. */
const INTERVAL = 20;
/** Bytes of a usual packet, and of a super-packet. */
const [SMALL, LARGE] = [32, 60_000];

const payload = (size) => Buffer.alloc(size, 'x');
const plain = (w, from, to, size = SMALL) =>
  Buffer.from(w.frame('tenant', udp({ from, to, port: 9 }, payload(size))).hex, 'hex');
const far = (i) => `10.${100 + ((i >> 8) & 63)}.${i & 255}.7`;

function superFrame(w, protocol, size, segment) {
  const ip = { from: tenant, to: other, port: 9 };
  const packet = protocol === TCP ? tcp({ ...ip, flags: 16 }, payload(size)) : udp(ip, payload(size));
  return superPacket(Buffer.from(w.frame('tenant', packet).hex, 'hex'), segment);
}

/** What the tenant floods with. */
const KINDS = {
  'UDP to a container': (w) => plain(w, tenant, other),
  'UDP of 1,400 bytes to a container': (w) => plain(w, tenant, other, 1400),
  'UDP to nobody': (w) => plain(w, tenant, '10.16.33.0'),
  'UDP as its neighbour': (w) => plain(w, neighbour, other),
  'UDP to VMs that do not exist': (w, i) => plain(w, tenant, far(i)),
  'tunnels with a forged source': (w, i) => {
    const kind = ['gre', 'gre-udp', 'vxlan'][i % 3];
    const inner = udp({ from: '10.16.40.7', to: neighbour, port: 9 }, payload(SMALL));
    return Buffer.from(w.frame('tenant', TUNNELS[kind]({ from: v.underlay, to: vm.underlay }, inner)).hex, 'hex');
  },
  'packets whose time is up': (w) =>
    Buffer.from(w.frame('tenant', udp({ from: tenant, to: other, port: 9, ttl: 1 }, payload(SMALL))).hex, 'hex'),
  ARP: (w, i) => arp({ from: w.macOf('tenant'), sender: `10.16.${32 + (i >> 8)}.${i & 255}`, target: vm.overlay }),
  'TCP super-packets of one-byte segments': (w) => superFrame(w, TCP, 128, 1),
  'UDP super-packets of one-byte segments': (w) => superFrame(w, UDP, 64, 1),
  'TCP super-packets': (w) => superFrame(w, TCP, LARGE, 1400),
};
const isSuper = (kind) => kind.includes('super-packets');

async function figures(w) {
  const { pid, outbound, inbound } = await w.status();
  const sum = ({ drops }) => Object.values(drops).reduce((all, count) => all + count, 0);
  const read = async (where, file) => w.sh(where, `cat ${file}`);
  const stat = (await read(undefined, `/proc/${pid}/stat`)).split(') ')[1].split(' ');
  const received = async (where, device) =>
    JSON.parse(await w.lab.must(where, ['ip', '-j', '-s', 'link', 'show', device]))[0].stats64.rx.bytes;
  return {
    cpu: (Number(stat[11]) + Number(stat[12])) / TICKS,
    drops: sum(outbound) + sum(inbound),
    out: await received(undefined, 'port-vm1'),
    in: await received('vm1', linkOf('c1-1')),
    memory: Number(/VmRSS:\s+(\d+)/.exec(await read(undefined, `/proc/${pid}/status`))?.[1]) / 1024,
    descriptors: Number(await w.sh(undefined, `ls /proc/${pid}/fd | wc -l`)),
    lines: Number(await w.sh(undefined, 'wc -l </run/vm1.log')),
  };
}

async function flood(w, kind, seconds) {
  const lines = Array.from({ length: isSuper(kind) ? 64 : VARIETY }, (_, i) => KINDS[kind](w, i).toString('hex'));
  const words = [process.execPath, FLOOD, 'eth0', String(seconds), String(RATE), ...(isSuper(kind) ? ['super'] : [])];
  return Number(await w.lab.must('c1-1', words, lines.join('\n')));
}

/** The part of a neighbour's pings that is lost, in per cent. */
async function loss(w, seconds) {
  const count = Math.floor((seconds * 1000) / INTERVAL);
  const words = [
    'ping',
    '-q',
    '-n',
    '-i',
    String(INTERVAL / 1000),
    '-c',
    String(count),
    '-w',
    String(seconds + 2),
    other,
  ];
  const received = Number(/(\d+) received/.exec((await w.lab.run('c1-2', words)).stdout)?.[1] ?? 0);
  return 100 * (1 - Math.min(received, count) / count);
}

async function measure(w, kind, seconds, agents, usual) {
  const before = await figures(w);
  const [sent, lost] = await Promise.all([flood(w, kind, seconds + 1), sleep(500).then(() => loss(w, seconds))]);
  await sleep(300);
  const after = await figures(w);
  const tcpRate = async () => (await rate(w, agents, seconds)) ?? 0;
  const [, during] = await Promise.all([flood(w, kind, seconds + 1), sleep(500).then(tcpRate)]);
  const end = await figures(w);
  const drops = after.drops - before.drops;
  return [
    kind,
    `${Math.round(sent / (seconds + 1) / 1000)}`,
    `${lost.toFixed(1)} %`,
    `${(during / (usual / 2)).toFixed(2)}`,
    drops > 1000 ? (((after.cpu - before.cpu) / drops) * 1e6).toFixed(1) : '-',
    ((after.out - before.out) / (after.in - before.in)).toFixed(2),
    `${(end.memory - before.memory).toFixed(0)}`,
    `${end.descriptors - before.descriptors}`,
    `${end.lines - before.lines}`,
  ];
}

async function rate(w, agents, seconds) {
  const [, from] = w.mesh.vms[0].containers;
  return await agents.stream(from, { to: other, bytes: 0, milliseconds: seconds * 1000 });
}

const HEAD = [
  'flood',
  'sent, thousands/s',
  'ping loss',
  'TCP / half of usual',
  'daemon CPU, us/drop',
  'bytes out / in',
  'memory, MB',
  'descriptors',
  'log lines',
];

/** Measures each kind whose name contains `only`, and prints a table. */
export async function load(plane, seconds, only) {
  const rows = [];
  for (const kind of Object.keys(KINDS).filter((each) => each.includes(only))) {
    const w = await World.make(plane);
    try {
      const agents = await Agents.start(w.lab, [w.mesh.vms[0].containers[1], w.mesh.vms[1].containers[0]]);
      await rate(w, agents, 1);
      const usual = await rate(w, agents, seconds);
      rows.push(await measure(w, kind, seconds, agents, usual));
      process.stderr.write(`${plane}: ${rows.at(-1).join(', ')}\n`);
      agents.stop();
    } finally {
      await w.close();
    }
  }
  const lines = [HEAD, HEAD.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |\n`);
  process.stdout.write(
    `${plane}, ${RATE.toLocaleString('en')} packets a second for ${seconds} s\n\n${lines.join('')}\n`,
  );
}
