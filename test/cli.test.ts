/**
 * The command line as a user meets it: exit codes, what goes to which stream, help. The words are read in this process; the last suite shows that
 * the built program does the same.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, test, vi } from 'vitest';
import { runProgram } from '../src/commands/program.ts';
import { defaultWait } from '../src/commands/up.ts';
import { ControlServer } from '../src/daemon/control-server.ts';
import { lockRunDir } from '../src/daemon/lock.ts';
import type { Status, TunnelStatus } from '../src/observe/status.ts';

const CLI = fileURLToPath(new URL('../dist/cli.js', import.meta.url));
const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'));

interface Ended {
  code: unknown;
  stdout: string;
  stderr: string;
}

/** Runs the command line in this process. */
async function inlay(words: string): Promise<Ended> {
  const ended: Ended = { code: undefined, stdout: '', stderr: '' };
  const spies = (['stdout', 'stderr'] as const).map((stream) =>
    vi.spyOn(process[stream], 'write').mockImplementation((text) => {
      ended[stream] += text;
      return true;
    }),
  );
  try {
    ended.code = await runProgram(wordsOf(words));
    return ended;
  } finally {
    for (const spy of spies) spy.mockRestore();
  }
}

/** Runs a program to its end. */
function run(file: string, args: readonly string[]): Promise<Ended> {
  return new Promise((resolve) => {
    execFile(file, args, { timeout: 30_000 }, (error, stdout, stderr) =>
      resolve({ code: error ? (error.code ?? error.signal) : 0, stdout, stderr }),
    );
  });
}

const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-cli-'));
writeFileSync(`${folder}/bad.yaml`, 'overlay: 10.0.0.0/8\nunderlay: 192.168.0.0\n');
writeFileSync(`${folder}/class-e.yaml`, 'overlay: 240.0.0.0/4\nunderlay: 172.16.0.0/16\n');
writeFileSync(`${folder}/good.yaml`, 'overlay: 10.0.0.0/8\nunderlay: 192.168.0.0/16\n');
/** The tables say FOLDER, so that the names of tests do not change. */
const inFolder = (text: string) => text.replaceAll('FOLDER', folder);
const wordsOf = (text: string) => inFolder(text).split(' ').filter(Boolean);

/** Stands in for a daemon: `status` and `tunnels` only ask, so that they need no privileges. */
const nothing = { received: 0, packets: 0, bytes: 0, drops: {} };
const status: Status = {
  ...{ state: 'running', troubles: [], repaired: 0 },
  ...{ pid: 4711, vm: '192.168.16.32', overlayAddress: '10.16.32.1', device: 'inlay0', core: 'wasm' },
  ...{
    engine: 'linux',
    dataPlane: 'wasm',
    encapsulation: 'gre',
    segmentation: 'kernel',
    queues: 1,
    mtu: 1476,
    tunnels: 1,
  },
  mappings: [{ overlay: '10.0.0.0/8', underlay: '192.168.0.0/16', slice: '10.16.32.0/24' }],
  outbound: { received: 4, packets: 3, bytes: 252, drops: { 'no-mapping': 1 } },
  inbound: nothing,
  replies: { sent: 2, suppressed: 1 },
  ecnAnomalies: 0,
  icmp: { received: 1, packets: 0, bytes: 0, drops: { 'foreign-icmp': 1 } },
};
const traffic = { packets: 3, bytes: 252 };
const tunnels: TunnelStatus[] = [
  {
    ...{ vm: '192.168.16.33', slice: '10.16.33.0/24', mtu: 1476, state: 'heard', heardSeconds: 2.4 },
    ...{ outbound: traffic, inbound: traffic, idleSeconds: 1.5 },
  },
  {
    ...{
      vm: '192.168.16.34',
      slice: '10.16.34.0/24',
      mtu: 1276,
      state: 'unreachable',
      unreachable: 'host unreachable',
    },
    ...{ outbound: traffic, inbound: { packets: 0, bytes: 0 }, idleSeconds: 0 },
  },
];
const lock = await lockRunDir(folder, '');
const daemon = await ControlServer.listen(folder, {
  status: async () => status,
  tunnels: async () => tunnels,
  mappings: async () => [{ overlay: '10.0.0.0/8', underlay: '192.168.0.0/16' }],
});
afterAll(async () => {
  await daemon.close();
  lock.release();
  rmSync(folder, { recursive: true });
});

