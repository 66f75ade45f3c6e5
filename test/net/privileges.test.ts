/** An ordinary user with two capabilities runs the daemon, and a user who lacks something is told the command that helps: it is run here, and does. */
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Mesh, Vm } from '../../src/demo/mesh.ts';
import { plainErrors } from '../../src/log.ts';
import type { Status } from '../../src/observe/status.ts';
import { CONFIGS } from '../fast-path/configs.ts';
import { CATCH_ALL_REMOVED, withoutCatchAllRoute, withoutCatchAllRules } from './catch-all.ts';
import { CLI, shellLine, startMesh } from './mesh.ts';
import { missing, notRoot, rawSocketMissing, skip } from './require.ts';

const USER = 65534;
const AS_USER = ['setpriv', `--reuid=${USER}`, `--regid=${USER}`, '--clear-groups'];
const CAPABILITIES = '+net_admin,+net_raw';
/** With these and no others, whatever the program does. */
const LEAST = [
  ...AS_USER,
  ...['--inh-caps', '--ambient-caps', '--bounding-set'].map((set) => `${set}=-all,${CAPABILITIES}`),
];
const UP = ['up', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];

/** A lab whose file of the TUN driver has the mode that udev gives it. */
async function openLab(): Promise<Lab> {
  const lab = await Lab.open();
  await lab.must(undefined, ['sh', '-c', 'mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200']);
  return lab;
}

async function statusOf(lab: Lab, where: string, runDir: string): Promise<Status> {
  const words = [process.execPath, CLI, 'status', '--wait', '20', '--json', '--run-dir', runDir];
  return JSON.parse(await lab.must(where, words));
}

const needed = (await missing('ping', 'setpriv', 'setcap')) ?? notRoot;

