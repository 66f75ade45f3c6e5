/** `up` where it cannot work, and the other commands at the wrong time: exit codes, messages, and that nothing is left. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab, type Output } from '../../src/demo/lab.ts';
import { plainErrors } from '../../src/log.ts';
import type { Status } from '../../src/observe/status.ts';
import { CATCH_ALL_REMOVED, FAST_PATH_REMOVED, withoutCatchAllRoute, withoutCatchAllRules } from './catch-all.ts';
import { CLI, shellLine } from './mesh.ts';
import { missing, skip } from './require.ts';

const skipped = skip('bad input', await missing('setpriv'));
let lab: Lab;
beforeAll(async () => {
  if (!skipped) lab = await Lab.open();
});
afterAll(() => lab?.close());

const PAIR = ['--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];
const ETH0 = [
  'link set lo up',
  'link add eth0 type veth peer name cable',
  'link set eth0 addrgenmode none up',
  'link set cable addrgenmode none up',
];
const ADDRESS = 'address add 192.168.16.32/16 dev eth0';

/** Makes a network namespace with a link, and waits until the link's state changes no more. */
async function makeVm(where: string, network: readonly string[]): Promise<void> {
  await lab.must(undefined, ['ip', 'netns', 'add', where]);
  await lab.ip(where, [...ETH0, ...network]);
  await lab.linksUp(where, ['eth0', 'cable']);
}

/** Everything of a network namespace that `up` may change; the first are the routes and the rules. */
async function snapshot(where: string): Promise<[routes: unknown[], rules: unknown[], ...rest: unknown[]]> {
  const shown = ['route show table all', 'rule', '-6 route show table all', 'link', 'address'].map(async (words) =>
    JSON.parse((await lab.must(where, ['ip', '-j', ...words.split(' ')])) || '[]'),
  );
  const script = 'grep . /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/conf/*/rp_filter';
  const [routes, rules, ...rest] = await Promise.all(shown);
  return [routes, rules, ...rest, await lab.must(where, ['sh', '-c', script])];
}

/** What there is of a run directory. */
async function filesOf(runDir: string): Promise<string> {
  return (await lab.run(undefined, ['sh', '-c', `ls -Ad ${runDir} ${runDir}/* 2>/dev/null`])).stdout;
}

/** Runs `inlay`; `wrapper` are the words before it. */
function inlay(where: string, words: readonly string[], wrapper: readonly string[] = []): Promise<Output> {
  return lab.run(where, [...wrapper, process.execPath, CLI, ...words]);
}

function expectError(output: Output, code: number, says: readonly string[]): void {
  for (const words of says) expect(plainErrors(output.stderr)).toContain(words);
  expect([output.code, output.stdout]).toEqual([code, '']);
  expect(output.stderr).not.toMatch(/^\s+at .*:\d+/m);
}

interface Case {
  name: string;
  /** For `ip`, after eth0 is there. */
  network: string[];
  flags?: string[];
  /** A shell command in front of `inlay`. */
  before?: string;
  wrapper?: string[];
  code: number;
  says: string[];
}

const bounded = (capabilities: string) => ['setpriv', '--bounding-set', capabilities];

