/** What a tunnel's state says on each data plane: a VM that answers, one behind a firewall, one that does not exist, one without a route. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { missing, skip } from './require.ts';
import { type Plane, Vms } from './vms.ts';

const PATIENCE = { timeout: 20_000, interval: 250 };

const planes: { plane: Plane; rule: string; hint: string; nobody: string }[] = [
  {
    plane: 'wasm',
    rule: 'ip protocol gre drop',
    hint: 'does something drop IP protocol 47? Try --encapsulation gre-udp on all VMs',
    nobody: 'host unreachable',
  },
  {
    plane: 'wasm-udp',
    rule: 'udp dport 4754 drop',
    hint: 'does something drop UDP port 4754, or has that VM another format or key?',
    nobody: 'host unreachable',
  },
  {
    plane: 'kernel',
    rule: 'udp dport 4789 drop',
    hint: 'does something drop UDP port 4789, or has that VM another format or key?',
    nobody: '192.168.16.99 does not answer ARP',
  },
];

describe.skipIf(skip('tunnel states', await missing('ping', 'nft'))).each(planes)('tunnel states: $plane', (each) => {
  const { plane, rule, hint, nobody } = each;
  let vms: Vms;
  beforeAll(async () => {
    vms = await Vms.of(plane, 'a', 'b');
    for (const name of vms.names) await vms.up(name);
  });
  afterAll(() => vms?.close());

  /** The tunnel of a to this VM, once more packets were sent there. */
  const after = async (underlay: string, overlay: string) => {
    await vms.pings('a', overlay, 2, '-l', '1', '-i', '0.2', '-W', '0.2');
    return (await vms.tunnels('a')).find(({ vm }) => vm === underlay);
  };
  const said = async (message: string) => {
    const lines = (await vms.log('a')).trim().split('\n');
    return lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg === message);
  };

  test('silent where a firewall drops what comes, with a hint, and heard when it does not', async () => {
    const b = { vm: vms.underlay('b') };
    await vms.lab.must('b', ['nft', `add table ip wall; add chain ip wall in { type filter hook input priority 0; }`]);
    await vms.lab.must('b', ['nft', `add rule ip wall in ${rule}`]);
    const silent = { ...b, state: 'silent', hint };
    await expect.poll(() => after(b.vm, vms.overlay('b')), PATIENCE).toMatchObject(silent);
    expect((await vms.status('a')).tunnelStates).toMatchObject({ silent: 1, heard: 0 });
    expect((await vms.inlay('a', 'tunnels')).stdout).toMatch(
      new RegExp(`^${b.vm} .* silent: \\d+ sent, none received for \\d+ s; ${hint.replace('?', '\\?')}$`, 'm'),
    );
    await expect.poll(() => said('VM silent'), PATIENCE).toMatchObject([{ ...b, level: 'warn', received: 0, hint }]);

    await vms.lab.must('b', ['nft', 'delete table ip wall']);
    await expect
      .poll(() => after(b.vm, vms.overlay('b')), PATIENCE)
      .toMatchObject({ ...b, state: 'heard', unansweredPackets: 0 });
    await expect.poll(() => said('VM heard again'), PATIENCE).toMatchObject([{ ...b, level: 'info' }]);
    expect(await said('VM silent')).toHaveLength(1);
  });

  test('unreachable: a VM that does not exist', async () => {
    const vm = '192.168.16.99';
    await expect
      .poll(() => after(vm, '10.16.99.1'), PATIENCE)
      .toMatchObject({ vm, state: 'unreachable', unreachable: nobody });
    await expect.poll(() => said('VM unreachable'), PATIENCE).toMatchObject([{ vm, level: 'warn', why: nobody }]);
  });

  test('unreachable: a VM that no route leads to', async () => {
    const vm = '192.168.16.98';
    await vms.ip('a', `route add unreachable ${vm}`);
    await expect
      .poll(() => after(vm, '10.16.98.1'), PATIENCE)
      .toMatchObject({ vm, state: 'unreachable', unreachable: 'host unreachable' });
    await vms.ip('a', `route del unreachable ${vm}`);
  });
});

describe.skipIf(skip('tunnel states, CAP_BPF', await missing('ping', 'setpriv')))('tunnel states', () => {
  test('unknown where the kernel forwards and nothing may count', async () => {
    const vms = await Vms.of('kernel', 'a', 'b');
    try {
      await vms.up('b');
      await vms.upAs(['setpriv', '--bounding-set', '-bpf,-sys_admin', '--inh-caps', '-bpf,-sys_admin'], 'a');
      expect(await vms.pings('a', vms.overlay('b'), 3, '-i', '0.2')).toBe('3');
      const unknown = { vm: vms.underlay('b'), state: 'unknown', unknown: 'CAP_BPF is missing' };
      expect(await vms.tunnels('a')).toMatchObject([unknown]);
      expect((await vms.inlay('a', 'tunnels')).stdout).toMatch(
        / unknown: packets are not counted, because CAP_BPF is missing$/m,
      );
    } finally {
      await vms.close();
    }
  });
});
