/** Both formats on one underlay, and what the linux engine needs of the machine for each: what is missing is said, with what helps. */
import type { ChildProcess } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab, type Output } from '../../src/demo/lab.ts';
import { plainErrors } from '../../src/log.ts';
import { CLI, readyStatus } from './mesh.ts';
import { missing, rawSocketMissing, skip } from './require.ts';
import { pingWords } from './vms.ts';

const UP = ['up', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];
const VMS = { a: '192.168.16.32', b: '192.168.16.33' };
/** Holds UDP port 4754 until its standard input ends. */
const HOLDER =
  "const s = require('dgram').createSocket('udp4').bind(4754, () => console.log('bound')); process.stdin.resume().on('end', () => s.close());";

describe.skipIf(skip('formats', await missing('ping', 'python3')))('formats', () => {
  let lab: Lab;

  beforeAll(async () => {
    lab = await Lab.open();
    await lab.ip(undefined, ['netns add a', 'netns add b', 'link add eth0 netns a type veth peer name eth0 netns b']);
    for (const [name, address] of Object.entries(VMS)) {
      await lab.ip(name, ['link set lo up', `address add ${address}/16 dev eth0`, 'link set eth0 up']);
    }
  });
  afterAll(() => lab?.close());

  const run = (vm: string, ...words: string[]): Promise<Output> => lab.run(vm, [process.execPath, CLI, ...words]);
  const status = (vm: string) => readyStatus(lab, `/run/${vm}`);

  /** Runs `body` while daemons run with these flags. */
  async function withDaemons(flags: Record<string, string[]>, body: () => Promise<void>): Promise<void> {
    const daemons = Object.entries(flags).map(([vm, words]) => {
      const command = [process.execPath, CLI, ...UP, '--run-dir', `/run/${vm}`, ...words];
      const child = lab.start(vm, ['sh', '-c', `exec "$@" 2>/run/${vm}.log`, 'sh', ...command], { stdio: 'ignore' });
      return { vm, ended: new Promise((resolve) => child.once('exit', resolve)) };
    });
    try {
      for (const { vm } of daemons) expect(await status(vm)).toMatchObject({ state: 'running' });
      await body();
    } finally {
      for (const { vm, ended } of daemons) {
        const { pid } = await status(vm).catch(() => ({ pid: 0 }));
        if (pid > 0) await lab.run(vm, ['kill', String(pid)]);
        await ended;
      }
    }
  }

  const pings = async (from: string, to: string) =>
    (await lab.run(from, pingWords(to, 5))).stdout.match(/(\d+) received/)?.[1];

  async function whilePortIsTaken(vm: string, body: () => Promise<void>): Promise<void> {
    const holder: ChildProcess = lab.start(vm, [process.execPath, '-e', HOLDER], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await new Promise((resolve) => holder.stdout?.once('data', resolve));
    const ended = new Promise((resolve) => holder.once('exit', resolve));
    try {
      await body();
    } finally {
      holder.stdin?.end();
      await ended;
    }
  }

  test.each([
    ['linux', ['--core', 'typescript']],
    ['linux', ['--queues', '2']],
    ['linux', ['--gre-segmentation', 'kernel']],
  ])('a VM with gre and one with gre-udp understand each other: engine %s %j', async (engine, words) => {
    const flags = { a: ['--engine', engine, ...words], b: ['--encapsulation', 'gre-udp'] };
    await withDaemons(flags, async () => {
      expect([await pings('a', '10.16.33.1'), await pings('b', '10.16.32.1')]).toEqual(['5', '5']);
      for (const vm of ['a', 'b']) {
        expect(await status(vm)).toMatchObject({
          tunnels: 1,
          outbound: { packets: 10, drops: {} },
          inbound: { packets: 10 },
        });
      }
    });
  });

  // Five super-packets of 20 datagrams each, by UDP_SEGMENT (<linux/udp.h>).
  const sender = [
    'import socket',
    's = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)',
    's.setsockopt(17, 103, 1000)',
    "for i in range(5): s.sendto(bytes(20000), ('10.16.33.1', 9000))",
  ].join('\n');
  const receiver = [
    'import socket',
    's = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)',
    "s.bind(('10.16.33.1', 9000))",
    's.settimeout(10)',
    "print('bound', flush=True)",
    'print([len(s.recv(65535)) for i in range(100)])',
  ].join('\n');
  test.each([
    ['gre', ['--gre-segmentation', 'core']],
    ['gre', ['--gre-segmentation', 'kernel']],
    ['gre-udp', []],
  ])('datagrams arrive as they were sent: %s %j', async (encapsulation, words) => {
    const flags = ['--encapsulation', encapsulation, ...words];
    await withDaemons({ a: flags, b: flags }, async () => {
      const python = lab.start('b', ['timeout', '20', 'python3', '-c', receiver], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let output = '';
      const ended = new Promise((resolve) => python.once('close', resolve));
      await new Promise<void>((resolve) =>
        python.stdout?.on('data', (chunk) => {
          output += chunk;
          resolve();
        }),
      );
      await lab.must('a', ['python3', '-c', sender]);
      await ended;
      expect(output).toBe(`bound\n${JSON.stringify(Array(100).fill(1000)).replaceAll(',', ', ')}\n`);
    });
  });

  test('gre goes without UDP port 4754, and says what that means', async () => {
    await whilePortIsTaken('a', () =>
      withDaemons({ a: [], b: [] }, async () => {
        expect(await pings('a', '10.16.33.1')).toBe('5');
        const log = await lab.must('a', ['cat', '/run/a.log']);
        expect(log).toMatch(
          /UDP port 4754 cannot be had: EADDRINUSE: packets of VMs that send gre-udp will not be understood/,
        );
      }),
    );
  });

  const engines = skip('formats, engine portable', rawSocketMissing()) ? ['linux'] : ['linux', 'portable'];
  test.each(engines)('gre-udp does not, engine %s', async (engine) => {
    await whilePortIsTaken('a', async () => {
      const { code, stderr } = await run(
        'a',
        ...UP,
        '--run-dir',
        '/run/a',
        '--encapsulation',
        'gre-udp',
        '--engine',
        engine,
      );
      expect([code, plainErrors(stderr)]).toEqual([
        1,
        expect.stringContaining('hint: look who has it: ss -ulpn sport = :4754'),
      ]);
    });
  });

  test('the kernel is not asked to cut where it would drop what it is given', async () => {
    const setFilter = (value: number) =>
      lab.must('a', ['sh', '-c', `echo ${value} >/proc/sys/net/ipv4/conf/all/rp_filter`]);
    await setFilter(1);
    const { code, stderr } = await run('a', ...UP, '--run-dir', '/run/a', '--gre-segmentation', 'kernel');
    await setFilter(0);
    expect([code, plainErrors(stderr)]).toEqual([
      1,
      expect.stringContaining('hint: sysctl -w net.ipv4.conf.all.rp_filter=2'),
    ]);
  });
});
