/** The fast path on one VM, and on the other another way to do the same: neither notices. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { expectExact, FastPathVms } from './fast-path/vms.ts';
import { missing, rawSocketMissing, skip } from './require.ts';
import { stream } from './stream.ts';

const BYTES = 5_000_000;
const UDP = ['--encapsulation', 'gre-udp'];
const GRE = ['--encapsulation', 'gre'];
const ON = ['--fast-path', 'on'];
const OFF = ['--fast-path', 'off'];
const PORTABLE = ['--engine', 'portable'];

interface Mix {
  name: string;
  a: string[];
  b: string[];
  mtu: number;
}

const mixes: Mix[] = [
  { name: 'gre, off', a: [...GRE, ...ON], b: [...GRE, ...OFF], mtu: 1476 },
  { name: 'gre-udp, off', a: [...UDP, ...ON], b: [...UDP, ...OFF], mtu: 1468 },
  { name: 'gre, engine portable', a: [...GRE, ...ON], b: [...GRE, ...PORTABLE, ...OFF], mtu: 1476 },
  { name: 'gre-udp, engine portable', a: [...UDP, ...ON], b: [...UDP, ...PORTABLE, ...OFF], mtu: 1468 },
  { name: 'core typescript', a: [...GRE, ...ON], b: [...GRE, ...OFF, '--core', 'typescript'], mtu: 1476 },
  { name: 'engine portable with the fast path', a: [...GRE, ...ON], b: [...GRE, ...PORTABLE, ...ON], mtu: 1476 },
  { name: 'both on, gre and gre-udp', a: [...GRE, ...ON], b: [...UDP, ...ON], mtu: 1476 },
  {
    name: 'gre-udp, cut by the core',
    a: [...UDP, ...ON],
    b: [...GRE, ...OFF, '--gre-segmentation', 'core'],
    mtu: 1468,
  },
  { name: 'a key', a: [...GRE, ...ON, '--key', '7'], b: [...GRE, ...OFF, '--key', '7'], mtu: 1472 },
  { name: 'a key, gre-udp', a: [...UDP, ...ON, '--key', '7'], b: [...UDP, ...OFF, '--key', '7'], mtu: 1464 },
  { name: 'ttl inherit, ecn off', a: [...GRE, ...ON, '--ttl', 'inherit'], b: [...GRE, ...OFF], mtu: 1476 },
];
const noRawSocket = skip('fast path beside engine portable', rawSocketMissing());

describe.skipIf(skip('fast path, mixed', await missing('ping')))('a mixed mesh', () => {
  let vms: FastPathVms;
  beforeEach(async () => {
    vms = await FastPathVms.of('wasm', 'a', 'b');
  });
  afterEach(() => vms?.close());

  for (const { name, a, b, mtu } of mixes) {
    test.skipIf(noRawSocket && b.includes('portable'))(`the fast path, and ${name}`, async () => {
      await vms.up('a', ...a);
      await vms.up('b', ...b);
      await vms.attachTo('a', 'c1', 'c2');
      await vms.attachTo('b', 'd1');
      await vms.settled('a', 'b');
      await vms.acquainted('c1', 'd1');
      await vms.acquainted('d1', 'c2');
      await stream(vms.lab, 'c1', vms.target('d1'), BYTES);
      await stream(vms.lab, 'd1', vms.target('c2'), BYTES);
      await vms.serve('d1');
      const { sent, lost } = await vms.during('c2', vms.address('d1'), () => wait(200), { interval: 1 });
      expect(sent).toBeGreaterThan(20);
      expect(lost).toEqual([]);
      const tooLong = ['-M', 'do', '-s', String(mtu - 28 + 1)];
      await vms.ip('a', `link set ${vms.attached('c1').hostInterface} mtu 1500`);
      await vms.lab.ip('c1', ['link set eth0 mtu 1500']);
      const { stdout } = await vms.lab.run('c1', ['ping', '-n', '-c', '1', '-W', '5', ...tooLong, vms.address('d1')]);
      expect(stdout).toContain(`From ${vms.overlay('a')} icmp_seq=1 Frag needed and DF set (mtu = ${mtu})`);
      const unverified = b.includes('gre-udp') && b.includes('off');
      for (const [vm, flags] of Object.entries({ a, b })) {
        const status = await vms.status(vm);
        expectExact(status);
        expect(status.inbound.drops).toEqual({});
        const { outbound, inbound } = await vms.taken(vm);
        const isOn = !flags.includes('off');
        // A checksum that only the kernel has promised, and which is not made until a card sends it, is the data plane's.
        const takes = isOn && !(unverified && vm === 'a');
        expect({ outbound: outbound > 100, inbound: inbound > 100 }).toEqual({ outbound: isOn, inbound: takes });
      }
    });
  }
});

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));
