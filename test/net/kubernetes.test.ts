/**
 * What docs/kubernetes.md says of a cluster: the daemon with the rights that the manifest gives it, and what
 * kubelet, kube-proxy and pods need of the network, with rules such as kube-proxy makes. `a` is a node, `b` the
 * control plane, `x` a host that is no VM.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { read } from '../documents.ts';
import { missing, notRoot, skip } from './require.ts';
import { PATIENCE, Vms } from './vms.ts';

const [, configMap, daemonSet] = parseAllDocuments(read('packaging/kubernetes/inlay.yaml')).map((each) => each.toJS());
const [daemon] = daemonSet.spec.template.spec.containers;
const START = 'exec node /usr/share/inlay/dist/cli.js up --config /etc/inlay/inlay.yaml';
/** A container as Kubernetes makes it: mounts of its own, of which /proc/sys is read-only, and few capabilities. */
const POD = `mount -t tmpfs tmpfs /mnt
mkdir /mnt/net
mount --bind /proc/sys/net /mnt/net
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
exec setpriv --bounding-set=$0 --inh-caps=-all sh -c '${daemon.command[2]
  .replace(START, 'exec "$@"')
  .replace('/host/proc/sys/net', '/mnt/net')}' sh "$@"`;
const RIGHTS: readonly string[] = daemon.securityContext.capabilities.add;
const BITS: Readonly<Record<string, bigint>> = { NET_ADMIN: 12n, SYS_ADMIN: 21n, BPF: 39n };

const [SERVICE, API, NODE_PORT, PORT] = ['172.20.0.1', 6443, 30080, 8080];
const OUTSIDE = '198.51.100.1';
/** Tells each client what address it has come from. */
const SERVE = `require('net').createServer((socket) => socket.end(socket.remoteAddress)).listen(PORT, '0.0.0.0', () => console.log('ready'))`;
const ASK = `const socket = require('net').connect(PORT, 'TO', () => {}).on('data', (data) => process.stdout.write(data)).on('error', () => {});
setTimeout(() => process.exit(1), PATIENCE); socket.on('end', () => process.exit(0))`;

const needed = (await missing('curl', 'ping', 'nft', 'setpriv', 'sysctl', 'unshare')) ?? notRoot;

