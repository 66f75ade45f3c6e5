/** Large packets meet narrow paths: TCP streams complete, containers are told, and `tunnels` shows what each path takes. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh, Vm } from '../../src/demo/mesh.ts';
import { startMesh } from './mesh.ts';
import { missing, rawSocketMissing, skip } from './require.ts';
import { stream } from './stream.ts';

const BYTES = 10_000_000;

interface Kind {
  name: string;
  flags: string[];
  overhead: number;
  overlay?: string;
  skipped?: boolean;
  /** Another than the core tells containers what fits. */
  byKernel?: boolean;
  /** So few have it that a wide path need not be tried. */
  uncommon?: boolean;
}

const noRawSocket = skip('path MTU, engine portable', rawSocketMissing());

describe.skipIf(skip('path MTU', await missing('ping', 'tc', 'nft')))('path MTU', () => {
  let lab: Lab;
  let mesh: Mesh;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  const vm = (i: number) => mesh.vms[i] as Vm;
  const container = (i: number) => vm(i).containers[0] as Container;

  /** Makes a router of the bridge between the VMs; each VM finds it by proxy ARP. */
  async function routeUnderlay(): Promise<void> {
    await lab.ip(undefined, [
      'address add 192.168.66.6/32 dev lo',
      ...mesh.vms.map(({ name }) => `link set port-${name} nomaster`),
      ...mesh.vms.map(({ name, underlay }) => `route add ${underlay}/32 dev port-${name}`),
    ]);
    const ports = mesh.vms.map(({ name }) => `port-${name}`).join(' ');
    const script = `for port in ${ports}; do for key in forwarding proxy_arp; do echo 1 >/proc/sys/net/ipv4/conf/$port/$key; done; echo 0 >/proc/sys/net/ipv4/neigh/$port/proxy_delay; done
      echo 0 >/proc/sys/net/ipv4/icmp_ratelimit`;
    await lab.must(undefined, ['sh', '-c', script]);
    for (const { name } of mesh.vms) await lab.ip(name, ['neigh flush dev eth0']);
  }

  /** What the router lets through to either VM from now on. */
  const narrow = (mtu: number) =>
    lab.ip(
      undefined,
      mesh.vms.map(({ name, underlay }) => `route replace ${underlay}/32 dev port-${name} mtu ${mtu}`),
    );

  /** One TCP connection between the containers of both VMs. */
  const transfer = (during?: () => Promise<void>, timeout?: number) =>
    stream(lab, container(0).name, container(1), BYTES, during, timeout);

  const mtuOfTunnel = async (from: number) => (await mesh.tunnels(vm(from)))[0]?.mtu;

  const kinds: Kind[] = [
    { name: 'gre', flags: [], overhead: 24 },
    { name: 'gre, cut by the core', flags: ['--gre-segmentation', 'core'], overhead: 24, uncommon: true },
    { name: 'gre, core typescript', flags: ['--core', 'typescript'], overhead: 24, uncommon: true },
    { name: 'gre with key and checksum', flags: ['--key', '7', '--gre-checksum', 'on'], overhead: 32 },
    { name: 'gre with sequence numbers', flags: ['--gre-sequence', 'on'], overhead: 28, uncommon: true },
    { name: 'gre-udp', flags: ['--encapsulation', 'gre-udp'], overhead: 32 },
    { name: 'gre, overlay 240.0.0.0/4', flags: [], overhead: 24, overlay: '240.0.0.0/4' },
    {
      name: 'gre-udp, overlay 240.0.0.0/4',
      flags: ['--encapsulation', 'gre-udp'],
      overhead: 32,
      overlay: '240.0.0.0/4',
    },
    { name: 'gre, engine portable', flags: ['--engine', 'portable'], overhead: 24, skipped: noRawSocket },
    {
      name: 'gre-udp, engine portable',
      flags: ['--engine', 'portable', '--encapsulation', 'gre-udp'],
      overhead: 32,
      skipped: noRawSocket,
    },
    {
      name: 'kernel, vxlan',
      flags: ['--dataplane', 'kernel', '--encapsulation', 'vxlan'],
      overhead: 50,
      byKernel: true,
      uncommon: true,
    },
  ];

  test('M4 without path MTU discovery the router cuts outer packets, and the other end puts them together', async () => {
    mesh = await startMesh(lab, ['--path-mtu-discovery', 'off']);
    await routeUnderlay();
    await narrow(1300);
    await transfer();
    expect([await mtuOfTunnel(0), await mtuOfTunnel(1)]).toEqual([1476, 1476]);
    const [names, values] = (await lab.must(undefined, ['grep', '^Ip:', '/proc/net/snmp'])).split('\n');
    expect(Number(values?.split(' ')[names?.split(' ').indexOf('FragCreates') ?? 0])).toBeGreaterThan(0);
  });

  test('M1 what lies under the underlay can be said', async () => {
    mesh = await startMesh(lab, ['--underlay-mtu', '1466']);
    expect((await mesh.status(vm(0))).mtu).toBe(1442);
    expect(await lab.must(vm(0).name, ['cat', '/sys/class/net/inlay0/mtu'])).toBe('1442\n');
  });

  test.each([[[]], [['--gre-segmentation', 'core']], [['--encapsulation', 'gre-udp']]])(
    "M6 the underlay's own MTU is lowered while the daemons run: %j",
    async (flags) => {
      mesh = await startMesh(lab, flags);
      for (const { name } of mesh.vms) await lab.ip(name, ['link set eth0 mtu 1300']);
      await transfer();
      const overhead = flags.includes('gre-udp') ? 32 : 24;
      expect([await mtuOfTunnel(0), await mtuOfTunnel(1)]).toEqual([1300 - overhead, 1300 - overhead]);
    },
  );

  test('M2 a VM itself is told what fits, too', async () => {
    mesh = await startMesh(lab, []);
    await routeUnderlay();
    await narrow(1300);
    const ping = async () =>
      (
        await lab.run(vm(0).name, [
          'ping',
          '-n',
          '-c',
          '2',
          '-i',
          '0.2',
          '-W',
          '1',
          '-M',
          'do',
          '-s',
          '1400',
          container(1).address,
        ])
      ).stdout;
    expect(await ping()).toContain('mtu = 1276');
    expect(await mtuOfTunnel(0)).toBe(1276);
  });

  describe('M7 containers with too large an MTU, where ICMP gets lost', () => {
    /** As when an MTU was forgotten, and a firewall means well. */
    async function spoil(flags: string[]): Promise<void> {
      mesh = await startMesh(lab, flags);
      for (const { name, containers } of mesh.vms) {
        await lab.ip(
          name,
          containers.map((c) => `link set ${c.hostInterface} mtu 1500`),
        );
        const rules =
          'table ip lost { chain output { type filter hook output priority 0; icmp type destination-unreachable drop; }; }';
        await lab.must(name, ['nft', rules]);
      }
      for (const { name } of mesh.containers) await lab.ip(name, ['link set eth0 mtu 1500']);
    }

    test('without clamping a stream stalls', async () => {
      await spoil([]);
      await expect(transfer(undefined, 4)).rejects.toThrow();
    });

    test('with --clamp-mss on it completes', async () => {
      await spoil(['--clamp-mss', 'on']);
      await transfer();
    });
  });

  describe.each(kinds)('$name', ({ flags, overhead, overlay = '10.0.0.0/8', skipped = false, ...kind }) => {
    test.skipIf(skipped).each(kind.uncommon ? [] : [1500, 1400])(
      'M1 a stream completes over an underlay with MTU %i',
      async (mtu) => {
        mesh = await startMesh(lab, flags, { overlay, mtu });
        expect((await mesh.status(vm(0))).mtu).toBe(mtu - overhead);
        await transfer();
        expect(await mtuOfTunnel(0)).toBe(mtu - overhead);
      },
    );

    test.skipIf(skipped)('M2, M6 a stream completes through a router with MTU 1300', async () => {
      mesh = await startMesh(lab, flags, { overlay });
      await routeUnderlay();
      await narrow(1300);
      await transfer();
      expect([await mtuOfTunnel(0), await mtuOfTunnel(1)]).toEqual([1300 - overhead, 1300 - overhead]);
      if (kind.byKernel) return;
      const { replies, icmp } = await mesh.status(vm(0));
      expect(replies?.sent).toBeGreaterThan(0);
      expect(icmp?.packets).toBeGreaterThan(0);
    });

    test.skipIf(skipped)('M6 a stream completes through a path that becomes narrower under it', async () => {
      mesh = await startMesh(lab, flags, { overlay });
      await routeUnderlay();
      // Slow enough for the change to come in between.
      for (const { name } of mesh.vms) {
        const rate = `qdisc add dev port-${name} root tbf rate 60mbit burst 64kb latency 100ms`;
        await lab.must(undefined, ['tc', ...rate.split(' ')]);
      }
      await transfer(async () => {
        const sent = async () => (await mesh.status(vm(0))).outbound.bytes;
        await expect.poll(sent, { timeout: 20_000, interval: 20 }).toBeGreaterThan(BYTES / 20);
        expect(await mtuOfTunnel(0)).toBe(1500 - overhead);
        await narrow(1280);
        expect(await sent()).toBeLessThan(BYTES);
      });
      expect([await mtuOfTunnel(0), await mtuOfTunnel(1)]).toEqual([1280 - overhead, 1280 - overhead]);
    });
  });
});
