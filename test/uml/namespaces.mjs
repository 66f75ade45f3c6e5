/** The scene in which `inlay up` meets the kernel's GRE: network namespaces, and commands in them. Runs in User-mode Linux, as root. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';

/** The VMs: on `kernel`, GRE is the kernel's; on `inlay`, it is ours, and `container` is a container there. `third` and `own-container`, on `kernel`, are not in every scene. */
export const UNDERLAY = { kernel: '192.168.16.32', inlay: '192.168.16.33', third: '192.168.16.34' };
export const OVERLAY = {
  kernel: '10.16.32.1',
  'own-container': '10.16.32.91',
  inlay: '10.16.33.1',
  container: '10.16.33.91',
  third: '10.16.34.1',
};
const SLICE = '10.16.33.0/24';

/** Starts a command in a namespace. `done` resolves to its exit status and output and never rejects; what it says on stderr is passed on too. */
export function start(namespace, ...command) {
  const child = spawn('ip', ['netns', 'exec', namespace, ...command], { stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8').on('data', (text) => {
      output[name] += text;
      if (name === 'stderr') process.stderr.write(`${namespace}: ${text}`);
    });
  }
  const done = once(child, 'close').then(([status, signal]) => ({ status, signal, ...output }));
  return { child, done };
}

/** Runs a command in a namespace; throws unless it succeeds. Resolves to what it prints. */
export async function run(namespace, ...command) {
  const { status, stdout } = await start(namespace, ...command).done;
  if (status !== 0) throw new Error(`${namespace}: ${command.join(' ')}: exit status ${status}`);
  return stdout;
}

/** Runs `ip` on many lines at once: each process costs tens of milliseconds here. */
export async function ipBatch(namespace, lines) {
  const command = namespace ? ['netns', 'exec', namespace, 'ip', '-batch', '-'] : ['-batch', '-'];
  const child = spawn('ip', command, { stdio: ['pipe', 2, 2] });
  child.stdin.end(`${lines.join('\n')}\n`);
  const [status] = await once(child, 'close');
  if (status !== 0) throw new Error(`ip -batch failed in ${namespace ?? 'the first namespace'}`);
}

export async function makeNamespaces() {
  await ipBatch(undefined, [
    ...['kernel', 'inlay'].map((name) => `netns add ${name}`),
    'link add eth0 netns kernel type veth peer name eth0 netns inlay',
  ]);
  // Over a veth the kernel leaves checksums open and super-packets whole, which the core has to see by itself: a raw socket does not tell.
  for (const name of ['kernel', 'inlay']) {
    // IPv6 addresses of these would appear while the daemon runs, and look like changes of its making.
    const up = ['link set eth0 addrgenmode none up', 'link set lo up'];
    await ipBatch(name, [...up, `address add ${UNDERLAY[name]}/16 dev eth0`]);
  }
  // When a device goes up for the first time the kernel gives it sysctls for IPv6, which stay. They are not what `up` leaves behind.
  for (const name of ['kernel', 'inlay']) await ipBatch(name, ['link set gre0 up', 'link set gre0 down']);
  await makeContainer('container', 'inlay');
  // A tunnel with IPv6 sends router solicitations, which would show up among the daemon's drops.
  await run('kernel', 'sysctl', '-qw', 'net.ipv6.conf.default.disable_ipv6=1');
}

/** Adds a container on `kernel`, and a third VM, to which only `kernel` has a wire. */
export async function makeMoreNamespaces() {
  await makeContainer('own-container', 'kernel');
  await ipBatch(undefined, ['netns add third', 'link add eth0 netns third type veth peer name eth1 netns kernel']);
  await ipBatch('kernel', ['link set eth1 addrgenmode none up', `route add ${UNDERLAY.third} dev eth1`]);
  await ipBatch('third', ['link set lo up', `address add ${UNDERLAY.third}/16 dev eth0`, 'link set eth0 up']);
}

