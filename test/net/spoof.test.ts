/** A million packets that claim to be what they are not, and loops made on purpose: nothing is delivered, nothing is emitted, nothing goes round. */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh, Vm } from '../../src/demo/mesh.ts';
import { ipv4Packet, sum } from '../packet.ts';
import { startMesh } from './mesh.ts';
import { missing, skip } from './require.ts';
import { pingWords } from './vms.ts';

const INJECT = fileURLToPath(new URL('inject.mjs', import.meta.url));
const FLOOD = fileURLToPath(new URL('flood.mjs', import.meta.url));
const COUNT = 1_000_000;
const SEED = 20200510;

/** The inner packet in GRE-in-UDP from the other VM to the victim; with a UDP checksum, and `spoil` added to that, or without. */
function greInUdp(inner: Uint8Array, spoil: number | undefined): Uint8Array {
  const packet = new Uint8Array(32 + inner.length);
  const view = new DataView(packet.buffer);
  packet.set(ipv4Packet(0xc0a81021, 0xc0a81020, packet.length - 28).subarray(0, 20));
  view.setUint16(20, 50000);
  view.setUint16(22, 4754);
  view.setUint16(24, packet.length - 20);
  view.setUint16(26, 0);
  view.setUint32(28, 0x0800);
  packet.set(inner, 32);
  const pseudo = sum(Uint8Array.from([...packet.subarray(12, 20), 0, 17, ...packet.subarray(24, 26)]));
  if (spoil !== undefined) view.setUint16(26, (~sum(packet.subarray(20), pseudo) & 0xffff) ^ spoil);
  return packet;
}

describe.skipIf(skip('spoof', await missing('ping', 'nstat')))('spoof', () => {
  let lab: Lab;
  let mesh: Mesh;
  beforeAll(async () => {
    lab = await Lab.open();
    mesh = await startMesh(lab, []);
    // The attacker: the bridge's own port on the underlay, which is no VM. The kernel's own filters are out of its way.
    const [address] = JSON.parse(await lab.must(victim().name, ['ip', '-j', 'link', 'show', 'eth0']));
    await lab.ip(undefined, [
      'address add 192.168.66.6/16 dev underlay',
      `neigh replace ${victim().underlay} lladdr ${address.address} dev underlay nud permanent`,
    ]);
    const quiet = `for f in all eth0; do echo 0 >/proc/sys/net/ipv4/conf/$f/rp_filter; done
      [ ! -e /proc/net/if_inet6 ] || echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6`;
    for (const { name } of [victim(), container(0)]) await lab.must(name, ['sh', '-c', quiet]);
  });
  afterAll(() => lab?.close());

  const victim = () => mesh.vms[0] as Vm;
  const container = (i: number) => mesh.vms[i]?.containers[0] as Container;
  const counter = async (where: string, device: string, name: string) =>
    Number(await lab.must(where, ['cat', `/sys/class/net/${device}/statistics/${name}`]));
  const ping = async (to: string, count: number) => (await lab.run(container(1).name, pingWords(to, count))).stdout;
  const received = async () => (await mesh.status(victim())).outbound.received;

  test(`S1, S2, S3, S4, S7, G9 ${COUNT.toLocaleString('en')} spoofed packets: none delivered, none emitted`, {
    timeout: 300_000,
  }, async () => {
    const traffic = () =>
      Promise.all([
        counter(victim().name, 'eth0', 'tx_packets'),
        counter(victim().name, 'inlay0', 'rx_packets'),
        counter(victim().name, 'inlay0', 'tx_packets'),
        counter(container(0).name, 'eth0', 'rx_packets'),
      ]);
    const before = await mesh.status(victim());
    const trafficBefore = await traffic();
    const words = [
      process.execPath,
      FLOOD,
      victim().underlay,
      `${victim().runDir}/control.sock`,
      String(COUNT),
      String(SEED),
    ];
    const expected: Record<string, number> = JSON.parse(await lab.must(undefined, words));
    expect(Object.values(expected).reduce((a, b) => a + b, 0)).toBe(COUNT);
    const { inbound, tunnels, outbound } = await mesh.status(victim());
    // How many came in the last minute is not what this is about.
    const { recentDrops: _, ...counted } = inbound;
    const { recentDrops: __, ...counts } = before.inbound;
    expect(counted).toEqual({ ...counts, received: counts.received + COUNT, drops: expected });
    expect({ tunnels, outbound }).toEqual({ tunnels: before.tunnels, outbound: before.outbound });
    expect(await traffic()).toEqual(trafficBefore);
  });

  test.each([
    { name: 'right', spoil: 0, delivered: 1 },
    { name: 'none', delivered: 1 },
    { name: 'wrong', spoil: 1, delivered: 0 },
  ])('U3 a datagram whose UDP checksum is $name', async ({ spoil, delivered }) => {
    const inner = ipv4Packet(0x0a102107, 0x0a10205b, 8);
    const packet = greInUdp(inner, spoil);
    const errors = async () =>
      Number((await lab.must(victim().name, ['nstat', '-asz', 'UdpInCsumErrors'])).split(/\s+/).at(-3));
    const [before, errorsBefore] = [(await mesh.status(victim())).inbound, await errors()];
    const words = [process.execPath, INJECT, victim().underlay];
    expect(await lab.must(undefined, words, Buffer.from(packet).toString('hex'))).toBe('1\n');
    if (delivered === 0) await expect.poll(errors).toBe(errorsBefore + 1);
    await expect.poll(async () => (await mesh.status(victim())).inbound.packets).toBe(before.packets + delivered);
    expect((await mesh.status(victim())).inbound.drops).toEqual(before.drops);
  });

  test('the mesh works afterwards', async () => {
    expect(await ping(container(0).address, 3)).toContain('3 received');
  });

  test('G9 a route that leads packets for nobody in our slice back to us: each is dropped at once', async () => {
    await lab.ip(victim().name, ['route add 10.16.32.77/32 dev inlay0']);
    const before = await received();
    expect(await ping('10.16.32.77', 5)).toContain('0 received');
    const { outbound } = await mesh.status(victim());
    expect(outbound.drops).toEqual({ 'foreign-source': 5 });
    // The kernel would redirect the sender to a better way, up to once a packet.
    expect(outbound.received - before).toBeLessThanOrEqual(10);
    await lab.ip(victim().name, ['route del 10.16.32.77/32 dev inlay0']);
  });

  test('S6, G9 a route that leads the underlay into the overlay: what we send comes back once, and is dropped', async () => {
    const before = (await mesh.status(victim())).outbound.drops['foreign-source'] ?? 0;
    await lab.ip(victim().name, ['route add 192.168.16.33/32 dev inlay0']);
    // The fast path answers by the way it knows until the daemon has heard of the route.
    await expect.poll(async () => (await mesh.status(victim())).fastPath?.state).toBe('off');
    expect(await ping(container(0).address, 5)).toContain('0 received'); // Their requests arrive, our answers do not get out.
    const dropped = ((await mesh.status(victim())).outbound.drops['foreign-source'] ?? 0) - before;
    expect(dropped).toBeGreaterThanOrEqual(5);
    // A few are the kernel's own, such as ICMP.
    expect(dropped).toBeLessThan(20);
    await lab.ip(victim().name, ['route del 192.168.16.33/32 dev inlay0']);
    expect(await ping(container(0).address, 3)).toContain('3 received');
  });
});
