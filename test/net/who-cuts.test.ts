/** gre-segmentation auto: the kernel cuts super-packets, but not where a firewall could drop what it forwards; and what is sent arrives either way. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Status } from '../../src/observe/status.ts';
import { CLI, readyStatus } from './mesh.ts';
import { missing, notRoot, skip } from './require.ts';

const VMS = { a: '192.168.16.32', b: '192.168.16.33' };
const BYTES = 20_000_000;
/** Prints the SHA-256 of what one connection to port 5000 brings. */
const SINK = `
  const hash = require('crypto').createHash('sha256');
  const server = require('net').createServer((socket) => {
    server.close();
    socket.on('data', (chunk) => hash.update(chunk)).on('end', () => { socket.end(); console.log(hash.digest('hex')); });
  }).listen(5000, '10.16.33.1', () => console.log('listening'));`;
const CHUNKS = 20;
/** Sends random bytes there, a chunk each `ms`, and prints their SHA-256 if all were taken within 20 s. */
const source = (ms: number) => `
  const data = require('crypto').randomBytes(${BYTES});
  console.log(require('crypto').createHash('sha256').update(data).digest('hex'));
  setTimeout(() => process.exit(1), 20_000).unref();
  const socket = require('net').connect(5000, '10.16.33.1').resume();
  for (let i = 0; i < ${CHUNKS}; i++)
    setTimeout(() => socket.write(data.subarray(${BYTES / CHUNKS} * i, ${BYTES / CHUNKS} * (i + 1))), ${ms} * i);
  setTimeout(() => socket.end(), ${ms} * ${CHUNKS});`;