export async function makeContainer(name, vm) {
  await ipBatch(undefined, [`netns add ${name}`, `link add eth0 netns ${name} type veth peer name veth0 netns ${vm}`]);
  await ipBatch(vm, ['link set veth0 addrgenmode none up', `route add ${OVERLAY[name]} dev veth0`]);
  await ipBatch(name, [
    ...['link set lo up', 'link set eth0 up', `address add ${OVERLAY[name]}/32 dev eth0`],
    ...[`route add ${UNDERLAY[vm]} dev eth0`, `route add default via ${UNDERLAY[vm]}`],
  ]);
  await run(vm, 'sysctl', '-qw', 'net.ipv4.conf.veth0.forwarding=1');
}

let hasTunnel = false;

/** Gives `kernel` a GRE tunnel of the kernel's own, instead of the one it had; the key null is none. */
export async function makeKernelTunnel(shape, key) {
  const keyWords = key === null ? '' : `key ${key}`;
  const remote = shape === 'point-to-point' ? `remote ${UNDERLAY.inlay}` : '';
  if (hasTunnel) await removeKernelTunnel();
  await ipBatch('kernel', [
    `link add gre1 type gre local ${UNDERLAY.kernel} ${remote} ttl 64 ${keyWords}`,
    `address add ${OVERLAY.kernel}/32 dev gre1`,
    'link set gre1 up',
    ...(shape === 'point-to-point'
      ? ['route add 10.0.0.0/8 dev gre1']
      : [
          `neighbour add ${OVERLAY.inlay} lladdr ${UNDERLAY.inlay} dev gre1 nud permanent`,
          `route add ${SLICE} via ${OVERLAY.inlay} dev gre1 onlink`,
        ]),
  ]);
  hasTunnel = true;
}

export async function removeKernelTunnel() {
  await ipBatch('kernel', ['link del gre1']);
  hasTunnel = false;
}

/**
 * Sends `count` echo requests, to a namespace or an address, and counts the answers; an answer that comes twice is a duplicate. All but one go at once and the last a second
 * later: ping ends with the answer to it, and duplicates of the others have come by then. For that answer too it waits a second, not just
 * the usual short interval, which is too little on a busy machine.
 */
export async function ping(from, to, count) {
  const options = ['-c', String(count), '-l', String(count - 1), '-i', '1', '-W', '2'];
  const { stdout } = await start(from, 'ping', '-n', ...options, OVERLAY[to] ?? to).done;
  const number = (pattern) => Number(pattern.exec(stdout)?.[1] ?? 0);
  return {
    ...{ from, to, sent: number(/(\d+) packets transmitted/) },
    ...{
      received: number(/(\d+) received/),
      duplicates: number(/\+(\d+) duplicates/),
      errors: number(/\+(\d+) errors/),
    },
  };
}

/** What `up` may change in a namespace, as a flat list of lines: links, addresses, routes, queueing disciplines and sysctls. */
export async function snapshot(namespace = 'inlay') {
  const routes = 'ip route show table all; ip -6 route show table all';
  const sysctls = 'grep -rs . /proc/sys/net/ipv4 /proc/sys/net/ipv6';
  const text = await run(namespace, 'sh', '-c', `ip -o link; ip -o address; ${routes}; tc qdisc; ${sysctls} || true`);
  return text.split('\n').filter((line) => line !== '');
}

/** What one snapshot has and the other has not. */
export function difference(before, after) {
  return [...after.filter((line) => !before.includes(line)), ...before.filter((line) => !after.includes(line))];
}

/** One of the counters of ICMP in a namespace, such as InEchos. */
export const icmpCounter = (namespace, name) => counter(namespace, 'Icmp', name);

/** One of the counters of a protocol in a namespace. */
export async function counter(namespace, protocol, name) {
  const text = await run(namespace, 'cat', '/proc/net/snmp');
  const lines = text.split('\n').filter((line) => line.startsWith(`${protocol}:`));
  const [names, values] = lines.map((line) => line.split(' '));
  return Number(values[names.indexOf(name)]);
}