const PAIR = '--overlay 10.0.0.0/8 --underlay 192.168.0.0/16';
const help = (await inlay('--help')).stdout;
const commands = [...help.matchAll(/^ {2}([a-z]+) (?:\[options\])/gm)].map((match) => match[1] as string);

describe('help', () => {
  test('names the commands', () => {
    expect(commands).toEqual(expect.arrayContaining(['plan', 'explain', 'up', 'down', 'status', 'tunnels', 'demo']));
  });

  test.each(commands)('%s --help has an example', async (command) => {
    const { code, stdout, stderr } = await inlay(`${command} --help`);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout).toMatch(new RegExp(`^Examples:\n {2}\\$ inlay ${command}`, 'm'));
  });

  test.each(['--version', '-V'])('%s', async (flag) => {
    expect(await inlay(flag)).toEqual({ code: 0, stdout: `${version}\n`, stderr: '' });
  });
});

/** The smallest overlay for 500 VMs with 2,000 containers each. */
const twelve = expect.objectContaining({ overlay: '10.0.0.0/12', underlay: '192.168.0.0/23', containersPerVm: 2045 });

describe('right use', () => {
  test.each<[words: string, json: unknown]>([
    [`plan ${PAIR} --json`, expect.objectContaining({ containersPerVm: 253 })],
    [`plan --config FOLDER/good.yaml --json`, expect.objectContaining({ containersPerVm: 253 })],
    [`plan --config FOLDER/good.yaml --overlay 240.0.0.0/4 --json`, expect.objectContaining({ containersPerVm: 4093 })],
    ['plan --containers 2000 --vms 500 --overlay 10.0.0.0/8 --json', [twelve, expect.objectContaining({ vms: 510 })]],
    [`plan --containers 2000 --underlay 192.168.0.0/23 --overlay 10.0.0.0/12 --json`, [twelve]],
    [`explain 10.16.32.91 ${PAIR} --json`, expect.objectContaining({ vm: '192.168.16.32', container: 90 })],
    [`explain 192.168.16.32 --container 90 ${PAIR} --json`, expect.objectContaining({ overlay: '10.16.32.91' })],
    ['explain 10.16.32.91 --run-dir FOLDER --json', expect.objectContaining({ vm: '192.168.16.32', container: 90 })],
    ['explain 192.168.16.33 --run-dir FOLDER --json', expect.objectContaining({ overlay: '10.16.33.1' })],
    // A file is asked before the daemon is.
    [
      'explain 240.0.16.5 --config FOLDER/class-e.yaml --run-dir FOLDER --json',
      expect.objectContaining({ vm: '172.16.0.1', container: 4 }),
    ],
    [`status --run-dir FOLDER --json`, status],
    [`status --run-dir FOLDER --wait 5 --json`, status],
    [`tunnels --run-dir FOLDER --json`, tunnels],
  ])('%s: one line of JSON and nothing else', async (words, json) => {
    const { code, stdout, stderr } = await inlay(words);
    expect([code, stderr]).toEqual([0, '']);
    expect(JSON.parse(stdout)).toEqual(json);
    expect(stdout).toBe(`${JSON.stringify(JSON.parse(stdout))}\n`);
  });

  test.each<[words: string, line: RegExp]>([
    [`plan ${PAIR}`, /^containers per VM {2}253$/m],
    [`plan ${PAIR}`, /^warning: 256 addresses per VM/m],
    ['plan --containers 2000 --vms 500', /^10\.0\.0\.0\/12 +192\.168\.0\.0\/23 +12 \+ 9 \+ 11 +510 +2,045$/m],
    ['plan --containers 2000 --vms 500', /^240\.0\.0\.0\/4 +192\.168\.0\.0\/23 +4 \+ 9 \+ 19 +510 +524,285$/m],
    ['plan --containers 2000 --vms 500', /^The underlay is an example: any \/23 will do/m],
    ['plan --containers 2000 --vms 500', /^warning: 240\.0\.0\.0\/4 is class E: /m],
    [`explain 10.16.32.91 ${PAIR}`, /^vm +192\.168\.16\.32$/m],
    [`status --run-dir FOLDER`, /^to other VMs +0 +0 bit\/s +3 +252 B$/m],
    [`status --run-dir FOLDER`, /^out no-mapping +0 +1 +no mapping covers the destination$/m],
    [
      `tunnels --run-dir FOLDER`,
      /^192\.168\.16\.33 {2}10\.16\.33\.0\/24 +1,476 +3 +252 +3 +252 +1\.5 +heard 2 s ago$/m,
    ],
    [`tunnels --run-dir FOLDER`, /^192\.168\.16\.34 .* 1,276 .* unreachable: host unreachable$/m],
  ])('%s: %s', async (words, line) => {
    const { code, stdout, stderr } = await inlay(words);
    expect([code, stderr]).toEqual([0, '']);
    expect(stdout.trimEnd()).toMatch(line);
  });
});

