/** The underlay's MTU changes while the daemons run, down and up again: everything follows, in every data plane. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh, Vm } from '../../src/demo/mesh.ts';
import { startMesh } from './mesh.ts';
import { missing, rawSocketMissing, skip } from './require.ts';
import { stream } from './stream.ts';
import { PATIENCE } from './vms.ts';

const BYTES = 2_000_000;
const [JUMBO, USUAL] = [9000, 1500];
/** IPv4 and ICMP headers. */
const PING = 28;

const noRawSocket = skip('underlay MTU, engine portable', rawSocketMissing());
const planes: { name: string; flags: string[]; overhead: number; skipped?: boolean; thorough?: boolean }[] = [
  { name: 'gre', flags: [], overhead: 24, thorough: true },
  { name: 'gre, cut by the core', flags: ['--gre-segmentation', 'core'], overhead: 24 },
  { name: 'gre-udp', flags: ['--encapsulation', 'gre-udp'], overhead: 32 },
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
    thorough: true,
  },
];

describe.skipIf(skip('underlay MTU', await missing('ping')))('the underlay has another MTU', () => {
  let lab: Lab;
  let mesh: Mesh;
  beforeEach(async () => {
    lab = await Lab.open();
  });
  afterEach(() => lab.close());

  const vm = (i: number) => mesh.vms[i] as Vm;
  const container = (i: number) => vm(i).containers[0] as Container;

  /** The way in which a VM gets another MTU. */
  const changes: Record<string, (name: string, mtu: number) => Promise<void>> = {
    'its device': (name, mtu) => lab.ip(name, [`link set eth0 mtu ${mtu}`]),
    'its route': async (name, mtu) => {
      const metric = mtu === JUMBO ? '' : `mtu ${mtu}`;
      const { underlay } = mesh.vms.find((each) => each.name === name) as Vm;
      await lab.ip(name, [`route replace 192.168.0.0/16 dev eth0 proto kernel scope link src ${underlay} ${metric}`]);
    },
    'another device': async (name, mtu) => {
      const { underlay } = mesh.vms.find((each) => each.name === name) as Vm;
      await lab.ip(name, ['link del eth0']);
      await lab.ip(undefined, [
        `link add port-${name} mtu ${JUMBO} type veth peer name eth0 netns ${name}`,
        `link set port-${name} master ${await bridge()} up`,
      ]);
      await lab.ip(name, [`link set eth0 mtu ${mtu} up`, `address add ${underlay}/16 dev eth0`]);
    },
  };
  const bridge = async () =>
    JSON.parse(await lab.must(undefined, ['ip', '-j', 'link', 'show', 'type', 'bridge']))[0].ifname as string;

  async function expectMtu(mtu: number): Promise<void> {
    for (const each of mesh.vms) {
      const found = async () => [
        (await mesh.status(each)).mtu,
        Number(await lab.must(each.name, ['cat', '/sys/class/net/inlay0/mtu'])),
        JSON.parse(await lab.must(each.name, ['cat', `${each.runDir}/mesh.json`])).mtu,
        ...(await mesh.tunnels(each)).map((tunnel) => tunnel.mtu),
      ];
      await expect.poll(found, PATIENCE).toEqual([mtu, mtu, mtu, mtu]);
    }
    await stream(lab, container(0).name, container(1), BYTES);
    // What containers have learnt ages by itself; a new probe finds the new way at once.
    await lab.ip(container(0).name, ['route flush cache']);
    const probe = async (bytes: number) => {
      const words = ['-n', '-c', '2', '-i', '0.2', '-W', '2', '-M', 'do', '-s', String(bytes - PING)];
      return (await lab.run(container(0).name, ['ping', ...words, container(1).address])).stdout;
    };
    await expect.poll(() => probe(mtu), PATIENCE).toContain(' 0% packet loss');
    if (mtu < JUMBO - 100) expect(await probe(mtu + 1)).toContain(`mtu = ${mtu}`);
  }

  describe.each(planes)('$name', ({ flags, overhead, skipped = false, thorough = false }) => {
    test.skipIf(skipped)('smaller and larger again', async () => {
      mesh = await startMesh(lab, flags, { mtu: JUMBO });
      for (const { name, containers } of mesh.vms) {
        await lab.ip(
          name,
          containers.map((each) => `link set ${each.hostInterface} mtu ${JUMBO}`),
        );
      }
      await stream(lab, container(0).name, container(1), BYTES);
      await expectMtu(JUMBO - overhead);
      for (const change of thorough ? Object.values(changes) : Object.values(changes).slice(0, 1)) {
        for (const mtu of [USUAL, JUMBO]) {
          for (const { name } of mesh.vms) await change(name, mtu);
          await expectMtu(mtu - overhead);
        }
      }
    });
  });
});