describe.skipIf(skip('privileges', needed))('an ordinary user', () => {
  const portableSkipped = skip('privileges, engine portable', rawSocketMissing());

  describe.each(['linux', 'portable'])('engine %s', (engine) => {
    const skipped = engine === 'portable' && portableSkipped;
    let lab: Lab;
    let mesh: Mesh;
    let vm: Vm;

    beforeAll(async () => {
      if (skipped) return;
      lab = await openLab();
      await lab.must(undefined, ['install', '-d', '-o', String(USER), '-g', String(USER), '/run/vm1', '/run/vm2']);
      mesh = await startMesh(lab, ['--engine', engine], { wrapper: LEAST });
      vm = mesh.vms[0] as Vm;
    });
    afterAll(() => lab?.close());

    const inlay = (...words: string[]) =>
      lab.run(vm.name, [...LEAST, process.execPath, CLI, ...words, '--run-dir', vm.runDir]);

    /** All that a daemon may change; and that nothing of its own is there but, after an ordinary end, the catch-all. */
    async function withoutTraces({ catchAll = false } = {}): Promise<unknown[]> {
      const shown = ['link', '-4 address', '-4 route show table all', '-4 rule'].map(async (words) =>
        JSON.parse(await lab.must(vm.name, ['ip', '-j', ...words.split(' ')])),
      );
      const [links, addresses, allRoutes, allRules] = await Promise.all(shown);
      const routes = catchAll ? withoutCatchAllRoute(allRoutes) : allRoutes;
      const rules = catchAll ? withoutCatchAllRules(allRules) : allRules;
      const script = `ls -A ${vm.runDir}
        grep . /proc/sys/net/ipv4/conf/*/forwarding /proc/sys/net/ipv4/conf/*/rp_filter /proc/sys/net/ipv4/ip_forward`;
      const [files = '', rest] = (await lab.must(vm.name, ['sh', '-c', script])).split(/(?=\/proc)(.*)/s);
      expect(files).toBe(catchAll ? 'journal.jsonl\nmesh.json\n' : '');
      const found = [links, addresses, routes, rules, rest];
      // The container is not the daemon's.
      expect(JSON.stringify(found)).not.toMatch(/inlay(?! container)|"protocol":"7[35]"/);
      return found;
    }

    async function end(signal: string): Promise<void> {
      const { pid } = await mesh.status(vm);
      await lab.must(undefined, ['kill', `-${signal}`, String(pid)]);
      await lab.must(undefined, ['sh', '-c', `while kill -0 ${pid} 2>/dev/null; do sleep 0.02; done`]);
    }

    test.skipIf(skipped)('forwards packets with no other rights', async () => {
      const { pid, segmentation, segmentationObstacle } = await mesh.status(vm);
      const process = await lab.must(undefined, ['cat', `/proc/${pid}/status`]);
      expect(process).toMatch(new RegExp(`^Uid:(\\s${USER}){4}$`, 'm'));
      for (const set of ['Inh', 'Prm', 'Eff', 'Bnd', 'Amb'])
        expect(process).toMatch(new RegExp(`^Cap${set}:\\s0{12}3000$`, 'm'));
      if (engine === 'linux') {
        const why = 'the kernel was not given the program for it: CAP_BPF is missing';
        expect([segmentation, segmentationObstacle]).toEqual(['core', why]);
      }
      const [a, b] = mesh.containers;
      for (const [from, to] of [
        [a, b],
        [b, a],
      ])
        expect(
          await lab.must(from?.name, ['ping', '-n', '-c', '5', '-l', '5', '-i', '5', to?.address as string]),
        ).toMatch(/ 5 received/);
    });

    test.skipIf(skipped)(
      'leaves the catch-all alone when it is told to stop, and nothing after down, be it after kill -9',
      async () => {
        await end('TERM');
        expect(await mesh.log(vm)).toMatch(
          /"msg":"stopped; packets for the overlay are unreachable until inlay down"}\n$/,
        );
        await withoutTraces({ catchAll: true });
        // As long as a container is attached, what it sends to others is not to leave in plain.
        expect(await inlay('detach', '--all')).toMatchObject({ code: 0, stderr: '' });
        // The directory was there before.
        const attaching = [
          'removed  unreachable routes to addresses of detached containers: 1\n',
          'removed  address 10.16.32.1 of lo\n',
        ].join('');
        expect(await inlay('down')).toEqual({ code: 0, stdout: `${CATCH_ALL_REMOVED}${attaching}`, stderr: '' });
        const calm = await withoutTraces();

        const words = [...LEAST, process.execPath, CLI, ...UP, '--run-dir', vm.runDir, '--engine', engine];
        lab.start(vm.name, words, { stdio: 'ignore' });
        expect(await statusOf(lab, vm.name, vm.runDir)).toMatchObject({ state: 'running' });
        await end('KILL');
        const last = await inlay('down');
        expect([last.code, last.stderr]).toEqual([0, '']);
        expect(last.stdout).toMatch(/^removed +route unreachable 10\.16\.32\.0\/24/m);
        expect(last.stdout).toContain(CATCH_ALL_REMOVED);
        expect(await withoutTraces()).toEqual(calm);
      },
    );
  });
});

describe.skipIf(skip('privileges, fast path', needed))('the fast path', () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await openLab();
  });
  afterAll(() => lab?.close());

  test('CAP_NET_ADMIN and CAP_BPF are enough for both programs of every configuration', async () => {
    const only = ['--inh-caps', '--ambient-caps', '--bounding-set'].map((set) => `${set}=-all,+net_admin,+bpf`);
    const loader = fileURLToPath(new URL('../fast-path/load.mjs', import.meta.url));
    const words = [...AS_USER, ...only, process.execPath, loader, JSON.stringify(CONFIGS)];
    const found = Object.fromEntries(CONFIGS.map(({ name }) => [name, 'loaded']));
    // Bits 12 and 39 (<linux/capability.h>): neither CAP_PERFMON nor CAP_SYS_ADMIN.
    expect(JSON.parse(await lab.must(undefined, words))).toEqual({ capabilities: '0000008000001000', found });
  });
});

