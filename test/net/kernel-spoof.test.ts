/** Packets that claim to be what they are not, and addresses that nobody can have: the kernel drops them, and they are counted by reason. */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import type { Container, Mesh, Vm } from '../../src/demo/mesh.ts';
import { ipv4Around, packetAround } from '../packet.ts';
import { startMesh } from './mesh.ts';
import { PLANES } from './planes.mjs';
import { missing, skip } from './require.ts';
import { PATIENCE, pingWords } from './vms.ts';

const INJECT = fileURLToPath(new URL('inject.mjs', import.meta.url));
const LISTEN = `
  const socket = require('node:dgram').createSocket('udp4');
  socket.on('message', (message, from) => process.stdout.write(from.address + '\\n'));
  socket.bind(9, () => process.stdout.write('ready\\n'));`;
const number = (address: string) => address.split('.').reduce((all, part) => all * 256 + Number(part), 0);

/** A VXLAN packet (RFC 7348 §5) around an IPv4 packet; the UDP checksum is 0. */
function vxlan(
  outer: { source: string; destination: string },
  inner: Uint8Array,
  { mac = '02:00:c0:a8:10:20', type = 0x0800, vni = 1 } = {},
) {
  const ethernet = [
    ...mac.split(':').map((byte) => Number.parseInt(byte, 16)),
    2,
    0,
    0,
    0,
    0,
    1,
    type >> 8,
    type & 255,
  ];
  const payload = [0x08, 0, 0, 0, vni >> 16, (vni >> 8) & 255, vni & 255, 0, ...ethernet, ...inner];
  const length = 8 + payload.length;
  const udp = [0xc3, 0x50, 4789 >> 8, 4789 & 255, length >> 8, length & 255, 0, 0, ...payload];
  return ipv4Around({ source: number(outer.source), destination: number(outer.destination), protocol: 17 }, udp);
}

