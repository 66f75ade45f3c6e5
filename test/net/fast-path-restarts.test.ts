/** Daemons are killed, stopped and started under traffic, and the way to other VMs changes: containers do not notice; and what is to go goes. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FastPathVms } from './fast-path/vms.ts';
import { missing, skip } from './require.ts';
import { streamDuring } from './stream.ts';
import { type Daemon, PATIENCE, type Plane, type Pulse } from './vms.ts';

/** ms between numbered datagrams, and between sweeps. */
const [INTERVAL, SWEEP] = [5, 2000];

const needed = await missing('ping', 'tc');
describe.skipIf(skip('fast path, life', needed)).each<{ plane: Plane }>([{ plane: 'wasm' }, { plane: 'wasm-udp' }])(
  'the life of the fast path, $plane',
  ({ plane }) => {
    let vms: FastPathVms;
    const daemons: Record<string, Daemon> = {};
    beforeEach(async () => {
      vms = await FastPathVms.of(plane, 'a', 'b');
      for (const vm of ['a', 'b']) daemons[vm] = await vms.up(vm, '--fast-path', 'on');
      await vms.attachTo('a', 'c1', 'c2');
      await vms.attachTo('b', 'd1');
      await vms.settled('a', 'b');
      await vms.acquainted('c1', 'd1');
      for (const name of ['c2', 'd1']) await vms.serve(name);
    });
    afterEach(() => vms?.close());

    /** Numbered datagrams from c1 to both others, and their answers, while `work` is done. */
    async function during(work: () => Promise<void>): Promise<Pulse[]> {
      const pulses: Pulse[] = [];
      pulses.push(
        await vms.during(
          'c1',
          vms.address('d1'),
          async () => {
            pulses.push(await vms.during('c1', vms.address('c2'), work, { interval: INTERVAL }));
          },
          { interval: INTERVAL },
        ),
      );
      return pulses;
    }

    /**
     * The same, of which none is lost; and a TCP stream between two VMs. Only what a data plane itself sends as GRE-in-UDP, one
     * packet of each sweep, is for that of the other VM: no card verifies its checksum here.
     */
    async function lossless(work: () => Promise<void>): Promise<void> {
      const start = performance.now();
      const pulses = await during(() => streamDuring(vms.lab, 'c1', vms.target('d1'), work));
      const sweeps = plane === 'wasm' ? 0 : Math.ceil((performance.now() - start) / SWEEP);
      for (const { sent, lost } of pulses) {
        expect(sent).toBeGreaterThan(20);
        expect(lost).toEqual(expect.toSatisfy((each: number[]) => each.length <= sweeps));
        expect(lost.filter((each) => lost.includes(each + 1))).toEqual([]);
      }
    }

    const flows = async (vm: string) => {
      const { outbound, inbound } = await vms.taken(vm);
      return outbound + inbound;
    };
    /** Packets that go on being taken. */
    async function goesOn(...names: string[]): Promise<void> {
      for (const vm of names) {
        await vms.settled(vm);
        await expect.poll(async () => (await vms.status(vm)).fastPath, PATIENCE).toMatchObject({ state: 'on' });
        const before = await flows(vm);
        await expect
          .poll(async () => {
            await vms.pings('c1', vms.address('d1'), 3);
            return await flows(vm);
          }, PATIENCE)
          .toBeGreaterThan(before);
      }
    }

    /** Filters, and the disciplines that hold them, of all devices of a VM. */
    const attached = async (vm: string) => {
      const script = `tc qdisc show | grep -E 'clsact|ingress'
        for d in /sys/class/net/*; do tc filter show dev \${d##*/} ingress; tc filter show dev \${d##*/} egress; done; true`;
      return await vms.lab.must(vm, ['sh', '-c', script]);
    };

    test.each(['KILL', 'TERM'])('SIG%s and a new start: nothing is lost', async (signal) => {
      await lossless(async () => {
        await vms.end(signal, daemons['a'] as Daemon);
        await new Promise((resolve) => setTimeout(resolve, 1000));
        daemons['a'] = await vms.up('a', '--fast-path', 'on');
      });
      await goesOn('a', 'b');
      // The programs of the first daemon have gone.
      expect((await attached('a')).match(/inlay/g)?.length).toBe(3);
    });

    test('both daemons are killed, and come back one after the other: nothing is lost', async () => {
      await lossless(async () => {
        for (const vm of ['a', 'b']) await vms.end('KILL', daemons[vm] as Daemon);
        for (const vm of ['b', 'a']) daemons[vm] = await vms.up(vm, '--fast-path', 'on');
      });
      await goesOn('a', 'b');
    });

    test('a start with fast-path off ends it, and with on it is back', async () => {
      await streamDuring(vms.lab, 'c1', vms.target('d1'), async () => {
        for (const setting of ['off', 'on', 'auto']) {
          await vms.end('TERM', daemons['a'] as Daemon);
          daemons['a'] = await vms.up('a', '--fast-path', setting);
          if (setting === 'off') expect(await attached('a')).not.toContain('inlay');
        }
      });
      await goesOn('a', 'b');
    });

    test('down leaves nothing', async () => {
      expect(await attached('a')).toContain('inlay');
      await vms.end('TERM', daemons['a'] as Daemon);
      // What is stopped goes on between containers.
      expect(await attached('a')).toContain('inlay');
      expect(Number(await vms.pings('c1', vms.address('d1'), 3))).toBeGreaterThan(0);
      expect((await vms.inlay('a', 'down')).code).toBe(0);
      expect(await attached('a')).toBe('');
      expect(await vms.pings('c1', vms.address('c2'), 3)).toBe('3');
    });

    test('down behind a killed daemon leaves nothing', async () => {
      await vms.end('KILL', daemons['a'] as Daemon);
      expect((await vms.inlay('a', 'down')).code).toBe(0);
      expect(await attached('a')).toBe('');
    });

    describe('the device to other VMs', () => {
      /** Ends when datagrams between two VMs are answered again. */
      const heals = () => expect.poll(() => vms.pings('c1', vms.address('d1'), 5), PATIENCE).toBe('5');

      test('gets another name: nothing is lost', async () => {
        await lossless(async () => {
          await vms.ip('a', 'link set eth0 name up0');
          await expect.poll(() => attached('a'), PATIENCE).toMatch(/dev up0/);
        });
        await goesOn('a', 'b');
      });

      test('is deleted and made anew', async () => {
        await during(async () => {
          await vms.ip('a', 'link delete eth0');
          await vms.lab.ip(undefined, [
            'link add port-a type veth peer name eth0 netns a',
            'link set port-a master underlay up',
          ]);
          await vms.ip('a', `address add ${vms.underlay('a')}/16 dev eth0`, 'link set eth0 up');
          await heals();
        });
        await goesOn('a', 'b');
      });

      test('is another from now on: the address moves', async () => {
        await vms.lab.ip(undefined, [
          'link add port-a2 type veth peer name eth1 netns a',
          'link set port-a2 master underlay up',
        ]);
        await vms.ip('a', 'link set eth1 up');
        await during(async () => {
          const address = `${vms.underlay('a')}/16`;
          await vms.ip('a', `address delete ${address} dev eth0`, `address add ${address} dev eth1`);
          await vms.lab.must('b', ['ip', 'neighbour', 'flush', 'dev', 'eth0']);
          await heals();
        });
        await goesOn('a', 'b');
        expect(await vms.lab.must('a', ['tc', 'filter', 'show', 'dev', 'eth0', 'ingress'])).not.toContain('inlay');
      });
    });
  },
);