describe.skipIf(skip('privileges, hints', needed))('what helps', () => {
  let lab: Lab;
  beforeAll(async () => {
    lab = await openLab();
    await lab.ip(undefined, [
      ...['link add eth0 type veth peer name cable', 'link set eth0 up', 'link set cable up'],
      'address add 192.168.16.32/16 dev eth0',
    ]);
    await lab.must(undefined, [
      'sh',
      '-c',
      'mkdir /run/node && cp "$0" /run/node && setcap cap_net_admin,cap_net_raw+ep /run/node/node',
      process.execPath,
    ]);
  });
  afterAll(() => lab?.close());

  const setpriv = (capabilities = `${CAPABILITIES},+bpf`) =>
    `sudo setpriv --reuid=${USER} --regid=${USER} --init-groups --inh-caps=${capabilities} --ambient-caps=${capabilities}`;
  const withCapabilities = (names: string) => [...AS_USER, `--inh-caps=${names}`, `--ambient-caps=${names}`];
  const unit = 'or in a systemd unit, beside User=: AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW CAP_BPF\n';

  /** Runs a command line that lacks something; answers what it says and, without its `sudo`, the command that is to help. */
  async function refused(words: readonly string[]): Promise<Record<'message' | 'hint' | 'second' | 'helps', string>> {
    const { code, stdout, stderr } = await lab.run(undefined, words);
    const said = /^(?:{.*}\n)*inlay: (.*)\nhint: (.*)\n(.*\n)$/.exec(plainErrors(stderr));
    const [, message = '', hint = '', second = ''] = said ?? [];
    expect([code, stdout]).toEqual([77, '']);
    return { message, hint, second, helps: hint.replaceAll(/\bsudo /g, '') };
  }

  interface Case {
    name: string;
    before?: string;
    wrapper: string[];
    runDir: string;
    message: string;
    hint: string;
    second?: string;
  }
  const missingAre = (names: string) => `missing ${names}: devices, routes and raw sockets need them`;
  const cases: Case[] = [
    {
      name: 'neither capability',
      wrapper: AS_USER,
      runDir: '/run/neither',
      message: missingAre('CAP_NET_ADMIN and CAP_NET_RAW'),
      hint: setpriv(),
    },
    {
      name: 'no CAP_NET_ADMIN',
      wrapper: withCapabilities('+net_raw'),
      runDir: "/run/it's raw",
      message: missingAre('CAP_NET_ADMIN'),
      hint: setpriv(),
    },
    {
      name: "no CAP_NET_RAW, and a folder that is root's",
      before: 'mkdir /run/ours',
      wrapper: withCapabilities('+net_admin'),
      runDir: '/run/ours/admin',
      message: missingAre('CAP_NET_RAW'),
      hint: `sudo install -d -o ${USER} -g ${USER} /run/ours/admin && ${setpriv()}`,
    },
    {
      name: "the run directory is root's",
      before: 'mkdir /run/root',
      wrapper: withCapabilities(CAPABILITIES),
      runDir: '/run/root',
      message: 'run directory /run/root: this user may not write there (EACCES)',
      hint: 'sudo',
      second: 'or as the user whose directory it is, with CAP_NET_ADMIN CAP_NET_RAW CAP_BPF\n',
    },
    {
      name: 'the run directory cannot be made',
      wrapper: withCapabilities(CAPABILITIES),
      runDir: '/run/ours/new',
      message: 'run directory /run/ours/new: this user may not write there (EACCES)',
      hint: `sudo install -d -o ${USER} -g ${USER} /run/ours/new && ${setpriv()}`,
    },
    {
      name: "the file of the TUN driver is root's",
      before: 'chmod 600 /dev/net/tun',
      wrapper: withCapabilities(CAPABILITIES),
      runDir: '/run/tun',
      message: '/dev/net/tun cannot be opened: EACCES',
      hint: `sudo chmod 666 /dev/net/tun && ${setpriv()}`,
    },
  ];

  test.each(cases)('up: $name', async ({ before = 'true', wrapper, runDir, ...expected }) => {
    await lab.must(undefined, ['sh', '-c', before]);
    const { message, hint, second, helps } = await refused([
      ...wrapper,
      process.execPath,
      CLI,
      ...UP,
      '--run-dir',
      runDir,
    ]);
    const command = shellLine([process.execPath, CLI, ...UP, '--run-dir', runDir]);
    expect({ message, hint, second }).toEqual({
      ...{ message: expected.message, hint: `${expected.hint} ${command}` },
      second: expected.second ?? unit,
    });

    const daemon = lab.start(undefined, ['sh', '-c', helps], { stdio: 'ignore' });
    const ended = once(daemon, 'exit');
    const { pid, state } = await statusOf(lab, '', runDir);
    expect(state).toBe('running');
    await lab.must(undefined, ['kill', String(pid)]);
    expect(await ended).toEqual([0, null]);
  });

  test('capabilities of the file of Node are enough', async () => {
    const words = [...AS_USER, '/run/node/node', CLI, ...UP, '--run-dir', '/run/file'];
    await lab.must(undefined, ['install', '-d', '-o', String(USER), '/run/file']);
    await lab.must(undefined, ['chmod', '666', '/dev/net/tun']);
    const ended = once(lab.start(undefined, words, { stdio: 'ignore' }), 'exit');
    const { pid, state } = await statusOf(lab, '', '/run/file');
    expect(state).toBe('running');
    await lab.must(undefined, ['kill', String(pid)]);
    expect(await ended).toEqual([0, null]);
  });

  const name = 'net/ipv4/conf/eth0/forwarding';
  const thing = { kind: 'sysctl', name, value: '1', device: 'eth0', others: true };
  const left = `${JSON.stringify({ v: 1, op: 'add', owner: 'daemon', thing, before: '0' })}\n`;

  test("down: what root's daemon left", async () => {
    await lab.must(undefined, ['sh', '-c', 'mkdir /run/left && cat >/run/left/journal.jsonl'], left);
    await lab.must(undefined, ['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/conf/eth0/forwarding']);
    const down = [process.execPath, CLI, 'down', '--run-dir', '/run/left'];
    const { message, hint, helps } = await refused([...withCapabilities(CAPABILITIES), ...down]);
    expect([message, hint]).toEqual([
      'run directory /run/left: this user may not write there (EACCES)',
      `sudo ${shellLine(down)}`,
    ]);
    expect(await lab.must(undefined, ['sh', '-c', helps])).toMatch(/sysctl net\.ipv4\.conf\.eth0\.forwarding/);
    expect(await lab.must(undefined, ['cat', '/proc/sys/net/ipv4/conf/eth0/forwarding'])).toBe('0\n');
  });

  test('down: CAP_NET_ADMIN is missing, and is enough', async () => {
    await lab.must(undefined, ['install', '-d', '-o', String(USER), '/run/own']);
    await lab.must(undefined, ['sh', '-c', 'cat >/run/own/journal.jsonl && chown 65534 /run/own/journal.jsonl'], left);
    await lab.must(undefined, ['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/conf/eth0/forwarding']);
    const down = [process.execPath, CLI, 'down', '--run-dir', '/run/own'];
    const { message, hint, helps } = await refused([...AS_USER, ...down]);
    expect([message, hint]).toEqual([missingAre('CAP_NET_ADMIN'), `${setpriv('+net_admin')} ${shellLine(down)}`]);
    expect(await lab.must(undefined, ['sh', '-c', helps])).toMatch(/sysctl net\.ipv4\.conf\.eth0\.forwarding/);
    expect(await lab.must(undefined, ['cat', '/proc/sys/net/ipv4/conf/eth0/forwarding'])).toBe('0\n');
  });

  test('another user’s daemon runs: status, tunnels and down say what is missing', async () => {
    await lab.must(undefined, ['sh', '-c', 'mkdir /run/other']);
    const words = [process.execPath, CLI, ...UP, '--run-dir', '/run/other'];
    const ended = once(lab.start(undefined, words, { stdio: 'ignore' }), 'exit');
    const { pid } = await statusOf(lab, '', '/run/other');
    const command = (name: string) => [process.execPath, CLI, name, '--run-dir', '/run/other'];
    for (const name of ['status', 'tunnels']) {
      const says = `inlay: no permission for /run/other/control.sock\nhint: sudo ${shellLine(command(name))}, or join the group of the socket\n`;
      expect(await lab.run(undefined, [...AS_USER, ...command(name)])).toEqual({ code: 77, stdout: '', stderr: says });
    }
    expect(await refused([...AS_USER, ...command('down')])).toMatchObject({
      message: 'run directory /run/other: this user may not write there (EACCES)',
      hint: `sudo ${shellLine(command('down'))}`,
      second: 'or as the user whose directory it is, with CAP_NET_ADMIN\n',
    });
    await lab.must(undefined, ['kill', String(pid)]);
    expect(await ended).toEqual([0, null]);
  });
});