const cases: Case[] = [
  {
    name: 'the local address is outside the underlay',
    network: [ADDRESS, 'address add 172.16.0.1/16 dev eth0'],
    flags: ['--local', '172.16.0.1'],
    code: 78,
    says: ['inlay: local address 172.16.0.1 is outside the underlay 192.168.0.0/16'],
  },
  {
    name: 'the local address is not here',
    network: [ADDRESS],
    flags: ['--local', '192.168.9.9'],
    code: 78,
    says: ['inlay: local address 192.168.9.9 is not on this machine: it has ', '192.168.16.32 on eth0'],
  },
  {
    name: 'no address in the underlay',
    network: ['address add 172.16.0.1/16 dev eth0', 'address add 100.64.0.1/32 dev eth0'],
    code: 78,
    says: [
      'inlay: this machine has no address inside the underlay 192.168.0.0/16: it has ',
      '172.16.0.1 on eth0, 100.64.0.1 on eth0',
      '\nhint: correct the underlay prefix, or give this VM an address in it',
    ],
  },
  {
    name: 'two addresses in the underlay',
    network: [ADDRESS, 'address add 192.168.9.9/24 dev lo'],
    code: 78,
    says: [
      'inlay: several addresses are inside the underlay 192.168.0.0/16: 192.168.9.9 on lo, 192.168.16.32 on eth0\n',
      'hint: choose one with --local 192.168.9.9',
    ],
  },
  {
    name: 'the last VM of class E',
    network: ['address add 192.168.255.255/32 dev eth0'],
    flags: ['--overlay', '240.0.0.0/4'],
    code: 78,
    says: ['inlay: 192.168.255.255 cannot be a VM: that is the broadcast address of 192.168.0.0/16'],
  },
  {
    name: 'an underlay MTU that leaves nothing',
    network: [ADDRESS, 'link set eth0 mtu 90'],
    code: 1,
    says: ['inlay: underlay MTU 90 leaves no room for packets'],
  },
  ...[['net_admin', 'net_raw'], ['net_admin'], ['net_raw']].map((missing) => ({
    name: `root without ${missing.join(' and ')}`,
    network: [ADDRESS],
    wrapper: bounded(missing.map((name) => `-${name}`).join(',')),
    code: 77,
    says: [
      `inlay: missing ${missing.map((name) => `CAP_${name.toUpperCase()}`).join(' and ')}: `,
      `\nhint: sudo ${shellLine([process.execPath, CLI, 'up', ...PAIR, '--wait', '0', '--run-dir', `/run/root-without-${missing.join('-and-').replaceAll('_', '-')}`])}\n`,
      '\noutside, as nothing that is started here can have them; in a container: docker run --cap-add=NET_ADMIN --cap-add=NET_RAW --cap-add=BPF; ',
    ],
  })),
  {
    name: 'no /dev/net/tun',
    network: [ADDRESS],
    wrapper: ['unshare', '--mount', 'sh', '-c', 'mount -t tmpfs tmpfs /dev/net && exec "$@"', 'sh'],
    code: 1,
    says: ['inlay: /dev/net/tun cannot be opened: ENOENT\n', 'hint: modprobe tun'],
  },
  ...['link add inlay0 type veth peer name other', 'tuntap add inlay0 mode tun', 'tuntap add inlay0 mode tap'].map(
    (line) => ({
      name: `a device has the name: ${line}`,
      network: [ADDRESS, line],
      code: 1,
      says: ['inlay: device inlay0 exists already', '\nhint: choose another name with --device'],
    }),
  ),
  {
    name: 'a route to the overlay exists',
    network: [ADDRESS, 'route add 10.0.0.0/8 dev eth0'],
    code: 1,
    says: [
      'inlay: a route to 10.0.0.0/8 exists already: 10.0.0.0/8 dev eth0',
      '\nhint: if nothing needs it, remove it (ip route del 10.0.0.0/8)',
    ],
  },
  {
    name: 'a route to the slice with the last metric exists',
    network: [ADDRESS, 'route add blackhole 10.16.32.0/24 metric 4294967295'],
    code: 1,
    says: [
      'inlay: a route to 10.16.32.0/24 exists already: blackhole 10.16.32.0/24 ',
      '\nhint: if nothing needs it, remove it (ip route del 10.16.32.0/24 metric 4294967295)',
    ],
  },
  {
    name: 'a route to the overlay stands where the catch-all belongs',
    network: [ADDRESS, 'route add 10.0.0.0/8 dev eth0 metric 1'],
    code: 1,
    says: [
      'inlay: a route to 10.0.0.0/8 exists already: 10.0.0.0/8 dev eth0 ',
      '\nhint: if nothing needs it, remove it (ip route del 10.0.0.0/8 metric 1)',
    ],
  },
  {
    name: 'a run directory that cannot be made',
    network: [ADDRESS],
    flags: ['--run-dir', '/dev/null/inlay'],
    code: 1,
    says: ['inlay: run directory /dev/null/inlay: ENOTDIR', '\nhint: choose another with --run-dir'],
  },
  {
    name: 'a run directory that is a file',
    network: [ADDRESS],
    before: 'touch $RUN_DIR',
    code: 1,
    says: ['inlay: run directory /run/', ': ENOTDIR'],
  },
];

describe.skipIf(skipped)('up fails', () => {
  for (const { name, network, flags = [], before = 'true', wrapper, code, says } of cases) {
    test.concurrent(name, async () => {
      const where = name.replaceAll(/[^a-z0-9]+/gi, '-');
      const runDir = `/run/${where}`;
      await makeVm(where, network);
      await lab.must(where, ['sh', '-c', `RUN_DIR=${runDir} && ${before}`]);
      const calm = await snapshot(where);
      const files = await filesOf(runDir);

      const output = await inlay(where, ['up', ...PAIR, '--wait', '0', '--run-dir', runDir, ...flags], wrapper);
      expectError(output, code, says);
      // The log's own form, whoever reads it.
      const lines = output.stderr
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
      expect(lines.at(-1)).toMatchObject({ level: 'error', code: expect.stringMatching(/^E/) });
      expect(await snapshot(where)).toEqual(calm);
      expect(await filesOf(runDir)).toBe(files);
    });
  }
});

