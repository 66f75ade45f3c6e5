/** The barrier: what it drops is counted by name, and what is honest passes; in both data planes. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { DropName } from '../../src/machine/barrier/rules.ts';
import {
  A,
  B,
  BarrierVms,
  C91,
  C92,
  D91,
  DOCKER,
  gre,
  greUdp,
  HOST,
  icmp,
  ip,
  OTHER,
  OWN_A,
  OWN_B,
  syn,
  udp,
  vxlan,
} from './barrier-vms.ts';
import { missing, skip } from './require.ts';
import { PATIENCE } from './vms.ts';

type Attack = [what: string, where: string | undefined, packet: Uint8Array, drop: DropName, by?: 'b'];

const inner = (from: string, to: string) => udp({ from, to }, 7777);
const FRAGMENT = 0x2000;
const [ECHO, REDIRECT, UNREACHABLE, FRAGMENTATION_NEEDED] = [8, 5, 3, 4];
/** An echo request from VM to VM, which Linux learns a path's MTU from. */
const quoted = ip({ from: A, to: B }, 1, [ECHO, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]);
const tunnel = gre({ from: A, to: B }, inner(C92, D91));

const attacks: Attack[] = [
  ['a tunnel from a VM', 'c91', gre({ from: B, to: A }, inner(D91, C92)), 'forged-outer'],
  ['a tunnel from no VM', 'c91', gre({ from: OTHER, to: A }, inner('10.16.40.7', C92)), 'forged-outer'],
  ['its second fragment', 'c91', ip({ from: B, to: A, flags: 2 }, 47, new Uint8Array(16)), 'forged-outer'],
  ['a fragment that has no port', 'c91', ip({ from: B, to: A, flags: 2 }, 17, new Uint8Array(16)), 'forged-outer'],
  ['a tunnel to another VM', 'c91', gre({ from: OTHER, to: B }, inner('10.16.40.7', D91)), 'forged-outer'],
  ['a tunnel with a source of the world', 'c91', gre({ from: '1.2.3.4', to: B }, inner(C92, D91)), 'forged-outer'],
  ['GRE in UDP from a VM', 'c91', greUdp({ from: B, to: A }, inner(D91, C92)), 'forged-outer'],
  ['GRE in UDP to another address', 'c91', greUdp({ from: B, to: DOCKER }, inner(D91, C92)), 'forged-outer'],
  ['a tunnel with its own source', 'c91', gre({ from: C91, to: B }, inner(C91, D91)), 'forged-outer'],
  ['GRE in UDP with its own source', 'c91', greUdp({ from: C91, to: A }, inner(C91, C92)), 'forged-outer'],
  ['a tunnel by a bridge of others', 'dockers', gre({ from: B, to: A }, inner(D91, C92)), 'forged-outer'],
  ['the source of its neighbour', 'c91', udp({ from: C92, to: D91 }, 7777), 'forged-container'],
  ["the source of another VM's container", 'c91', udp({ from: D91, to: C92 }, 7777), 'forged-container'],
  ['the source of this VM', 'c91', udp({ from: OWN_B, to: D91 }, 7777), 'forged-container'],
  ['plain from the underlay to a container', undefined, udp({ from: HOST, to: C91 }, 7777), 'plain-overlay'],
  ['plain from the underlay to the VM', undefined, udp({ from: HOST, to: OWN_A }, 7777), 'plain-overlay'],
  ['plain with an overlay source', undefined, udp({ from: D91, to: A }, 7777), 'plain-overlay'],
  ['TCP to the VM', 'c91', syn({ from: C91, to: OWN_A }, 22), 'container-access'],
  ['TCP to its underlay address', 'c91', syn({ from: C91, to: A }, 22), 'container-access'],
  ['TCP to another address of it', 'c91', syn({ from: C91, to: DOCKER }, 22), 'container-access'],
  ['UDP to the VM', 'c91', udp({ from: C91, to: OWN_A }, 53), 'container-access'],
  ['TCP to another VM', 'c91', syn({ from: C91, to: B }, 22), 'container-access'],
  ['UDP to a host', 'c91', udp({ from: C91, to: HOST }, 40_000), 'container-access'],
  [
    'ping of the underlay address',
    'c91',
    ip({ from: C91, to: A }, 1, [ECHO, 0, 0xf7, 0xff, 0, 0, 0, 0]),
    'container-access',
  ],
  ['TCP to a VM through its tunnel', 'c91', syn({ from: C91, to: OWN_B }, 22), 'container-access', 'b'],
  ['a redirect', 'c91', icmp({ from: C91, to: OWN_A }, REDIRECT, 1, quoted), 'icmp'],
  [
    'fragmentation needed',
    'c91',
    icmp({ from: C91, to: OWN_A }, UNREACHABLE, FRAGMENTATION_NEEDED, quoted, 552),
    'icmp',
  ],
  [
    'the same to another address',
    'c91',
    icmp({ from: C91, to: DOCKER }, UNREACHABLE, FRAGMENTATION_NEEDED, quoted, 552),
    'icmp',
  ],
  ['the same of a tunnel', 'c91', icmp({ from: C91, to: A }, UNREACHABLE, FRAGMENTATION_NEEDED, tunnel, 552), 'icmp'],
  ['the same, forged', 'c91', icmp({ from: '1.2.3.4', to: A }, UNREACHABLE, FRAGMENTATION_NEEDED, tunnel, 552), 'icmp'],
  ['a forged redirect', 'c91', icmp({ from: '1.2.3.4', to: DOCKER }, REDIRECT, 1, quoted), 'icmp'],
  ['a forged error that is cut', 'c91', icmp({ from: '1.2.3.4', to: A, flags: FRAGMENT }, UNREACHABLE, 1, []), 'icmp'],
  ['host unreachable', 'c91', icmp({ from: C91, to: A }, UNREACHABLE, 1, tunnel), 'icmp'],
  ['the same of a VM, forged', 'c91', icmp({ from: B, to: A }, UNREACHABLE, 1, tunnel), 'icmp'],
  [
    'fragmentation needed through the tunnel',
    'c91',
    icmp({ from: C91, to: OWN_B }, UNREACHABLE, FRAGMENTATION_NEEDED, quoted, 552),
    'icmp',
    'b',
  ],
  ['a redirect through the tunnel', 'c91', icmp({ from: C91, to: OWN_B }, REDIRECT, 1, quoted), 'icmp', 'b'],
];

