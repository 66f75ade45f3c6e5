/** The data path between loopback devices: two VMs in memory, with either core and either format. */
import { describe, expect, test } from 'vitest';
import { abi, type CoreConfig, type PacketCore } from '../src/core/index.ts';
import { Forwarder } from '../src/dataplane/wasm/forwarder.ts';
import { LoopbackDevice } from '../src/dataplane/wasm/memory.ts';
import { config, cores } from './core.ts';
import { editedHeader, ipv4Packet } from './packet.ts';

const [A, B] = [0xc0a81020, 0xc0a81021];
const [CONTAINER_A, CONTAINER_B] = [0x0a10205b, 0x0a102107];
const ENCAPSULATIONS = ['gre', 'gre-udp'] as const;

interface TestVm {
  core: PacketCore;
  forwarder: Forwarder;
  underlay: LoopbackDevice;
  /** The containers' end of the TUN. */
  containers: LoopbackDevice;
  log: string[];
}

function vm(core: PacketCore, options: Partial<CoreConfig>, underlay: LoopbackDevice): TestVm {
  core.configure({ ...config, ...options });
  const [tun, containers] = LoopbackDevice.pair();
  const log: string[] = [];
  const forwarder = new Forwarder(core, tun, underlay, {
    onTunnels: (change, vms) => log.push(`${change} ${vms.map((v) => v.toString(16))}`),
    onLearnt: (tunnels) =>
      log.push(...tunnels.map(({ vm, ...known }) => `${vm.toString(16)} ${JSON.stringify(known)}`)),
  });
  return { core, forwarder, underlay, containers, log };
}

/** An address as `PacketCore.peer` has it. */
const peer = (address: number) => new DataView(Uint32Array.of(address).buffer).getUint32(0);

function mesh(
  make: () => PacketCore,
  encapsulation: (typeof ENCAPSULATIONS)[number] = 'gre',
  mtu = 1476,
): [TestVm, TestVm] {
  const [wireA, wireB] = LoopbackDevice.pair(encapsulation === 'gre' ? [] : [peer(A), peer(B)]);
  return [vm(make(), { local: A, encapsulation, mtu }, wireA), vm(make(), { local: B, encapsulation, mtu }, wireB)];
}

/** Lets the containers of a VM send. */
function send(from: TestVm, packets: Uint8Array[]): void {
  for (const packet of packets) expect(from.containers.send(packet)).toBe(true);
}

const receive = (to: TestVm, now: number) => to.forwarder.inbound(to.underlay, now);
const delivered = (to: TestVm) => to.containers.queue.map(({ bytes }) => bytes);

describe.each(cores)('$name', ({ make }) => {
  test.each(ENCAPSULATIONS)('%s: a packet crosses unchanged, and the tunnels come and go', (encapsulation) => {
    const [a, b] = mesh(make, encapsulation);
    const packet = ipv4Packet(CONTAINER_A, CONTAINER_B, 100);
    send(a, [packet]);
    a.forwarder.outbound(10);
    receive(b, 11);
    expect(delivered(b)).toEqual([packet]);
    expect([a.log, b.log]).toEqual([['opened c0a81021'], ['opened c0a81020']]);
    a.forwarder.expire(10);
    expect(a.core.tunnelCount).toBe(1);
    a.forwarder.expire(10.5);
    expect([a.core.tunnelCount, a.log]).toEqual([0, ['opened c0a81021', 'closed c0a81021']]);
  });

  test('each VM answers in its own format, whatever it is sent', () => {
    const [wireA, wireB] = LoopbackDevice.pair([peer(A), peer(B)]);
    const [rawA, rawB] = LoopbackDevice.pair();
    const a = vm(make(), { local: A, encapsulation: 'gre-udp' }, wireA);
    const b = vm(make(), { local: B }, rawB);
    send(a, [ipv4Packet(CONTAINER_A, CONTAINER_B, 1)]);
    a.forwarder.outbound(0);
    b.forwarder.inbound(wireB, 0);
    send(b, [ipv4Packet(CONTAINER_B, CONTAINER_A, 2)]);
    b.forwarder.outbound(0);
    a.forwarder.inbound(rawA, 0);
    expect([delivered(b), delivered(a)]).toEqual([
      [ipv4Packet(CONTAINER_A, CONTAINER_B, 1)],
      [ipv4Packet(CONTAINER_B, CONTAINER_A, 2)],
    ]);
  });

  test.each(ENCAPSULATIONS)(
    '%s: bad packets among good ones are dropped, counted, and hold nothing up',
    (encapsulation) => {
      const [a, b] = mesh(make, encapsulation);
      const good = Array.from({ length: 50 }, (_, i) => ipv4Packet(CONTAINER_A, CONTAINER_B, i));
      const bad = [new Uint8Array(3), ipv4Packet(CONTAINER_B, CONTAINER_B, 8), ipv4Packet(CONTAINER_A, 0x08080808, 8)];
      send(a, [...good.slice(0, 20), ...bad, ...good.slice(20)]);
      a.forwarder.outbound(0);
      receive(b, 0);
      expect(delivered(b)).toEqual(good);
      const { received, forwarded, drops } = a.core.counters('outbound');
      expect([received, forwarded]).toEqual([53, 50]);
      expect(drops[-abi.DROP_TRUNCATED]).toBe(1);
      expect(drops[-abi.DROP_FOREIGN_SOURCE]).toBe(1);
      expect(drops[-abi.DROP_NO_MAPPING]).toBe(1);
    },
  );

  test('what the device does not take is a drop, and the sums stay exact', () => {
    const [a] = mesh(make);
    const count = 1100; // more than a loopback device holds
    for (let sent = 0; sent < count; sent += 100) {
      send(
        a,
        Array.from({ length: 100 }, () => ipv4Packet(CONTAINER_A, CONTAINER_B, 12)),
      );
      a.forwarder.outbound(0);
    }
    const { received, forwarded, bytes, drops } = a.core.counters('outbound');
    expect([received, forwarded, drops[-abi.DROP_NOT_WRITTEN]]).toEqual([count, 1024, count - 1024]);
    expect(bytes).toBe(1024 * 40);
  });

  test.each([
    ['gre', 24],
    ['gre-udp', 32],
  ] as const)(
    '%s: a packet of the largest size crosses, one byte more does not, if it must not be fragmented',
    (encapsulation, overhead) => {
      const [a, b] = mesh(make, encapsulation, 65535);
      const largest = 65535 - overhead;
      const longer = editedHeader(ipv4Packet(CONTAINER_A, CONTAINER_B, largest - 27), 6, 0x40, 0);
      send(a, [ipv4Packet(CONTAINER_A, CONTAINER_B, largest - 28), longer]);
      a.forwarder.outbound(0);
      receive(b, 0);
      expect(delivered(b).map((p) => p.length)).toEqual([largest]);
      expect(a.core.counters('outbound').drops[-abi.DROP_TOO_BIG]).toBe(1);
    },
  );

  test('65,536 VMs: all tunnels open, none evicted, all expire', () => {
    const [a] = mesh(make);
    for (let vmBits = 0; vmBits < 65536; vmBits += 128) {
      const packets = Array.from({ length: 128 }, (_, i) =>
        ipv4Packet(CONTAINER_A, 0x0a000007 + (vmBits + i) * 256, 0),
      );
      send(a, packets);
      a.forwarder.outbound(vmBits);
    }
    expect(a.core.tunnelCount).toBe(65535); // our own slice is not one
    expect(a.log.filter((line) => line.startsWith('closed'))).toEqual([]);
    a.forwarder.expire(65536);
    expect(a.core.tunnelCount).toBe(0);
  });
});
