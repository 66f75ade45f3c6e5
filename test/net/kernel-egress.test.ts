/** What a container, or somebody else on its VM, may not have the kernel do with packets for other VMs: lead them to another one, or cut them very small. */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh, Vm } from '../../src/demo/mesh.ts';
import { ipv4Around, packetOf, partial, payloadOf } from '../packet.ts';
import { startMesh } from './mesh.ts';
import { PLANES } from './planes.mjs';
import { missing, skip } from './require.ts';
import { PATIENCE, pingWords } from './vms.ts';

const INJECT = fileURLToPath(new URL('inject.mjs', import.meta.url));
const number = (address: string) => address.split('.').reduce((all, part) => all * 256 + Number(part), 0);
const bytesOf = (address: string) => address.split('.').map(Number);

describe.skipIf(skip('kernel egress', await missing('ping', 'tc', 'bridge')))('kernel egress', () => {
  let lab: Lab;
  let mesh: Mesh;
  let a: Vm;
  let from: Container;
  let to: Container;

  beforeAll(async () => {
    lab = await Lab.open();
    mesh = await startMesh(lab, PLANES.kernel);
    a = mesh.vms[0] as Vm;
    [from, to] = mesh.containers as [Container, Container];
    expect(await ping(1)).toBe(1);
  });
  afterAll(() => lab?.close());

  /** How many of so many pings are answered. */
  const ping = async (count: number, address = to.address) => {
    const { stdout } = await lab.run(from.name, pingWords(address, count));
    return Number(/(\d+) received/.exec(stdout)?.[1]);
  };
  const outbound = async () => (await mesh.status(a)).outbound;
  /** Whether the kernel has looked for this VM on the underlay, as it does for whom it sends to. */
  const isSought = async (vm: string) => (await lab.must(a.name, ['ip', 'neighbour', 'show', 'to', vm])) !== '';

  describe.each([
    { name: 'another VM', mac: '02:00:c0:a8:10:28' },
    { name: 'one that is no VM', mac: '02:00:c0:a9:10:21' },
    { name: 'all', mac: 'ff:ff:ff:ff:ff:ff' },
    { name: 'a group', mac: '01:00:5e:00:00:01' },
    { name: 'whoever', mac: '0a:00:c0:a8:10:21' },
  ])('a neighbour leads to $name', ({ mac }) => {
    test('packets are dropped, and counted, until the daemon sees to it', async () => {
      const before = await outbound();
      const { pid } = await mesh.status(a);
      await lab.must(a.name, ['kill', '-STOP', `${pid}`]);
      try {
        await lab.must(a.name, [
          ...['sh', '-ec'],
          `ip neighbour replace 10.16.33.1 lladdr ${mac} dev inlay0 nud permanent
           bridge fdb append ${mac} dev inlay0 dst 192.168.16.40`,
        ]);
        expect(await ping(3)).toBe(0);
      } finally {
        await lab.must(a.name, ['kill', '-CONT', `${pid}`]);
      }
      const diverted = (before.drops['diverted'] ?? 0) + 3;
      expect(await outbound()).toMatchObject({ drops: { ...before.drops, diverted } });
      expect(await isSought('192.168.16.40')).toBe(false);
      await lab.must(a.name, ['bridge', 'fdb', 'del', mac, 'dev', 'inlay0', 'dst', '192.168.16.40']);
      await expect.poll(() => ping(1), PATIENCE).toBe(1);
    });
  });

  test('a route of others leads to another VM', async () => {
    const before = await outbound();
    await lab.ip(a.name, [`route add ${to.address}/32 via 10.16.40.1 dev inlay0 onlink`]);
    expect(await ping(3)).toBe(0);
    const diverted = (before.drops['diverted'] ?? 0) + 3;
    expect(await outbound()).toMatchObject({ drops: { ...before.drops, diverted } });
    expect(await isSought('192.168.16.40')).toBe(false);
    await lab.ip(a.name, [`route del ${to.address}/32`]);
    expect(await ping(3)).toBe(3);
  });

  test('a redirect (RFC 792), made by the container, leads nobody to another VM', async () => {
    const own = { source: number(a.overlay), destination: number(to.address), protocol: 1 };
    const quoted = ipv4Around(own, new Uint8Array(8));
    // From the next hop, as it seems: another one, 10.16.40.1, were better.
    const message = Uint8Array.of(5, 1, 0, 0, ...bytesOf('10.16.40.1'), ...quoted);
    let sum = 0;
    for (let i = 0; i < message.length; i += 2) sum += ((message[i] as number) << 8) | (message[i + 1] as number);
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
    message.set([(~sum >> 8) & 255, ~sum & 255], 2);
    const redirect = ipv4Around({ source: number('10.16.33.1'), destination: number(a.overlay), protocol: 1 }, message);
    const lines = `${Buffer.from(redirect).toString('hex')}\n`.repeat(3);
    expect(await lab.must(from.name, [process.execPath, INJECT, a.overlay], lines)).toBe('3\n');
    await ping(3);
    expect(await isSought('192.168.16.40')).toBe(false);
    // What the kernel has learnt goes with the route.
    await lab.ip(a.name, ['route del 10.16.33.0/24']);
    await expect.poll(() => ping(3), PATIENCE).toBe(3);
  });

  test.each([
    { name: "the underlay's own address", address: '10.0.0.7' },
    { name: "the underlay's broadcast address", address: '10.255.255.7' },
  ])('nobody is at $name, and nothing leaves for it', async ({ address }) => {
    const before = await outbound();
    expect(await ping(3, address)).toBe(0);
    const { packets, drops } = await outbound();
    expect({ packets, drops }).toEqual({ packets: before.packets, drops: before.drops });
  });

  test.each([
    // Linux itself takes no more than 128 segments of UDP (UDP_MAX_SEGMENTS in <linux/udp.h>).
    { protocol: 17, size: 8, isTiny: true },
    { protocol: 17, size: 77, isTiny: true },
    { protocol: 17, size: 500, isTiny: false },
    { protocol: 6, size: 1, isTiny: true },
    { protocol: 6, size: 127, isTiny: true },
    { protocol: 6, size: 500, isTiny: false },
  ] as const)('super-packets of protocol $protocol, to be cut into $size bytes', async ({ protocol, size, isTiny }) => {
    const mac = async (namespace: string, device: string) =>
      (await lab.must(namespace, ['cat', `/sys/class/net/${device}/address`])).trim().split(':');
    const gateway = /lladdr (\S+)/.exec(await lab.must(from.name, ['ip', 'neighbour', 'show']))?.[1]?.split(':') ?? [];
    const packet = partial(
      packetOf({ protocol, source: number(from.address), destination: number(to.address), payload: payloadOf(1000) }),
    );
    const frame = [...gateway, ...(await mac(from.name, 'eth0')), '08', '00', Buffer.from(packet).toString('hex')];
    const before = await outbound();
    const injected = await lab.must(from.name, [process.execPath, INJECT, 'eth0', `${size}`], `${frame.join('')}\n`);
    expect(injected).toBe('1\n');
    const after = await outbound();
    const tiny = before.drops['tiny-segments'] ?? 0;
    expect(after.drops).toEqual(isTiny ? { ...before.drops, 'tiny-segments': tiny + 1 } : before.drops);
    expect(after.packets - before.packets).toBe(isTiny ? 0 : 2);
  });
});
