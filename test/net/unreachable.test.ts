/** Who sends to nobody gets an answer: no such index, no such VM, a VM without a daemon; and the tunnel says what is wrong until the VM speaks again. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh, Vm } from '../../src/demo/mesh.ts';
import { CLI, startMesh } from './mesh.ts';
import { missing, rawSocketMissing, skip } from './require.ts';

const noRawSocket = skip('unreachable, engine portable', rawSocketMissing());
const NOBODY = '192.168.16.99';

describe.skipIf(skip('unreachable', await missing('ping')))('unreachable', () => {
  describe.each([
    { name: 'gre', flags: [], code: 'protocol unreachable', skipped: false },
    { name: 'gre-udp', flags: ['--encapsulation', 'gre-udp'], code: 'port unreachable', skipped: false },
    { name: 'gre, core typescript', flags: ['--core', 'typescript'], code: 'protocol unreachable', skipped: false },
    {
      name: 'gre, engine portable',
      flags: ['--engine', 'portable'],
      code: 'protocol unreachable',
      skipped: noRawSocket,
    },
    {
      name: 'gre-udp, engine portable',
      flags: ['--engine', 'portable', '--encapsulation', 'gre-udp'],
      code: 'port unreachable',
      skipped: noRawSocket,
    },
  ])('$name', ({ flags, code, skipped }) => {
    let lab: Lab;
    let mesh: Mesh;
    beforeAll(async () => {
      if (skipped) return;
      lab = await Lab.open();
      mesh = await startMesh(lab, flags);
    });
    afterAll(() => lab?.close());

    const vm = (i: number) => mesh.vms[i] as Vm;
    const container = (i: number) => vm(i).containers[0] as Container;
    const ping = async (to: string, count = 1, from = container(0).name) =>
      (await lab.run(from, ['ping', '-n', '-c', String(count), '-i', '0.3', '-W', '1', to])).stdout;
    const tunnelTo = async (underlay: string) => (await mesh.tunnels(vm(0))).find((tunnel) => tunnel.vm === underlay);

    test.skipIf(skipped).each([
      ['the all-ones address of a slice', '10.16.33.255', 'From 10.16.32.1 '],
      ['a slice itself', '10.16.33.0', 'From 10.16.32.1 '],
      // Those two are the kernel's: it has a route that says so. Its own address towards the container is what it finds.
      ["nobody in one's own slice", '10.16.32.77', ''],
      ["nobody in another's slice", '10.16.33.77', 'From 10.16.33.1 '],
    ])('I5 %s: host unreachable', async (_, to, from) => {
      const answer = await ping(to);
      expect(answer).toContain(`${from}icmp_seq=1 Destination Host Unreachable`);
      expect(answer).toContain('0 received');
    });

    test.skipIf(skipped)('I1 a container does not get an answer to multicast', async () => {
      const before = (await mesh.status(vm(0))).replies;
      expect(await ping('224.1.2.3')).not.toContain('Unreachable');
      expect((await mesh.status(vm(0))).replies).toEqual(before);
    });

    test.skipIf(skipped)('I5 a VM that does not exist: the tunnel says so, and the container is told', async () => {
      const [first, second] = NOBODY.split('.').slice(2);
      let answers = '';
      // The kernel asks for the neighbour three times before it gives up.
      await expect
        .poll(
          async () => {
            answers += await ping(`10.${first}.${second}.7`, 3);
            return answers;
          },
          { timeout: 30_000 },
        )
        .toContain('From 10.16.32.1 icmp_seq=1 Destination Host Unreachable');
      expect(await tunnelTo(NOBODY)).toMatchObject({ unreachable: 'host unreachable' });
      await expect
        .poll(() => mesh.log(vm(0)), { timeout: 10_000 })
        .toContain('"vm":"192.168.16.99","why":"host unreachable","msg":"VM unreachable"');
    });

    test.skipIf(skipped)('I5 no route to a VM: the container is told, and all counters say the same', async () => {
      const sum = async () => {
        const { packets } = (await mesh.status(vm(0))).outbound;
        const tunnels = await mesh.tunnels(vm(0));
        return { packets, tunnels: tunnels.reduce((total, { outbound }) => total + outbound.packets, 0) };
      };
      expect(await ping(container(1).address)).toContain('1 received');
      const before = await mesh.status(vm(0));
      const route = ['192.168.0.0/16', 'dev', 'eth0'];
      await lab.must(vm(0).name, ['ip', 'route', 'del', ...route]);
      // The fast path does without a route for as long as it takes to hear of that.
      await expect.poll(async () => (await mesh.status(vm(0))).fastPath?.state).not.toBe('on');
      try {
        expect(await ping(container(1).address)).toContain('From 10.16.32.1 icmp_seq=1 Destination Host Unreachable');
        expect(await tunnelTo(vm(1).underlay)).toMatchObject({ unreachable: 'network unreachable' });
        await lab.must(vm(0).name, ['ip', 'route', 'add', 'prohibit', '192.168.0.0/16']);
        expect(await ping(container(1).address)).toContain('Destination Host Unreachable');
      } finally {
        await lab.run(vm(0).name, ['ip', 'route', 'del', 'prohibit', '192.168.0.0/16']);
        await lab.must(vm(0).name, ['ip', 'route', 'add', ...route, 'src', vm(0).underlay]);
      }
      const { outbound, refused } = await mesh.status(vm(0));
      expect(outbound.packets).toBe(before.outbound.packets);
      const lost = (outbound.drops['not-written'] ?? 0) - (before.outbound.drops['not-written'] ?? 0);
      expect(lost).toBe(2);
      expect(refused).toMatchObject({ underlay: { ENETUNREACH: 1, EACCES: 1 } });
      const { packets, tunnels } = await sum();
      expect(tunnels).toBe(packets);
      expect(await mesh.log(vm(0))).toMatch(/"errno":"ENETUNREACH".*"cause":"this VM has no route to that VM"/);
      // The next packet that goes out says that all is well again; and so does the tunnel, before anything has come back.
      expect(await ping(container(1).address)).toContain('1 received');
      expect(await tunnelTo(vm(1).underlay)).not.toHaveProperty('unreachable');
    });

    test.skipIf(skipped)('I5 a VM whose daemon is gone, and is back again', async () => {
      const { pid } = await mesh.status(vm(1));
      expect(await ping(container(1).address)).toContain('1 received');
      expect(await tunnelTo(vm(1).underlay)).not.toHaveProperty('unreachable');

      await lab.must(undefined, ['kill', String(pid)]);
      await expect.poll(() => mesh.status(vm(1)).catch(() => 'gone'), { timeout: 20_000 }).toBe('gone');
      // Else the fast path goes on for a while.
      await lab.must(vm(1).name, [process.execPath, CLI, 'down', '--run-dir', vm(1).runDir]);
      await expect
        .poll(() => ping(container(1).address, 3), { timeout: 20_000 })
        .toContain('Destination Host Unreachable');
      // What was heard on the fast path of late counts for more.
      await expect.poll(() => tunnelTo(vm(1).underlay)).toMatchObject({ unreachable: code });

      await mesh.startDaemon(vm(1));
      expect(await ping(container(1).address, 3)).toContain('3 received');
      expect(await tunnelTo(vm(1).underlay)).not.toHaveProperty('unreachable');
    });
  });
});