const ofVxlan: Attack[] = [
  ['VXLAN from a VM', 'c91', vxlan({ from: B, to: A }, inner(D91, C92)), 'forged-outer'],
  ['VXLAN to another VM', 'c91', vxlan({ from: OTHER, to: B }, inner('10.16.40.7', D91)), 'forged-outer'],
  [
    'a fragment of VXLAN that is cut before its number',
    'c91',
    udp({ from: B, to: A, flags: FRAGMENT }, 4789, []),
    'forged-outer',
  ],
];

describe.skipIf(skip('barrier', await missing('ping', 'nft', 'setpriv')))('barrier', () => {
  describe.each(['wasm', 'kernel'] as const)('data plane %s', (plane) => {
    let vms: BarrierVms;

    beforeAll(async () => {
      vms = await BarrierVms.open(plane);
      await vms.up('a');
      await vms.up('b');
    });
    afterAll(() => vms?.close());

    const all = plane === 'kernel' ? [...attacks, ...ofVxlan] : attacks;
    test.each(all)('%s', async (_, where, packet, drop, by: 'a' | 'b' = 'a') => {
      // The host on the underlay sends all by way of VM a.
      const to = where === undefined ? A : undefined;
      expect(await vms.dropsOf(by, () => vms.inject(where, packet, to))).toEqual({ [drop]: 1 });
    });

    test('plain packets from the underlay with forwarding off', async () => {
      await vms.lab.must('a', ['sh', '-c', 'echo 0 >/proc/sys/net/ipv4/conf/eth0/forwarding']);
      const packet = udp({ from: HOST, to: OWN_A }, 7777);
      expect(await vms.dropsOf('a', () => vms.inject(undefined, packet, A))).toEqual({ 'plain-overlay': 1 });
      await vms.lab.must('a', ['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/conf/eth0/forwarding']);
    });

    /** Does what is honest: the one packet that is dropped then is the last. */
    const expectPassed = async (work: () => Promise<void>) => {
      const last = async () => {
        await work();
        await vms.inject('c91', gre({ from: B, to: A }, inner(D91, C92)));
      };
      expect(await vms.dropsOf('a', last)).toEqual({ 'forged-outer': 1 });
    };

    test('containers reach each other, and ping their VM', async () => {
      await expectPassed(async () => {
        for (const to of [C92, D91, OWN_A, OWN_B]) expect(await vms.pings('c91', to, 1)).toBe('1');
        expect(await vms.pings('d91', C91, 1)).toBe('1');
      });
    });

    test('VMs reach each other and containers, in plain and through the tunnel', async () => {
      await expectPassed(async () => {
        expect(await vms.pings('a', B, 1)).toBe('1');
        expect(await vms.pings('a', C91, 1)).toBe('1');
        expect(await vms.pings('a', D91, 1)).toBe('1');
        await vms.serve('c92');
        await vms.serve('b');
        for (const to of [C92, OWN_B]) {
          const { sent, lost } = await vms.during('a', to, async () => {}, { most: 20 });
          expect({ to, sent: sent > 0, lost }).toEqual({ to, sent: true, lost: [] });
        }
        expect(await connect('c92', C92, 'a')).toBe('connected');
        expect(await connect('b', OWN_B, 'a')).toBe('connected');
      });
    });

    test('bridges of others are left alone', async () => {
      await expectPassed(async () => {
        expect(await vms.pings('dockers', A, 1)).toBe('1');
        expect(await vms.pings('dockers', DOCKER, 1)).toBe('1');
        expect(await connect('a', A, 'dockers')).toBe('connected');
      });
    });

    test('fragmentation needed of a VM is believed, unless it is smaller than Linux learns by itself', async () => {
      const needed = (mtu: number) => icmp({ from: OWN_B, to: OWN_A }, UNREACHABLE, FRAGMENTATION_NEEDED, quoted, mtu);
      await expectPassed(() => vms.inject('b', needed(552)));
      expect(await vms.dropsOf('a', () => vms.inject('b', needed(551)))).toEqual({ icmp: 1 });
    });

    if (plane !== 'kernel')
      test('a user without rights sends no GRE in UDP to another VM; root does', async () => {
        const send = `const s = require('dgram').createSocket('udp4'); s.send('x', 4754, '${B}', () => s.close())`;
        const as = (user: number) => async () => {
          const words = ['setpriv', `--reuid=${user}`, '--clear-groups', process.execPath, '-e', send];
          await vms.lab.must('a', words);
        };
        expect(await vms.dropsOf('a', as(65534))).toEqual({ 'local-user': 1 });
        await expectPassed(as(0));
      });

    test('status says what was dropped, and how to list what containers may reach', async () => {
      await vms.inject('c91', syn({ from: C91, to: OWN_A }, 22));
      const remark = async () => (await vms.status('a')).remarks?.find(({ what }) => what.includes('container-access'));
      await expect.poll(remark, PATIENCE).toMatchObject({ hint: expect.stringContaining('--container-access') });
      const { stdout } = await vms.inlay('a', 'status');
      expect(stdout).toMatch(/^barrier +on$/m);
      expect(stdout).toMatch(/dropped \d+ container-access: packets of containers/);
    });

    test('container-access lists what containers may reach', async () => {
      await vms.reset('a');
      await vms.up('a', '--container-access', `vm:53,${B}:54,192.168.66.0/24`);
      const allowed = [
        ...[OWN_A, A, DOCKER].flatMap((to) => [udp({ from: C91, to }, 53), syn({ from: C91, to }, 53)]),
        ...[udp({ from: C91, to: B }, 54), syn({ from: C91, to: HOST }, 22)],
      ];
      await expectPassed(async () => {
        for (const packet of allowed) await vms.inject('c91', packet);
      });
      const others = [
        udp({ from: C91, to: A }, 54),
        syn({ from: C91, to: B }, 53),
        greUdp({ from: C91, to: HOST }, []),
      ];
      const drops = await vms.dropsOf(
        'a',
        async () => {
          for (const packet of others) await vms.inject('c91', packet);
        },
        others.length,
      );
      expect(drops).toEqual({ 'container-access': 2, 'forged-outer': 1 });
    });

    test('container-access all: all but tunnels and ICMP', async () => {
      await vms.reset('a');
      await vms.up('a', '--container-access', 'all');
      await expectPassed(async () => {
        for (const to of [OWN_A, A, B, HOST]) await vms.inject('c91', syn({ from: C91, to }, 22));
        expect(await vms.pings('c91', A, 1)).toBe('1');
      });
      const others = [greUdp({ from: C91, to: B }, []), icmp({ from: C91, to: A }, REDIRECT, 1, quoted)];
      const drops = await vms.dropsOf(
        'a',
        async () => {
          for (const packet of others) await vms.inject('c91', packet);
        },
        others.length,
      );
      expect(drops).toEqual({ 'forged-outer': 1, icmp: 1 });
    });

    /** Whether TCP from `from` to a server in `where` connects. */
    async function connect(where: string, address: string, from: string): Promise<string> {
      const server = vms.lab.start(where, [process.execPath, '-e', SERVER], { stdio: ['pipe', 'pipe', 'inherit'] });
      const ended = new Promise((resolve) => server.once('exit', resolve));
      await new Promise<void>((resolve) => server.stdout?.once('data', () => resolve()));
      try {
        return await vms.lab.must(from, [process.execPath, '-e', CLIENT, address]);
      } finally {
        server.stdin?.end();
        await ended;
      }
    }
  });
});

const SERVER = `
  process.stdin.resume().on('end', () => process.exit());
  require('net').createServer((socket) => socket.on('error', () => {}).end())
    .listen(8080, '0.0.0.0', () => process.stdout.write('ready'));`;
const CLIENT = `
  const socket = require('net').connect(8080, process.argv[1], () => { process.stdout.write('connected'); process.exit(); });
  socket.on('error', ({ code }) => { process.stdout.write(code); process.exit(); });`;
