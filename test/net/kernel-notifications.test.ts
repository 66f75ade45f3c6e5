/** More notifications than a socket holds, and others' changes as fast as they come: the daemon answers all the same. */
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { KernelVms } from './kernel-vms.ts';
import { missing, skip } from './require.ts';
import { PATIENCE } from './vms.ts';

const CHURN = fileURLToPath(new URL('churn.mjs', import.meta.url));
const CHANGES = 300_000;

describe.skipIf(skip('kernel notifications', await missing('ping', 'tc', 'bridge', 'ss')))(
  'kernel notifications',
  () => {
    let vms: KernelVms;
    const others = ['b', 'c', 'd', 'e'];

    beforeAll(async () => {
      vms = await KernelVms.open('a', ...others);
      for (const name of others) await vms.up(name);
      await vms.ip('a', 'link add other0 type veth peer name other1', 'link set other0 up', 'link set other1 up');
    });
    afterEach(() => vms.reset('a'));
    afterAll(() => vms?.close());

    test(`${CHANGES.toLocaleString('en')} changes of others' neighbours, while first packets are sent`, async () => {
      const a = await vms.up('a', '--idle-timeout', '100ms');
      const churn = vms.lab.run('a', [process.execPath, CHURN, 'other0', String(CHANGES)]);
      let isOver = false;
      void churn.then(() => {
        isOver = true;
      });
      let sent = 0;
      let lost = 0;
      // A VM that was idle is forgotten: its next packet is a first one.
      for (let round = 0; round < 40 && !(isOver && round > 1); round++) {
        for (const name of others) {
          const { stdout } = await vms.lab.run('a', ['ping', '-n', '-c', '1', '-W', '10', vms.overlay(name)]);
          sent++;
          if (!stdout.includes('1 received')) lost++;
        }
        await expect.poll(async () => (await vms.status('a')).tunnels, PATIENCE).toBe(0);
      }
      expect(await churn).toMatchObject({ code: 0, stdout: `${CHANGES}\n`, stderr: '' });
      const { neighbours, pid, state } = await vms.status('a');
      process.stderr.write(
        `kernel churn: ${CHANGES} changes, ${sent} first packets, ${lost} lost, ${JSON.stringify(neighbours)}\n`,
      );
      expect({ lost, pid, state }).toEqual({ lost: 0, pid: a.pid, state: 'running' });
      expect(neighbours).toMatchObject({ answered: sent, refused: 0, failed: 0 });
      // Others' devices are no matter of ours: their notifications do not even reach the socket.
      expect(neighbours?.resyncs).toBe(1);
      await vms.expectEntries('a');
    });

    const settings = async () => {
      const script = `ip route show 10.0.0.0/8; ip link show inlay0; cat /proc/sys/net/ipv4/conf/inlay0/forwarding
        for d in inlay0 eth0; do tc filter show dev $d ingress; done`;
      const said = await vms.lab.must('a', ['sh', '-c', script]);
      return said.replace(/ id \d+ name /g, ' ').split('\n');
    };

    test("more of others' changes to our own neighbours than the socket holds: it compares with the kernel, and what waits is answered", async () => {
      const a = await vms.up('a');
      expect(await vms.pings('a', vms.overlay('b'), 1)).toBe('1');
      await vms.kill('STOP', a);
      await vms.lab.must('a', [process.execPath, CHURN, 'inlay0', '60000']);
      // The last requests are lost: these packets wait for up to three seconds, and then three more.
      const waiting = ['c', 'd', 'e'].map((name) =>
        vms.lab.run('a', ['ping', '-n', '-c', '1', '-W', '20', vms.overlay(name)]),
      );
      await expect
        .poll(
          async () =>
            (await vms.lab.must('a', ['ip', 'neighbour', 'show', 'nud', 'incomplete', 'dev', 'inlay0'])).match(
              /10\.16\.3[456]\.1 /g,
            )?.length,
          PATIENCE,
        )
        .toBe(3);
      const dropped = await vms.lab.must('a', ['sh', '-c', `awk '$2 == 0 && $9 > 0' /proc/net/netlink`]);
      expect(dropped).not.toBe('');
      // Nobody tells the daemon of these either.
      const right = await settings();
      await vms.lab.must('a', [
        'sh',
        '-c',
        `ip route del 10.0.0.0/8; ip link set inlay0 mtu 1400
         echo 0 >/proc/sys/net/ipv4/conf/inlay0/forwarding; tc filter del dev inlay0 ingress; tc filter del dev eth0 ingress`,
      ]);
      expect(await settings()).not.toEqual(right);
      await vms.kill('CONT', a);
      for (const { stdout } of await Promise.all(waiting)) expect(stdout).toMatch(/ 1 received/);
      await vms.expectEntries('a', 'b', 'c', 'd', 'e');
      await expect.poll(settings, PATIENCE).toEqual(right);
      const { neighbours, pid } = await vms.status('a');
      process.stderr.write(`kernel overflow: ${JSON.stringify(neighbours)}\n`);
      expect(pid).toBe(a.pid);
      expect(neighbours).toMatchObject({ failed: 0 });
      expect(neighbours?.resyncs).toBeGreaterThan(1);
    });
  },
);