describe.skipIf(skip('Kubernetes', needed))('Kubernetes', () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-kubernetes-'));
  let vms: Vms;
  let pods: Record<'p1' | 'p2', string>;
  beforeAll(async () => {
    vms = await Vms.of('kernel', 'a', 'b', 'x');
    for (const vm of ['a', 'b']) await vms.lab.must(vm, ['sysctl', '-qw', 'net.ipv4.ip_forward=1']);
    await vms.ip('x', `address add ${OUTSIDE}/32 dev lo`);
    await vms.ip('a', `route add default via ${vms.underlay('x')}`);
    const config = path.join(folder, 'inlay.yaml');
    writeFileSync(config, configMap.data['inlay.yaml']);
    const wrapper = ['unshare', '--mount', '--propagation', 'slave', 'sh', '-ec', POD];
    const rights = ['-all', ...RIGHTS.map((name) => `+${name.toLowerCase()}`)].join();
    const flags = ['--config', config, '--dataplane', 'kernel', '--container-access', `${vms.underlay('b')}:${API}`];
    await vms.upAs([...wrapper, rights], 'a', ...flags);
    await vms.up('b', ...flags);
    await vms.lab.ip(undefined, ['netns add p1', 'netns add p2']);
    pods = { p1: await add('a', 'p1'), p2: await add('b', 'p2') };
    for (const where of ['p1', 'p2', 'x']) await serve(where, PORT);
    for (const port of [API, API + 1]) await serve('b', port);
  });
  afterAll(async () => {
    rmSync(folder, { recursive: true });
    await vms?.close();
  });

  /** As a container runtime does, with the plugin that `cni install` makes; returns the pod's address. */
  async function add(vm: string, pod: string): Promise<string> {
    const place = (name: string) => path.join(folder, vm, name);
    const folders = ['--bin-dir', place('bin'), '--conf-dir', place('conf')];
    await vms.lab.must(
      vm,
      vms.inlayWords(vm, 'cni', 'install', ...folders).filter((word) => word !== ''),
    );
    const env = { CNI_COMMAND: 'ADD', CNI_CONTAINERID: pod, CNI_NETNS: `/var/run/netns/${pod}`, CNI_IFNAME: 'eth0' };
    const words = Object.entries(env).map(([name, value]) => `${name}=${value}`);
    const config = { cniVersion: '1.0.0', name: 'mesh', type: 'inlay-cni', runDir: vms.runDir(vm) };
    const result = await vms.lab.must(vm, ['env', ...words, `${place('bin')}/inlay-cni`], JSON.stringify(config));
    return JSON.parse(result).ips[0].address.replace('/32', '');
  }

  async function serve(where: string, port: number): Promise<void> {
    const words = [process.execPath, '-e', SERVE.replace('PORT', String(port))];
    const child = vms.lab.start(where, words, { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => child.stdout?.once('data', resolve));
  }

  /** What the server says; nothing if it does not answer in so many ms. */
  const ask = async (from: string, to: string, port: number, patience = 15_000) => {
    const script = ASK.replace('PORT', String(port)).replace('TO', to).replace('PATIENCE', String(patience));
    return (await vms.lab.run(from, [process.execPath, '-e', script])).stdout;
  };
  const SOON = 1500;

  const rules = (table: string, ...chains: string[]) =>
    vms.lab.must(
      'a',
      ['nft', '-f', '-'],
      `table ip ${table}\ndelete table ip ${table}\ntable ip ${table} {\n${chains.join('\n')}\n}`,
    );

  test('the daemon has the rights of the manifest, and they do', async () => {
    const { pid, state, sourceCheck, containers, remarks } = await vms.status('a');
    const process = await vms.lab.must(undefined, ['cat', `/proc/${pid}/status`]);
    const bits = RIGHTS.reduce((sum, name) => sum | (1n << (BITS[name] as bigint)), 0n);
    expect(process).toMatch(new RegExp(`^CapEff:\\s${bits.toString(16).padStart(16, '0')}$`, 'm'));
    expect({ state, sourceCheck, containers }).toEqual({
      ...{ state: 'running', sourceCheck: 'on' },
      containers: { attached: 1, attach: 'on' },
    });
    expect(remarks).toEqual([]);
    const files =
      'cat /proc/sys/net/ipv6/conf/inl????????????/disable_ipv6 /proc/sys/net/ipv4/conf/inl????????????/forwarding';
    expect((await vms.lab.must('a', ['sh', '-c', files])).trim().split('\n')).not.toContain('0');
  });

  test('pods reach each other, and kubelet reaches those of its node', async () => {
    expect(await ask('p1', pods.p2, PORT)).toBe(pods.p1);
    expect(await ask('a', pods.p1, PORT)).toBe(vms.overlay('a'));
    expect(await ask('b', pods.p1, PORT)).toBe(vms.overlay('b'));
  });

  test('pods reach services of nodes, and what is outside, once what leaves the mesh is masqueraded', async () => {
    const dnat = `ip daddr ${SERVICE} dnat to ${vms.underlay('b')}`;
    await rules('kube-proxy', `chain pre { type nat hook prerouting priority dstnat; ${dnat}; }`);
    expect([await ask('p1', SERVICE, API, SOON), await ask('p1', OUTSIDE, PORT, SOON)]).toEqual(['', '']);
    await vms.lab.must('a', ['nft', '-f', '-'], configMap.data['masquerade.nft']);
    const node = vms.underlay('a');
    expect([await ask('p1', SERVICE, API), await ask('p1', SERVICE, API + 1)]).toEqual([node, node]);
    expect(await ask('p1', OUTSIDE, PORT)).toBe(node);
    expect(await ask('p1', pods.p2, PORT)).toBe(pods.p1);
  });

  test("nodes reach pods by their services, once kube-proxy knows the overlay for the pods' network", async () => {
    const dnat = `chain out { type nat hook output priority -100; ip daddr ${SERVICE} dnat to ${pods.p2}; }`;
    const masquerade = 'ip saddr != 10.0.0.0/8 ip daddr 10.0.0.0/8 masquerade';
    await rules('kube-proxy', dnat);
    expect(await ask('a', SERVICE, PORT, SOON)).toBe('');
    await rules('kube-proxy', dnat, `chain post { type nat hook postrouting priority srcnat; ${masquerade}; }`);
    expect(await ask('a', SERVICE, PORT)).toBe(vms.overlay('a'));
  });

  test("of nodes' own addresses pods reach only what is listed", async () => {
    expect(await ask('p1', vms.underlay('b'), API)).toBe(vms.underlay('a'));
    expect(await ask('p1', vms.underlay('b'), API + 1, SOON)).toBe('');
    await expect
      .poll(async () => (await vms.status('a')).barrier?.drops['container-access'], PATIENCE)
      .toBeGreaterThan(0);
  });

  test.each(['p1', 'p2'] as const)('a node port leads to a pod, here or on another node: %s', async (pod) => {
    const match = `ip daddr ${vms.underlay('a')} tcp dport ${NODE_PORT}`;
    await rules(
      'kube-proxy',
      `chain pre { type nat hook prerouting priority dstnat; ${match} meta mark set meta mark or 0x4000 dnat to ${pods[pod]}:${PORT}; }`,
      'chain post { type nat hook postrouting priority srcnat; meta mark and 0x4000 == 0x4000 masquerade; }',
    );
    expect(await ask('x', vms.underlay('a'), NODE_PORT)).toBe(pod === 'p2' ? vms.overlay('a') : vms.underlay('a'));
  });
});