describe.skipIf(skip('kernel spoof', await missing('ping', 'tc', 'bridge', 'nft')))('kernel spoof', () => {
  let lab: Lab;
  let mesh: Mesh;
  let a: Vm;
  let b: Vm;
  let victim: Container;
  let other: Container;
  /** Sources of the datagrams that the victim got. */
  let got = '';

  beforeAll(async () => {
    lab = await Lab.open();
    mesh = await startMesh(lab, PLANES.kernel);
    [a, b] = mesh.vms as [Vm, Vm];
    [victim, other] = mesh.containers as [Container, Container];
    // Only our own check is in the way, and nobody but us sends.
    const quiet = `for d in /proc/sys/net/ipv4/conf/*; do echo 0 >$d/rp_filter; echo 1 >$d/accept_local; done
      echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6`;
    // To a device with an address the guard leaves its rp_filter.
    await lab.ip(a.name, [`address add 198.51.100.1/32 dev ${victim.hostInterface}`]);
    for (const { name } of [a, victim]) await lab.must(name, ['sh', '-c', quiet]);
    const listener = lab.start(victim.name, [process.execPath, '-e', LISTEN], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise<void>((resolve) => {
      listener.stdout?.on('data', (chunk) => {
        got += chunk;
        resolve();
      });
    });
  });
  afterAll(() => lab?.close());

  /** UDP from one overlay address to another, port 9. */
  const datagram = (source: string, destination: string) =>
    packetAround(
      { source: number(source), destination: number(destination) },
      [0xc0, 0, 0, 9, 0, 12, 0, 0, 1, 2, 3, 4],
    );
  const inject = async (where: string, packet: Uint8Array, times = 3) => {
    const lines = `${Buffer.from(packet).toString('hex')}\n`.repeat(times);
    expect(await lab.must(where, [process.execPath, INJECT, a.underlay], lines)).toBe(`${times}\n`);
  };
  const barrier = async (drop: 'forged-outer' | 'forged-container') => (await mesh.status(a)).barrier?.drops[drop] ?? 0;
  const inbound = async () => (await mesh.status(a)).inbound;
  const fromB = () => ({ source: b.underlay, destination: a.underlay });

  /** Injects spoofed packets, and then one that is good: when that has come, nothing else has. */
  async function expectDropped(where: string, packet: Uint8Array, reason: string): Promise<void> {
    got = '';
    const before = await inbound();
    await inject(where, packet);
    await expect.poll(async () => (await inbound()).drops[reason] ?? 0, PATIENCE).toBe((before.drops[reason] ?? 0) + 3);
    await inject(b.name, vxlan(fromB(), datagram(other.address, victim.address)), 1);
    await expect.poll(() => got, PATIENCE).toBe(`${other.address}\n`);
    const after = await inbound();
    expect(after.drops).toEqual({ ...before.drops, [reason]: (before.drops[reason] ?? 0) + 3 });
    expect(after.packets).toBe(before.packets + 1);
    expect(after.received).toBe(before.received + 4);
  }

  test('what is true is delivered', async () => {
    got = '';
    await inject(b.name, vxlan(fromB(), datagram(other.address, victim.address)));
    await expect.poll(() => got, PATIENCE).toBe(`${other.address}\n`.repeat(3));
    expect(await inbound()).toMatchObject({ packets: 3, received: 3, drops: {} });
  });

  test.each([
    ["a third VM's container", '10.16.34.91'],
    ["the victim's own VM", '10.16.32.1'],
    ["the victim's own slice", '10.16.32.7'],
    ['an address outside the overlay', '8.8.8.8'],
    ['an address of the underlay', '192.168.16.33'],
  ])('S1 inner source: %s', async (_, source) => {
    await expectDropped(b.name, vxlan(fromB(), datagram(source, victim.address)), 'spoofed-source');
  });

  test.each([
    ['another VM', '10.16.33.91'],
    ['an address outside the overlay', '8.8.8.8'],
    ['an address of the underlay', '192.168.16.40'],
  ])('S3 inner destination: %s', async (_, destination) => {
    await expectDropped(b.name, vxlan(fromB(), datagram(other.address, destination)), 'foreign-destination');
  });

  test('S1 outer source: another VM, inner source of the true one', async () => {
    const outer = { source: '192.168.16.34', destination: a.underlay };
    await expectDropped(b.name, vxlan(outer, datagram(other.address, victim.address)), 'spoofed-source');
  });

  test("S4 outer source: the victim's own", async () => {
    const outer = { source: a.underlay, destination: a.underlay };
    await expectDropped(b.name, vxlan(outer, datagram('10.16.32.7', victim.address)), 'foreign-underlay');
  });

  test('S4 outer source: outside the underlay', async () => {
    const outer = { source: '172.16.2.3', destination: a.underlay };
    await expectDropped(b.name, vxlan(outer, datagram(other.address, victim.address)), 'spoofed-source');
  });

  test("from the host's own container: the barrier keeps it out, whatever it claims", async () => {
    const own = { source: victim.address, destination: a.underlay };
    for (const outer of [fromB(), own]) {
      const before = await barrier('forged-outer');
      await inject(victim.name, vxlan(outer, datagram(other.address, victim.address)));
      await expect.poll(() => barrier('forged-outer'), PATIENCE).toBe(before + 3);
    }
  });

  test('a VLAN tag inside: not believed, whatever is where the source would be without it', async () => {
    const packet = datagram('10.16.34.91', victim.address);
    const tagged = Uint8Array.of(0, 0, 8, 0, ...packet);
    tagged.set(other.address.split('.').map(Number), 12);
    await expectDropped(b.name, vxlan(fromB(), tagged, { type: 0x8100 }), 'spoofed-source');
  });

  describe("the host's own rules about marks", () => {
    /** With rules in the VM that gets the packets: they are all delivered. */
    async function expectDelivered(rules: string, outer: string, source: string): Promise<void> {
      await lab.must(a.name, ['nft', '-f', '-'], `table ip marks {\n${rules}\n}\n`);
      try {
        got = '';
        const before = await inbound();
        await inject(b.name, vxlan({ source: outer, destination: a.underlay }, datagram(source, victim.address)));
        await expect.poll(() => got, PATIENCE).toBe(`${source}\n`.repeat(3));
        expect(await inbound()).toMatchObject({ packets: before.packets + 3, drops: before.drops });
      } finally {
        await lab.must(a.name, ['nft', 'delete table ip marks']);
      }
    }
    const input = (rule: string) => `chain input { type filter hook input priority 0; udp dport 4789 ${rule}; }`;

    test.each([
      // Its address has this bit; older kube-proxy drops what is marked with it.
      ['0x8000', '192.168.128.33', '10.128.33.91'],
      ['0x8000', '192.168.16.33', '10.16.33.91'],
      ['0xcfffffff', '192.168.255.254', '10.255.254.91'],
    ])('one that drops by the bits %s: nothing from %s', async (mask, outer, source) => {
      await expectDelivered(input(`meta mark & ${mask} != 0 drop`), outer, source);
    });

    test('our verdict is there in INPUT, and nothing else', async () => {
      await expectDelivered(input('meta mark != 0x10000000 drop'), b.underlay, other.address);
    });

    test('what they set between our programs is there afterwards, and our verdict is not', async () => {
      const set =
        'chain before { type filter hook prerouting priority -150; udp dport 4789 meta mark set meta mark | 0x8f; }';
      const seen = `chain after { type filter hook forward priority 0; ip saddr ${other.address} meta mark != 0x8f drop; }`;
      await expectDelivered(`${set}\n${seen}`, b.underlay, other.address);
    });
  });

  test('GRE inside', async () => {
    const inner = packetAround({ source: number(other.address), destination: number(victim.address), protocol: 47 }, [
      0,
      0,
      8,
      0,
      ...new Uint8Array(20),
    ]);
    await expectDropped(b.name, vxlan(fromB(), inner), 'nested-gre');
  });

  test('an ARP request inside', async () => {
    const arp = Uint8Array.of(0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 16, 33, 1, 0, 0, 0, 0, 0, 0, 10, 16, 32, 1);
    await expectDropped(b.name, vxlan(fromB(), arp, { type: 0x0806, mac: 'ff:ff:ff:ff:ff:ff' }), 'not-ipv4');
  });

  test('a mark does not stay on packets for the VM itself, nor on others', async () => {
    // What reaches a socket of the VM has none, unless it is for VXLAN.
    expect((await lab.run(other.name, pingWords(a.overlay, 3))).stdout).toMatch(/ 3 received/);
    expect((await lab.run(b.name, pingWords(a.underlay, 3))).stdout).toMatch(/ 3 received/);
  });

  test('a fragmented VXLAN packet from a VM is delivered', async () => {
    const large = pingWords(victim.address, 2, '-s', '9000', '-M', 'dont');
    expect((await lab.run(other.name, large)).stdout).toMatch(/ 2 received/);
  });

  test('of which the kernel has only the link header in one piece: checked like others', async () => {
    const port = `port-${a.name}`;
    const mac = (await lab.must(a.name, ['cat', '/sys/class/net/eth0/address']))
      .trim()
      .split(':')
      .map((byte) => Number.parseInt(byte, 16));
    // Longer than a page, or the kernel has all of it in one piece: what is behind the inner packet is padding.
    const frame = (source: string) => {
      const inner = Uint8Array.of(...datagram(source, victim.address), ...new Uint8Array(5000));
      return Uint8Array.of(...mac, 2, 0, 0, 0, 0, 2, 8, 0, ...vxlan(fromB(), inner));
    };
    const send = async (source: string) => {
      const lines = `${Buffer.from(frame(source)).toString('hex')}\n`.repeat(3);
      expect(await lab.must(undefined, [process.execPath, INJECT, port], lines)).toBe('3\n');
    };
    await lab.ip(undefined, [`link set ${port} mtu 9000`]);
    await lab.ip(a.name, ['link set eth0 mtu 9000']);
    try {
      got = '';
      const before = await inbound();
      await send('10.16.34.91');
      await expect
        .poll(async () => (await inbound()).drops['spoofed-source'], PATIENCE)
        .toBe((before.drops['spoofed-source'] ?? 0) + 3);
      await send(other.address);
      await expect.poll(() => got, PATIENCE).toBe(`${other.address}\n`.repeat(3));
      expect((await inbound()).packets).toBe(before.packets + 3);
    } finally {
      await lab.ip(a.name, ['link set eth0 mtu 1500']);
      await lab.ip(undefined, [`link set ${port} mtu 1500`]);
    }
  });

  test('S5 outbound: a container with an address of others is dropped, and counted', async () => {
    await lab.ip(victim.name, ['address add 10.16.33.77/32 dev lo', 'address add 10.99.0.1/32 dev lo']);
    const before = await barrier('forged-container');
    for (const source of ['10.16.33.77', '10.99.0.1'])
      expect((await lab.run(victim.name, pingWords(other.address, 2, '-I', source))).stdout).toMatch(/ 0 received/);
    expect(await barrier('forged-container')).toBe(before + 4);
  });

  test.each([
    ['the slice itself', '10.16.40.0'],
    ['the address kept free', '10.16.40.255'],
  ])('%s is refused at once', async (_, address) => {
    const before = (await mesh.status(a)).neighbours?.refused ?? 0;
    const { stdout } = await lab.run(victim.name, ['ping', '-n', '-c', '1', '-W', '10', address]);
    expect(stdout).toMatch(/^From \S+ icmp_seq=1 Destination Host Unreachable$/m);
    expect(stdout).toMatch(/ 0 received/);
    expect((await mesh.status(a)).neighbours?.refused).toBe(before + 1);
    expect((await mesh.status(a)).neighbours).toMatchObject({ failed: 0 });
  });

  test('G9 an address of our own slice that no container has is unreachable', async () => {
    const { stdout } = await lab.run(victim.name, ['ping', '-n', '-c', '1', '-W', '10', '10.16.32.77']);
    expect(stdout).toMatch(/Destination Host Unreachable/);
  });

  test.each([
    ["the underlay's network address as a VM", '10.0.0.7'],
    ["the underlay's broadcast address as a VM", '10.255.255.7'],
    ['the last of all', '10.255.255.255'],
  ])('%s is unreachable', async (_, address) => {
    // Not by ping: so many of the kernel's ICMP errors would be limited.
    const { stderr } = await lab.run(a.name, ['ip', 'route', 'get', address]);
    expect(stderr).toContain('No route to host');
  });

  test('the mesh works afterwards', async () => {
    expect((await lab.run(victim.name, pingWords(other.address, 3))).stdout).toMatch(/ 3 received/);
  });
});