const BAD_FILE = `FOLDER/bad.yaml:2:11: underlay "192.168.0.0": expected an IPv4 prefix`;

describe('wrong use', () => {
  test.each<[words: string, code: number, message: string]>([
    ['', 2, 'Usage: inlay'],
    ['pln', 2, "unknown command 'pln'\n(Did you mean plan?)"],
    ['tunels --json', 2, "unknown command 'tunels'\n(Did you mean tunnels?)"],
    ['--jsn', 2, "unknown option '--jsn'"],
    [`plan ${PAIR} --jsn`, 2, "unknown option '--jsn'\n(Did you mean --json?)"],
    [`plan ${PAIR} more`, 2, "too many arguments for 'plan'"],
    ['plan --overlay', 2, "option '--overlay <PREFIX>' argument missing"],
    ['plan', 78, 'inlay: no overlay prefix: two prefixes are needed\nhint: --overlay'],
    [
      'plan --overlay 10.0.0.0/8 --underlay 10.1.0.0/16',
      78,
      'overlap: expected two separate prefixes\nhint: keep the underlay, and take one of these overlays: 10.128.0.0/9 (125 containers per VM), ',
    ],
    ['up --overlay 10.0.0.0/8 --underlay 10.1.0.0/16', 78, '240.0.0.0/4 (4093 containers per VM; class E: Linux'],
    ['plan --vms 5', 2, '--vms goes with --containers'],
    ['plan --containers 5', 2, '--containers goes with --vms, or with the --underlay that the VMs have'],
    ['plan --containers 0 --vms 5', 2, 'expected a whole number, at least 1'],
    [
      'plan --containers 5 --vms 300 --underlay 10.0.0.0/24',
      78,
      'underlay 10.0.0.0/24 has addresses for 254 VMs: expected 300\nhint: give the whole network of the VMs, a /23 or shorter',
    ],
    [
      'plan --containers 500 --overlay 10.0.0.0/8 --underlay 10.0.0.0/16',
      78,
      'overlay 10.0.0.0/8 is too small: 500 containers take 9 bits and the VMs 16, 25 in all, and there are 23\nhint: take fewer',
    ],
    [
      'plan --overlay 10.0.0.0/16 --underlay 192.168.0.0/16',
      78,
      '0 container bits, expected at least 2\nhint: shorten',
    ],
    [`plan --config FOLDER/bad.yaml`, 78, BAD_FILE],
    [`plan --config FOLDER/nowhere`, 78, `FOLDER/nowhere: cannot be read (ENOENT)`],
    [`explain ${PAIR}`, 2, 'expected an address, or --program'],
    [`explain 010.0.0.1 ${PAIR}`, 2, 'address "010.0.0.1": expected an IPv4 address such as 10.16.32.91'],
    [`explain 11.0.0.1 ${PAIR}`, 1, '11.0.0.1 is in none of 10.0.0.0/8, 192.168.0.0/16'],
    [`explain 11.0.0.1 ${PAIR} --json`, 1, '11.0.0.1 is in none of 10.0.0.0/8, 192.168.0.0/16'],
    [`explain 192.168.0.1 ${PAIR} --container 254`, 2, '--container 254: expected 1..253'],
    [`explain 192.168.0.1 ${PAIR} --container x`, 2, 'expected a whole number'],
    [`explain 10.0.0.2 ${PAIR} --container 1`, 2, '--container goes with an underlay address\nhint: 10.0.0.2 is'],
    [
      'explain 10.0.0.2 --run-dir FOLDER/nowhere',
      78,
      'no prefixes are given, and no daemon runs that could tell them: no daemon answers at FOLDER/nowhere/control.sock (ENOENT)\nhint: --overlay 10.0.0.0/8 --underlay',
    ],
    ['explain 10.0.0.2 --overlay 10.0.0.0/8 --run-dir FOLDER', 78, 'no underlay prefix'],
    ['explain 11.0.0.1 --run-dir FOLDER', 1, '11.0.0.1 is in none of 10.0.0.0/8, 192.168.0.0/16'],
    [
      'explain 255.255.255.255 --overlay 240.0.0.0/4 --underlay 192.168.0.0/16',
      78,
      'nobody can have 255.255.255.255: its VM would be 192.168.255.255, but that is the broadcast address of 192.168.0.0/16',
    ],
    ['up', 78, 'no overlay prefix'],
    ['up --wait soon', 2, 'expected seconds, 0..86400'],
    ['up now', 2, "too many arguments for 'up'"],
    [`up ${PAIR} --core rust`, 78, '--core "rust": expected wasm or typescript'],
    [`up ${PAIR} --ky 1`, 2, "unknown option '--ky'\n(Did you mean --key?)"],
    [`up ${PAIR} --mtu 1400`, 2, "unknown option '--mtu'\n(Did you mean --underlay-mtu?)\n"],
    [`up ${PAIR} --sequence on`, 2, "unknown option '--sequence'\n(Did you mean --gre-sequence?)\n"],
    [`up ${PAIR} --underlay-mtu 599`, 78, '--underlay-mtu "599": expected a number from 600 to 65535'],
    [`up --config FOLDER/bad.yaml`, 78, BAD_FILE],
    [
      `status --run-dir FOLDER/nowhere`,
      3,
      `no daemon answers at FOLDER/nowhere/control.sock (ENOENT)\nhint: start it with inlay up, or name its directory`,
    ],
    [`status --run-dir FOLDER/nowhere --json`, 3, 'no daemon answers'],
    [`status --run-dir FOLDER/nowhere --wait 0.2`, 3, 'no daemon answers'],
    ['status --wait soon', 2, 'expected seconds, 0..86400'],
    ['status now', 2, "too many arguments for 'status'"],
    [`tunnels --run-dir FOLDER/nowhere`, 3, 'no daemon answers'],
    [`tunnels --run-dir FOLDER/nowhere --json`, 3, 'no daemon answers'],
    ['tunnels --config x', 2, "unknown option '--config'"],
    [`down --run-dir FOLDER`, 1, `a daemon runs already with run directory FOLDER (process 4711)\nhint: stop it`],
    ['down now', 2, "too many arguments for 'down'"],
    ['demo --vms 0', 2, 'expected a number from 1 to 64'],
    ['demo --overlay 10.0.0.0/16', 78, '0 container bits, expected at least 2'],
    ['demo --core rust', 78, '--core "rust": expected wasm or typescript'],
  ])('inlay %s: exit %i', async (words, expected, message) => {
    const { code, stdout, stderr } = await inlay(words);
    expect([code, stdout]).toEqual([expected, '']);
    expect(stderr).toContain(inFolder(message));
    expect(stderr).not.toMatch(/^\s+at .*:\d+/m);
  });
});

