/** What others do on a VM that hurts the overlay: it is said, nothing is changed, and what the hint says helps. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh, Vm } from '../../src/demo/mesh.ts';
import type { Trouble } from '../../src/machine/machine.ts';
import { CLI, startMesh } from './mesh.ts';
import { PLANES } from './planes.mjs';
import { missing, skip } from './require.ts';
import { pingWords, Vms } from './vms.ts';

/** The neighbour table is one for the whole machine: other tests may fill it. */
const isOwn = ({ what }: Trouble) => !what.includes("machine's neighbour table");
/** A container's device that was not made by attaching. */
const BY_HAND = 'veth1';
/** A look comes every 5 s. */
const PATIENCE = { timeout: 30_000, interval: 100 };
const reason = await missing('iptables', 'ping', 'sysctl');

describe.skipIf(skip('remarks', reason)).each(Object.keys(PLANES) as (keyof typeof PLANES)[])(
  'remarks, %s',
  (plane) => {
    let lab: Lab;
    let mesh: Mesh;
    beforeAll(async () => {
      lab = await Lab.open();
      mesh = await startMesh(lab, PLANES[plane]);
      // Of an attached container's device, Inlay would put the setting right.
      await shell(`ip link add ${BY_HAND} type veth peer name peer; ip link set ${BY_HAND} up; ip link set peer up
      sysctl -qw net.ipv4.conf.${BY_HAND}.forwarding=1; ip route add 10.16.32.200/32 dev ${BY_HAND}`);
    });
    afterAll(() => lab?.close());

    const vm = (i: number) => mesh.vms[i] as Vm;
    const container = (i: number) => vm(i).containers[0] as Container;
    const shell = (line: string) => lab.must(vm(0).name, ['sh', '-ec', line]);
    const remarks = async () => ((await mesh.status(vm(0))).remarks ?? []).filter(isOwn);
    const rules = () => shell('iptables-save | grep -v "^#" | sed "s/ \\[.*//"');
    const pings = async () => (await lab.run(container(0).name, pingWords(container(1).address, 2))).stdout;
    /** How often the log has a line with these words. */
    const told = async (words: string) => {
      const lines = (await mesh.log(vm(0))).split('\n').filter((line) => line.includes(words));
      return lines.filter((what) => isOwn({ what })).length;
    };

    test('nothing is said of a machine without such things', async () => {
      expect(await remarks()).toEqual([]);
      expect(await pings()).toContain('2 received');
    });

    test('each is named with what helps, in the log once, and the state stays what it was', async () => {
      await shell(`iptables -P FORWARD DROP; iptables -N DOCKER-USER; iptables -A FORWARD -j DOCKER-USER
      iptables -t nat -A POSTROUTING -o eth0 -j SNAT --to-source 192.168.16.99
      sysctl -qw net.ipv4.conf.${BY_HAND}.forwarding=0`);
      const before = await rules();
      const found = [
        { what: `forwarding is off on ${BY_HAND}: the kernel drops what comes from there for other VMs` },
        {
          what: 'the chain FORWARD of iptables drops packets between containers and other VMs: its policy is DROP, and no rule accepts them',
        },
        { what: expect.stringContaining('the source 192.168.16.99 instead of 192.168.16.32 on eth0') },
      ];
      await expect.poll(remarks, PATIENCE).toMatchObject(found);
      await expect.poll(() => told('remark: '), PATIENCE).toBe(3);
      expect((await mesh.status(vm(0))).state).toBe('running');
      expect(await rules()).toBe(before);
      const text = await lab.must(vm(0).name, [process.execPath, CLI, 'status', '--run-dir', vm(0).runDir]);
      for (const { what } of await remarks()) expect(text).toContain(what);
    });

    test('what the hints say helps, and the log tells that it is over', async () => {
      expect(await pings()).toContain('0 received');
      const commands = (await remarks()).flatMap(({ hint = '' }) =>
        hint.split('; ').filter((part) => /^(iptables|sysctl) /.test(part)),
      );
      expect(commands).toEqual([
        `sysctl -w net.ipv4.conf.${BY_HAND}.forwarding=1`,
        'iptables -I DOCKER-USER -i inlay0 -j ACCEPT',
        'iptables -I DOCKER-USER -o inlay0 -j ACCEPT',
        expect.stringMatching(/^iptables -t nat -I POSTROUTING -s 192\.168\.16\.32 -p (47|udp --dport \d+) -j ACCEPT$/),
      ]);
      await shell(commands.join('\n'));
      await expect.poll(remarks, PATIENCE).toEqual([]);
      expect(await pings()).toContain('2 received');
      expect(await told('"msg":"remark over"')).toBe(3);
      expect(await told('remark: ')).toBe(3);
    });
  },
);