describe.skipIf(skipped)('a daemon runs', () => {
  const where = 'busy';
  let calm: unknown[];
  let running: unknown;
  let pid: number;
  let ended: Promise<number | null>;

  beforeAll(async () => {
    await makeVm(where, [ADDRESS, 'link set eth0 mtu 1280']); // The device gets less than IPv6 takes.
    calm = await snapshot(where);
    const daemon = lab.start(where, [process.execPath, CLI, 'up', ...PAIR], { stdio: 'ignore' });
    ended = new Promise((resolve) => daemon.once('exit', resolve));
    pid = (await status()).pid;
    running = await snapshot(where);
  });

  async function status(): Promise<Status> {
    const { code, stdout, stderr } = await inlay(where, ['status', '--wait', '15', '--json']);
    expect([code, stderr]).toEqual([0, '']);
    return JSON.parse(stdout);
  }

  test.concurrent('a second one on the same device', async () => {
    const output = await inlay(where, ['up', ...PAIR, '--run-dir', '/run/second']);
    expectError(output, 1, [
      'inlay: another Inlay daemon has the device inlay0: VM 192.168.16.32, device inlay0, run directory /run/inlay\n',
      'hint: look at it with inlay status --run-dir /run/inlay; for a second mesh choose another --device',
    ]);
  });

  test.concurrent('a second one with the same run directory', async () => {
    const output = await inlay(where, ['up', ...PAIR, '--device', 'inlay1']);
    const message = `inlay: a daemon runs already with run directory /run/inlay (process ${pid})\n`;
    expectError(output, 1, [message, 'hint: choose another directory with --run-dir']);
  });

  test.concurrent('a second one on the same overlay', async () => {
    const output = await inlay(where, ['up', ...PAIR, '--device', 'inlay1', '--run-dir', '/run/third']);
    expectError(output, 1, [
      'inlay: the route to 10.0.0.0/8 belongs to another Inlay daemon, which runs: VM 192.168.16.32',
    ]);
  });

  test.concurrent('down', async () => {
    const message = `inlay: a daemon runs already with run directory /run/inlay (process ${pid})\n`;
    expectError(await inlay(where, ['down']), 1, [message, `hint: stop it first: kill ${pid}`]);
  });

  test('it goes on as if nothing had been, leaves the catch-all when it is told to stop, and down removes that', async () => {
    expect(await snapshot(where)).toEqual(running);
    expect(await status()).toMatchObject({ pid, state: 'running', repaired: 0 });
    await lab.must(undefined, ['kill', String(pid)]);
    expect(await ended).toBe(0);
    const [routes, rules, ...rest] = await snapshot(where);
    expect([withoutCatchAllRoute(routes), withoutCatchAllRules(rules), ...rest]).toEqual(calm);
    for (const command of ['status', 'tunnels']) {
      const says = ['inlay: no daemon answers at /run/inlay/control.sock (ENOENT)\n', 'hint: start it with inlay up'];
      expectError(await inlay(where, [command]), 3, says);
    }
    const removed = `${FAST_PATH_REMOVED}${CATCH_ALL_REMOVED}removed  directory /run/inlay\n`;
    expect(await inlay(where, ['down'])).toEqual({ code: 0, stdout: removed, stderr: '' });
    expect(await snapshot(where)).toEqual(calm);
  });
});

describe.skipIf(skipped)('no daemon runs', () => {
  test.concurrent('status of a socket whose daemon was killed', async () => {
    const socket = 'require("net").createServer().listen("/run/dead/control.sock", () => process.kill(process.pid, 9))';
    await lab.run(undefined, ['sh', '-c', 'mkdir /run/dead && exec "$@"', 'sh', process.execPath, '-e', socket]);
    const output = await lab.run(undefined, [process.execPath, CLI, 'status', '--run-dir', '/run/dead']);
    expectError(output, 3, ['inlay: no daemon answers at /run/dead/control.sock (ECONNREFUSED)']);
  });

  test.concurrent('down without a capability', async () => {
    const thing = { kind: 'route', to: '10.16.32.0/24', metric: 4294967295, protocol: 73 };
    const left = `${JSON.stringify({ v: 1, op: 'add', owner: 'daemon', thing })}\n`;
    await lab.must(undefined, ['sh', '-c', 'mkdir /run/left && cat >/run/left/journal.jsonl'], left);
    const words = [...bounded('-net_admin'), process.execPath, CLI, 'down', '--run-dir', '/run/left'];
    const hint = `\nhint: sudo ${shellLine([process.execPath, CLI, 'down', '--run-dir', '/run/left'])}\n`;
    expectError(await lab.run(undefined, words), 77, ['inlay: missing CAP_NET_ADMIN: ', hint]);
  });
});
