/** What an operator is told where packets are dropped: NAT that changes outer sources, a firewall of the VM itself. */
import { afterEach, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh, Vm } from '../../src/demo/mesh.ts';
import { startMesh } from './mesh.ts';
import { PLANES } from './planes.mjs';
import { missing, rawSocketMissing, skip } from './require.ts';

const noRawSocket = skip('drops, engine portable', rawSocketMissing());

describe.skipIf(skip('drops', await missing('ping', 'nft')))('drops', () => {
  let lab: Lab;
  let mesh: Mesh;
  afterEach(() => lab?.close());

  const vm = (i: number) => mesh.vms[i] as Vm;
  const container = (i: number) => vm(i).containers[0] as Container;
  const start = async (flags: readonly string[]) => {
    lab = await Lab.open();
    mesh = await startMesh(lab, flags);
  };
  /** A container of the first VM sends some to one of the second. */
  const ping = async () => {
    const { name } = container(0);
    return (await lab.run(name, ['ping', '-n', '-c', '3', '-i', '0.2', '-W', '1', container(1).address])).stdout;
  };
  const rules = (at: Vm, ...lines: string[]) =>
    lab.must(at.name, ['sh', '-c', lines.map((line) => `nft '${line}'`).join(' && ')]);
  /** The line about this reason in the log of a VM. */
  const lineOf = async (at: Vm, reason: string) => {
    const lines = (await mesh.log(at)).split('\n').filter((line) => line.startsWith('{'));
    return lines
      .map((line) => JSON.parse(line))
      .find((line) => line.reason === reason && line.msg === 'packets dropped');
  };

  test.each([
    ['wasm', []],
    ['wasm, gre-udp', ['--encapsulation', 'gre-udp']],
    ['kernel, vxlan', PLANES.kernel],
  ])('%s: NAT gives outer packets another source: the other VM says so', async (_, flags) => {
    await start(flags);
    await lab.must(vm(0).name, ['ip', 'address', 'add', '192.168.16.99/16', 'dev', 'eth0']);
    await rules(
      vm(0),
      'add table ip nat',
      'add chain ip nat out { type nat hook postrouting priority 100; }',
      'add rule ip nat out oifname "eth0" snat to 192.168.16.99',
    );
    expect(await ping()).toContain('0 received');
    await expect
      .poll(() => lineOf(vm(1), 'spoofed-source'), { timeout: 10_000 })
      .toMatchObject({
        ...{ level: 'warn', direction: 'inbound', hint: expect.stringContaining('NAT') },
        ...{ innerSource: container(0).address, innerDestination: container(1).address },
        outerSource: '192.168.16.99',
      });
  });

  test.each([
    ['linux', false],
    ['portable', noRawSocket],
  ])('engine %s: a firewall of the VM itself at OUTPUT', async (engine, skipped) => {
    if (skipped) return;
    await start(['--engine', engine]);
    await rules(
      vm(0),
      'add table ip f',
      'add chain ip f out { type filter hook output priority 0; }',
      'add rule ip f out ip protocol 47 drop',
    );
    expect(await ping()).not.toContain('Unreachable');
    const { outbound, refused } = await mesh.status(vm(0));
    expect(refused).toEqual({ underlay: { EPERM: 3 }, overlay: {} });
    expect(outbound.drops).toMatchObject({ 'not-written': 3 });
    const line = await lineOf(vm(0), 'not-written');
    expect(line).toMatchObject({ errno: 'EPERM', device: 'underlay', outerDestination: vm(1).underlay });
    expect(line.cause).toContain('firewall');
  });
});