const needed = await missing('nft', 'iptables-legacy', 'ss', 'sysctl');
describe.skipIf(skip('who cuts', needed))('who cuts', () => {
  let lab: Lab;
  const daemons: Promise<unknown>[] = [];

  beforeAll(async () => {
    lab = await Lab.open();
    await lab.ip(undefined, ['netns add a', 'netns add b', 'link add eth0 netns a type veth peer name eth0 netns b']);
    for (const [name, address] of Object.entries(VMS)) {
      await lab.ip(name, ['link set lo up', `address add ${address}/16 dev eth0`, 'link set eth0 up']);
      await lab.must(name, ['sh', '-c', 'echo 2 >/proc/sys/net/ipv4/conf/all/rp_filter']);
      // BBR, which is the default of some machines, takes a second without answers for the bandwidth of the path.
      await lab.must(name, ['sh', '-c', 'echo reno >/proc/sys/net/ipv4/tcp_congestion_control']);
      const up = [process.execPath, CLI, 'up', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];
      const daemon = lab.start(name, [...up, '--run-dir', `/run/${name}`], { stdio: 'ignore' });
      daemons.push(new Promise((resolve) => daemon.once('exit', resolve)));
      expect(await status(name)).toMatchObject({ state: 'running' });
    }
  });
  afterAll(async () => {
    for (const name of Object.keys(VMS)) {
      const pid = (await status(name).catch(() => undefined))?.pid;
      if (pid) await lab.run(name, ['kill', String(pid)]);
    }
    await Promise.all(daemons);
    await lab?.close();
  });

  const status = (vm: string) => readyStatus(lab, `/run/${vm}`);

  /** Waits until A's daemon has noticed, which takes it up to a second; answers who cuts then. */
  async function cutsBy(expected: Status['segmentation']): Promise<Status['segmentation']> {
    for (let i = 0; i < 50; i++) {
      const { segmentation } = await status('a');
      if (segmentation === expected) return segmentation;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return (await status('a')).segmentation;
  }

  /** Sends from A to B, slowly if something is to be done during that. */
  async function transfer(during?: () => Promise<unknown>): Promise<void> {
    const sink = lab.start('b', ['timeout', '30', process.execPath, '-e', SINK], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let output = '';
    const ended = new Promise((resolve) => sink.once('close', resolve));
    await new Promise<void>((resolve) => {
      sink.stdout?.on('data', (chunk) => {
        output += chunk;
        resolve();
      });
    });
    const sending = lab.must('a', [process.execPath, '-e', source(during ? 100 : 0)]);
    if (during) {
      await expect
        .poll(async () => lab.run('a', ['ss', '-Htn', 'dst', '10.16.33.1:5000']))
        .toMatchObject({ stdout: expect.stringContaining('ESTAB') });
      await during();
      expect(sink.exitCode).toBeNull();
    }
    const sent = (await sending).trim();
    await ended;
    expect(output).toBe(`listening\n${sent}\n`);
  }

  const nft = (rules: string) => lab.must('a', ['nft', '-f', '-'], rules);
  /** How many packets A has forwarded: super-packets count as one. */
  const forwarded = async () =>
    Number(/^Ip: \d+ \d+ \d+ \d+ \d+ (\d+)/m.exec(await lab.must('a', ['cat', '/proc/net/snmp']))?.[1]);

  test('the kernel, where nothing stands in the way', async () => {
    expect(await cutsBy('kernel')).toBe('kernel');
    const before = await forwarded();
    await transfer();
    expect((await forwarded()) - before).toBeGreaterThan(BYTES / 65_536 / 2);
  });

  test.each([
    ['inet', 'forward'],
    ['ip', 'forward'],
    ['inet', 'prerouting'],
  ])('the core, while nftables has a chain of %s that drops at %s', async (family, hook) => {
    // What comes in from the underlay has to pass, whatever the hook.
    const rule = 'iifname eth0 accept';
    await nft(`table ${family} t { chain c { type filter hook ${hook} priority 0; policy drop; ${rule}; }; }`);
    expect(await cutsBy('core')).toBe('core');
    if (hook === 'forward') {
      const before = await forwarded();
      await transfer();
      expect((await forwarded()) - before).toBe(0);
    }
    await nft(`delete table ${family} t`);
    expect(await cutsBy('kernel')).toBe('kernel');
    await transfer();
  });

  test('a chain that comes under traffic does not stop it', async () => {
    await transfer(() => nft('table inet t { chain c { type filter hook forward priority 0; policy drop; }; }'));
    expect(await cutsBy('core')).toBe('core');
    await nft('delete table inet t');
    expect(await cutsBy('kernel')).toBe('kernel');
  });

  const sysctl = (name: string, value: number) => lab.must('a', ['sysctl', '-qw', `net.ipv4.conf.${name}=${value}`]);

  test('the core, and status says why, while all.rp_filter is 1', async () => {
    await sysctl('all.rp_filter', 1);
    expect(await cutsBy('core')).toBe('core');
    expect((await status('a')).segmentationObstacle).toBe('net.ipv4.conf.all.rp_filter is 1');
    await sysctl('all.rp_filter', 0);
    expect(await cutsBy('kernel')).toBe('kernel');
    expect(await status('a')).not.toHaveProperty('segmentationObstacle');
  });

  test.each([
    ['inlay0.rp_filter', 1, 0],
    ['inlay0.accept_local', 0, 1],
    ['inlay0.forwarding', 0, 1],
  ])('the kernel again, after %s was set to %d: the daemon puts back what is its own', async (name, strict, usual) => {
    const { repaired } = await status('a');
    await sysctl(name, strict);
    await expect
      .poll(async () => lab.must('a', ['sysctl', '-n', `net.ipv4.conf.${name}`]), { timeout: 10_000 })
      .toBe(`${usual}\n`);
    expect(await cutsBy('kernel')).toBe('kernel');
    expect(await status('a')).toMatchObject({ state: 'running', repaired: repaired + 1 });
    expect(await status('a')).not.toHaveProperty('segmentationObstacle');
    await transfer();
  });

  test('the core, where iptables (legacy) has a table that filters', async () => {
    await lab.must('a', ['iptables-legacy', '-P', 'FORWARD', 'DROP']);
    expect(await cutsBy('core')).toBe('core');
    await transfer();
    // The table stays for as long as the namespace does: the last test.
  });
});

const asUser = needed ?? (await missing('setpriv')) ?? notRoot;

describe.skipIf(skip('who cuts, other chains', needed))('who cuts, other chains', () => {
  const chain = (family: string, spec: string) => `echo 'table ${family} t { chain c { ${spec}; }; }' | nft -f -`;
  const rpFilter = (value: number) =>
    `for f in all default; do echo ${value} >/proc/sys/net/ipv4/conf/$f/rp_filter; done`;
  test.each([
    ['kernel', 'nat at prerouting', chain('ip', 'type nat hook prerouting priority 0')],
    ['core', 'nat at prerouting that drops', chain('ip', 'type nat hook prerouting priority 0; policy drop')],
    ['kernel', 'another hook', chain('inet', 'type filter hook output priority 0')],
    ['kernel', 'no hook', chain('inet', '')],
    ['kernel', 'another family', chain('ip6', 'type filter hook forward priority 0; policy drop')],
    ['kernel', 'a loose rp_filter', rpFilter(2)],
    ['core', 'a strict rp_filter', rpFilter(1)],
    // More than one read from the kernel brings.
    [
      'core',
      'a chain behind many',
      `seq -f 'add chain inet t c%g' 2000 | { echo add table inet t; cat; } | nft -f - && ${chain('inet', 'type filter hook forward priority 0').replace(' c ', ' last ')}`,
    ],
    ['kernel', 'many chains', "seq -f 'add chain inet t c%g' 2000 | { echo add table inet t; cat; } | nft -f -"],
  ])('the %s, with %s', async (expected, _, script) => {
    expect((await statusAfter(script)).segmentation).toBe(expected);
  });

  test.skipIf(skip('who cuts, unread tables', asUser))(
    'the core, where the tables of iptables may not be read',
    async () => {
      const device = 'mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200';
      const capabilities = '+net_admin,+net_raw,+bpf,+perfmon';
      const user = `setpriv --reuid 65534 --regid 65534 --clear-groups --inh-caps ${capabilities} --ambient-caps ${capabilities}`;
      const as = `${device} && install -d -o 65534 /run/a && exec ${user}`;
      expect(await statusAfter('iptables-legacy -P FORWARD DROP', as)).toMatchObject({
        segmentation: 'core',
        segmentationObstacle: expect.stringContaining('EACCES'),
      });
    },
  );

  test('the core, where sysctls may not be written', async () => {
    const readOnly = 'mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys && exec';
    expect(await statusAfter('echo 1 >/proc/sys/net/ipv4/ip_forward', readOnly)).toMatchObject({
      segmentation: 'core',
      segmentationObstacle: 'net.ipv4.conf.inlay0.accept_local is 0',
    });
  });

  /** What a daemon says that has just started on a VM where `script` has run; `as` are the words of a shell that start it. */
  async function statusAfter(script: string, as = 'exec'): Promise<Status> {
    const lab = await Lab.open();
    try {
      await lab.ip(undefined, ['netns add a', 'link add eth0 netns a type veth peer name eth1 netns a']);
      await lab.ip('a', ['address add 192.168.16.32/16 dev eth0', 'link set eth0 up']);
      await lab.must('a', ['sh', '-c', script]);
      const up = [process.execPath, CLI, 'up', '--overlay', '10.0.0.0/8', '--underlay', '192.168.0.0/16'];
      const words = ['sh', '-c', `${as} "$@"`, 'sh', ...up, '--run-dir', '/run/a'];
      const daemon = lab.start('a', words, { stdio: 'ignore' });
      const ended = new Promise((resolve) => daemon.once('exit', resolve));
      const status = await readyStatus(lab, '/run/a');
      await lab.run('a', ['kill', String(status.pid)]);
      await ended;
      return status;
    } finally {
      await lab.close();
    }
  }
});