describe('the built program', () => {
  test.each<[code: number, words: string]>([
    [0, '--version'],
    [0, 'up --help'],
    [0, `plan ${PAIR} --json`],
    [0, 'tunnels --run-dir FOLDER'],
    [1, `explain 11.0.0.1 ${PAIR}`],
    [1, 'down --run-dir FOLDER'],
    [2, 'pln'],
    [3, 'status --run-dir FOLDER/nowhere'],
    [78, 'up --config FOLDER/bad.yaml'],
  ])('exit %i, and both streams as in this process: inlay %s', async (code, words) => {
    const ended = await run(process.execPath, [CLI, ...wordsOf(words)]);
    expect(ended.code).toBe(code);
    expect(ended).toEqual(await inlay(words));
  });

  test.each<[name: string, script: string, stderr: string]>([
    ['a reader that has gone', '{ "$0" "$@"; echo "exit $?" >&2; } | true', 'exit 1\n'],
    [
      'a full disk',
      '"$0" "$@" >/dev/full; echo "exit $?" >&2',
      'inlay: ENOSPC: no space left on device, write\nexit 1\n',
    ],
  ])('%s: no stack trace', async (_, script, stderr) => {
    const words = ['-c', script, process.execPath, CLI, 'plan', ...PAIR.split(' ')];
    expect((await run('sh', words)).stderr).toBe(stderr);
  });
});

test('up waits without end as a unit of systemd, and not as what such a unit starts', () => {
  expect(defaultWait({ SYSTEMD_EXEC_PID: '7' }, 7)).toBe(Infinity);
  expect(defaultWait({ SYSTEMD_EXEC_PID: '7' }, 8)).toBe(30);
  expect(defaultWait({}, 8)).toBe(30);
});