describe.skipIf(skip('remarks of a VM', reason))('remarks of a VM', () => {
  let vms: Vms;
  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b', 'c');
    for (const name of ['a', 'b'])
      await vms.lab.must(name, ['iptables', '-t', 'nat', '-A', 'POSTROUTING', '-j', 'MASQUERADE']);
    await vms.ip(
      'a',
      ...['address flush dev eth0', 'address add 192.168.16.99/16 dev eth0', 'address add 192.168.16.32/16 dev eth0'],
    );
    await vms.ip('b', 'address add 192.168.16.98/16 dev eth0');
    await vms.up('a', '--local', '192.168.16.32');
    await vms.up('b', '--local', '192.168.16.33');
    // It computes other slices than the others do.
    await vms.up('c', '--underlay', '192.168.0.0/17');
  });
  afterAll(() => vms?.close());

  const whats = async (name: string) => ((await vms.status(name)).remarks ?? []).filter(isOwn).map(({ what }) => what);

  test("masquerading matters where the VM's address is not the one that it takes", async () => {
    await expect
      .poll(() => whats('a'), PATIENCE)
      .toContainEqual(expect.stringContaining('the source 192.168.16.99 instead of 192.168.16.32'));
    const inner = expect.stringContaining("the source of containers' packets");
    await expect.poll(() => whats('b'), PATIENCE).toEqual([inner]);
  });

  test('many devices without forwarding are counted, and those that have gone are not', async () => {
    const names = ['d0', 'd1', 'd2', 'd3.7'];
    const lines = names.flatMap((name, i) => [
      ...[`link add ${name} type bridge`, `link set ${name} up`, `route add 10.16.33.${100 + i}/32 dev ${name}`],
    ]);
    const off = () => whats('b').then((all) => all.filter((what) => what.startsWith('forwarding')));
    await vms.ip('b', ...lines);
    await expect
      .poll(off, PATIENCE)
      .toEqual([expect.stringMatching(/^forwarding is off on 4 containers' devices, such as d0, d1, d2: /)]);
    await vms.ip('b', 'link del d0', 'route del 10.16.33.101/32 dev d1');
    await expect.poll(off, PATIENCE).toEqual([expect.stringMatching(/^forwarding is off on d2, d3\.7: /)]);
    const hints = ((await vms.status('b')).remarks ?? []).map(({ hint }) => hint);
    expect(hints).toContain(
      'sysctl -w net.ipv4.conf.d2.forwarding=1; sysctl -w net.ipv4.conf.d3/7.forwarding=1; or for all devices: sysctl -w net.ipv4.ip_forward=1',
    );
    await vms.lab.must('b', ['sysctl', '-w', 'net.ipv4.ip_forward=1']);
    await expect.poll(off, PATIENCE).toEqual([]);
  });

  test('an underlay prefix that is a part of the network is named once packets are dropped for it', async () => {
    expect(await whats('c')).toEqual([]);
    await vms.pings('a', '10.16.34.1', 2, '-I', '10.16.32.1');
    const { drops } = (await vms.status('c')).inbound;
    expect(Object.keys(drops)).not.toEqual([]);
    await expect
      .poll(() => whats('c'), PATIENCE)
      .toEqual([expect.stringContaining("192.168.0.0/17 is only a part of this VM's network 192.168.0.0/16")]);
  });
});
