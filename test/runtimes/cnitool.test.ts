/**
 * The plugin before cnitool, the runner of the CNI project itself: what it takes and what it refuses is judged
 * by others. Go builds it; where there is no Go, there is no such test.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { missing, skip } from '../net/require.ts';
import { Vms } from '../net/vms.ts';
import { COMMANDS, Root } from './runtime.ts';

const SOURCE = 'github.com/containernetworking/cni/cnitool@latest';
/** For downloading and building it. */
const PATIENCE = 300_000;
/** The same folder as that of whoever installed Go by hand. */
const GO_PATH = `${process.env['PATH']}:/usr/local/go/bin`;
const hasGo = spawnSync('go', ['version'], { env: { ...process.env, PATH: GO_PATH } }).status === 0;

if (hasGo) {
  describe.skipIf(skip('test/runtimes/cnitool', await missing(...COMMANDS)))('cnitool', () => judge());
} else {
  test('cnitool needs Go, which is not on this machine', () => {
    process.stderr.write('left out: test/runtimes/cnitool: Go is not installed (apt-get install golang-go)\n');
  });
}

function judge(): void {
  let folder: string;
  let vms: Vms;
  let root: Root;

  beforeAll(async () => {
    folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-cnitool-'));
    const env = { ...process.env, PATH: GO_PATH, GOBIN: folder };
    const { status, stderr } = spawnSync('go', ['install', SOURCE], { env, encoding: 'utf8', timeout: PATIENCE });
    expect([status, status === 0 ? '' : stderr]).toEqual([0, '']);
    vms = await Vms.of('wasm', 'a');
    await vms.up('a');
    root = await Root.open(vms, 'a');
    await root.sh('rm -f /etc/cni/net.d/*; ip netns add web');
    expect(await root.inlay('cni', 'install')).toMatchObject({ code: 0, stderr: '' });
  }, PATIENCE);
  afterAll(async () => {
    await vms?.close();
    rmSync(folder, { recursive: true });
  });

  function run(command: string, env: Record<string, string> = {}, words = ['mesh', '/run/netns/web']) {
    const variables = { CNI_PATH: '/opt/cni/bin', NETCONFPATH: '/etc/cni/net.d', ...env };
    const list = Object.entries(variables).map(([name, value]) => `${name}=${value}`);
    return root.run(['env', ...list, `${folder}/cnitool`, command, ...words]);
  }

  async function done(...words: Parameters<typeof run>): Promise<string> {
    const { code, stdout, stderr } = await run(...words);
    expect([stderr, code]).toEqual(['', 0]);
    return stdout;
  }

  async function refused(...words: Parameters<typeof run>): Promise<string> {
    const { code, stderr } = await run(...words);
    expect(code).not.toBe(0);
    return stderr;
  }

  const attached = async () =>
    JSON.parse((await root.inlay('containers', '--json')).stdout).containers as { address: string }[];

  test('status, add, check, del', async () => {
    await done('status');
    const result = JSON.parse(await done('add'));
    expect(result).toMatchObject({
      cniVersion: '1.1.0',
      interfaces: [{}, { name: 'eth0', sandbox: '/run/netns/web', mtu: 1476 }],
    });
    expect(await attached()).toMatchObject([{ address: result.ips[0].address.split('/')[0] }]);
    await done('check');
    expect(await refused('add')).toContain('is attached as eth0');
    await done('check');
    await done('del');
    await done('del');
    expect(await attached()).toEqual([]);
    expect(await refused('check')).toContain('prevResult is missing');
  });

  test('add with capabilities, arguments and another name of the interface', async () => {
    const env = {
      CAP_ARGS: '{"ips":["10.16.32.91/24"],"mac":"02:00:00:00:00:5a"}',
      CNI_ARGS: 'IgnoreUnknown=1;A=B',
      CNI_IFNAME: 'net1',
    };
    const { interfaces, ips } = JSON.parse(await done('add', env));
    expect(interfaces[1]).toMatchObject({ name: 'net1', mac: '02:00:00:00:00:5a' });
    expect(ips).toEqual([{ address: '10.16.32.91/32', gateway: '10.16.32.1', interface: 1 }]);
    await done('check', env);
    await done('del', env);
    expect(await refused('add', { CNI_ARGS: 'A=B' })).toContain('unknown arguments ["A=B"]');
    expect(await attached()).toEqual([]);
  });

  test('check finds what somebody changed', async () => {
    await done('add');
    await root.sh('ip netns exec web ip link set eth0 down');
    expect(await refused('check')).toContain('eth0');
    await done('del');
  });

  test('del after the namespace has gone', async () => {
    await root.sh('ip netns add gone');
    const words = ['mesh', '/run/netns/gone'];
    await done('add', {}, words);
    await root.sh('ip netns del gone');
    await done('del', {}, words);
    expect(await attached()).toEqual([]);
  });

  test('gc detaches all of the network', async () => {
    await done('add');
    // Without what cnitool remembers: so it is the plugin that finds it.
    await root.sh('rm -rf /var/lib/cni/results; ip netns add other');
    expect(await root.inlay('attach', 'other')).toMatchObject({ code: 0 });
    await done('gc');
    expect(await attached()).toMatchObject([{ id: expect.stringMatching(/^netns-/) }]);
    await root.inlay('detach', '--all');
    await root.sh('ip netns del other');
  });

  test('status where nothing can be attached', async () => {
    const plugins = [{ type: 'inlay-cni', runDir: '/run/no-daemon' }];
    await root.write(
      '/etc/cni/net.d/30-no-daemon.conflist',
      JSON.stringify({ cniVersion: '1.1.0', name: 'no-daemon', plugins }),
    );
    const words = ['no-daemon', '/run/netns/web'];
    expect(await refused('status', {}, words)).toContain('no daemon has left its mesh in /run/no-daemon');
    expect(await refused('add', {}, words)).toContain('no daemon has left its mesh in /run/no-daemon');
    await done('del', {}, words);
  });

  test('a configuration that makes no sense', async () => {
    const network = (plugin: object) =>
      JSON.stringify({ cniVersion: '1.1.0', name: 'odd', plugins: [{ type: 'inlay-cni', ...plugin }] });
    await root.write('/etc/cni/net.d/20-odd.conflist', network({ rundir: '/x' }));
    expect(await refused('add', {}, ['odd', '/run/netns/web'])).toContain(
      'unsupported field in the network configuration: rundir: "/x"',
    );
    await root.write('/etc/cni/net.d/20-odd.conflist', network({ overlay: '11.0.0.0/8', underlay: '192.168.0.0/16' }));
    expect(await refused('add', {}, ['odd', '/run/netns/web'])).toContain('not of 11.0.0.0/8 over 192.168.0.0/16');
  });
}
