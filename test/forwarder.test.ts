/** The data path between loopback devices: two VMs in memory, with either core and either format. */
import { describe, expect, test } from 'vitest';
import { abi, type CoreConfig, type PacketCore } from '../src/core/index.ts';
import type { DropSample } from '../src/dataplane/drop-log.ts';
import type { PacketDevice } from '../src/dataplane/wasm/device.ts';
import { Forwarder } from '../src/dataplane/wasm/forwarder.ts';
import { LoopbackDevice } from '../src/dataplane/wasm/memory.ts';
import { config, cores, putFrame } from './core.ts';
import { editedHeader, frameOf, ipv4Packet, packetOf, payloadOf, superFrame } from './packet.ts';

const [A, B, C] = [0xc0a81020, 0xc0a81021, 0xc0a81022];
const [CONTAINER_A, CONTAINER_B] = [0x0a10205b, 0x0a102107];
const ENCAPSULATIONS = ['gre', 'gre-udp'] as const;

interface TestVm {
  core: PacketCore;
  forwarder: Forwarder;
  underlay: LoopbackDevice;
  tun: LoopbackDevice;
  /** The containers' end of the TUN. */
  containers: LoopbackDevice;
  log: string[];
  samples: DropSample[];
}

function vm(core: PacketCore, options: Partial<CoreConfig>, underlay: LoopbackDevice): TestVm {
  core.configure({ ...config, ...options });
  const [tun, containers] = LoopbackDevice.pair();
  const log: string[] = [];
  const samples: DropSample[] = [];
  const forwarder = new Forwarder(core, tun, underlay, {
    onDropped: (sample) => samples.push(sample),
    onTunnels: (change, vms) => log.push(`${change} ${vms.map((v) => v.toString(16))}`),
    onLearnt: (tunnels) =>
      log.push(...tunnels.map(({ vm, ...known }) => `${vm.toString(16)} ${JSON.stringify(known)}`)),
  });
  return { core, forwarder, underlay, tun, containers, log, samples };
}

/** An address as `PacketCore.peer` has it. */

function mesh(
  make: () => PacketCore,
  encapsulation: (typeof ENCAPSULATIONS)[number] = 'gre',
  mtu = 1476,
): [TestVm, TestVm] {
  const [wireA, wireB] = LoopbackDevice.pair(encapsulation === 'gre' ? [] : [A, B]);
  return [vm(make(), { local: A, encapsulation, mtu }, wireA), vm(make(), { local: B, encapsulation, mtu }, wireB)];
}

/** Lets the containers of a VM send. */
function send(from: TestVm, packets: Uint8Array[]): void {
  for (const packet of packets) expect(from.containers.send(packet)).toBe(true);
}

const receive = (to: TestVm, now: number) => to.forwarder.inbound(to.underlay, now);
const delivered = (to: TestVm) => to.containers.queue.map(({ bytes }) => bytes);

/** A device that notes what passes: its name, and the message's bytes. */
function watched(name: string, inside: PacketDevice, seen: [name: string, bytes: Uint8Array][]): PacketDevice {
  return {
    read: (core) => inside.read(core),
    write: (core, first, end) => {
      for (let i = first; i < end; i++) seen.push([name, core.messages.bytes(i)]);
      inside.write(core, first, end);
    },
  };
}

/** An overlay device that hands over frames: virtio header and packet. */
function frames(waiting: Uint8Array[], inside: PacketDevice): PacketDevice {
  return {
    read: (core) => {
      const batch = waiting.splice(0, abi.BATCH_SIZE);
      for (const [i, frame] of batch.entries()) putFrame(core, i, frame);
      return batch.length;
    },
    write: (core, first, end) => inside.write(core, first, end),
  };
}

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
    expect(a.core.tunnels.count).toBe(1);
    a.forwarder.expire(10.5);
    expect([a.core.tunnels.count, a.log]).toEqual([0, ['opened c0a81021', 'closed c0a81021']]);
  });

  test('each VM answers in its own format, whatever it is sent', () => {
    const [wireA, wireB] = LoopbackDevice.pair([A, B]);
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

  test.each(ENCAPSULATIONS)('%s: what is dropped has an example, with its addresses', (encapsulation) => {
    const [a, b] = mesh(make, encapsulation);
    const spoofed = ipv4Packet(0x0a10225b, CONTAINER_B, 30);
    const elsewhere = ipv4Packet(CONTAINER_A, 0x0b000001, 20);
    // Too short for what is to be read of it.
    const short = [0, 1, 19, 20].map((length) => ipv4Packet(CONTAINER_A, CONTAINER_B, 8).slice(0, length));
    send(a, [spoofed, elsewhere, elsewhere, ...short]);
    a.forwarder.outbound(1000);
    const outbound = { direction: 'outbound', packets: 1, protocol: 17 };
    expect(a.samples).toEqual([
      {
        ...{ ...outbound, verdict: abi.DROP_FOREIGN_SOURCE, length: spoofed.length },
        ...{ innerSource: 0x0a10225b, innerDestination: CONTAINER_B },
      },
      {
        ...{ ...outbound, verdict: abi.DROP_NO_MAPPING, length: elsewhere.length, packets: 2 },
        ...{ innerSource: CONTAINER_A, innerDestination: 0x0b000001 },
      },
      { direction: 'outbound', packets: 4, verdict: abi.DROP_TRUNCATED },
    ]);
    // The other VM believes that it is another one.
    b.core.configure({ ...config, local: C, encapsulation });
    send(a, [ipv4Packet(CONTAINER_A, CONTAINER_B, 40)]);
    a.forwarder.outbound(1001);
    receive(b, 1001);
    const inner = { innerSource: CONTAINER_A, innerDestination: CONTAINER_B };
    const seen =
      encapsulation === 'gre'
        ? { verdict: abi.DROP_NOT_FOR_US, outerSource: A, outerDestination: B, ...inner }
        : { verdict: abi.DROP_FOREIGN_DESTINATION, outerSource: A, ...inner };
    expect(b.samples).toMatchObject([{ direction: 'inbound', packets: 1, ...seen }]);
  });

  test('who floods takes nothing from another container, once it is seen', () => {
    const [a, b] = mesh(make);
    const [flood, other] = [ipv4Packet(CONTAINER_A, CONTAINER_B, 9), ipv4Packet(CONTAINER_A + 1, CONTAINER_B, 9)];
    let sent = 0;
    for (let now = 0; now < 40; now++) {
      // What comes while a batch is handled is more than a batch.
      for (let i = 0; i < 160; i++) sent += a.containers.send(i === 80 ? other : flood) ? 1 : 0;
      a.forwarder.outbound(now);
      b.underlay.queue.length = 0;
    }
    while (a.tun.queue.length > 0) a.forwarder.outbound(40);
    const { received, forwarded, drops } = a.core.counters('outbound');
    expect([received, forwarded + (drops[-abi.DROP_OVER_SHARE] as number)]).toEqual([sent, sent]);
    expect(drops[-abi.DROP_OVER_SHARE]).toBeGreaterThan(sent / 4);
    expect(a.samples.map(({ verdict, innerSource }) => [verdict, innerSource])).toEqual([
      [abi.DROP_OVER_SHARE, CONTAINER_A],
    ]);
  });

  test('examples are few, and the next one says how many there were', () => {
    const [a] = mesh(make);
    const bad = ipv4Packet(CONTAINER_B, CONTAINER_B, 8);
    for (let now = 0; now < 1000; now += 10) {
      send(a, Array(20).fill(bad));
      a.forwarder.outbound(now);
    }
    expect(a.samples.length).toBe(4);
    expect(a.samples.slice(1).map(({ packets }) => packets)).toEqual([500, 500, 500]);
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

  describe('wrappers around both devices see every message, in order', () => {
    const small = (id: number) => packetOf({ id, payload: payloadOf(10, id) });
    const large = (id: number) => superFrame({ id, payload: payloadOf(2500, id) }, 1000);
    /** The identification of the inner packet that a message carries first. */
    const idOf = (message: Uint8Array, before: number) => new DataView(message.buffer).getUint16(before + 4);

    function watchedVm(options: Partial<CoreConfig>, devices: Parameters<PacketCore['attach']>[0], sent: Uint8Array[]) {
      const core = make();
      core.configure({ ...config, ...options });
      core.attach({ offloads: abi.OFFLOAD_VIRTIO, ...devices });
      const seen: [string, Uint8Array][] = [];
      const [[tun, containers], [wire, far]] = [LoopbackDevice.pair(), LoopbackDevice.pair()];
      const overlay = watched('overlay', frames(sent, tun), seen);
      const listeners = { onTunnels: () => {}, onLearnt: () => {}, onDropped: () => {} };
      const forwarder = new Forwarder(core, overlay, watched('underlay', wire, seen), listeners);
      return { core, forwarder, seen, containers, far };
    }

    test('gre, where the kernel cuts: whole super-packets go to the overlay device, between their neighbours', () => {
      const sent = [frameOf(small(1)), frameOf(small(2)), large(3), large(6), frameOf(small(9)), large(10)];
      const offloads = abi.OFFLOAD_VIRTIO | abi.OFFLOAD_GRE_SEGMENT;
      const { forwarder, seen, containers, far } = watchedVm({}, { offloads }, sent);
      forwarder.outbound(0);
      const virtio = (name: string) => (name === 'overlay' ? abi.VIRTIO_SIZE : 0);
      expect(seen.map(([name, bytes]) => [name, idOf(bytes, virtio(name) + 24)])).toEqual([
        ['underlay', 1],
        ['underlay', 2],
        ['overlay', 3],
        ['overlay', 6],
        ['underlay', 9],
        ['overlay', 10],
      ]);
      const through = [...containers.queue, ...far.queue].map(({ bytes }) => bytes);
      const order = (name: string) => seen.filter(([of]) => of === name).map(([, bytes]) => bytes);
      expect(through).toEqual([...order('overlay'), ...order('underlay')]);
    });

    test('gre-udp: the messages of all ports, each flow in order', () => {
      const ids = Array.from({ length: 60 }, (_, n) => n);
      const flow = (id: number) => packetOf({ id, sourcePort: id % 12, payload: payloadOf(10, id) });
      const sent = ids.map((id) => frameOf(flow(id)));
      const ports = abi.MAX_PORTS;
      const { core, forwarder, seen } = watchedVm({ encapsulation: 'gre-udp' }, { ports }, sent);
      forwarder.outbound(0);
      const used = Array.from({ length: ports }, (_, port) => core.messages.count(port)).filter((count) => count > 0);
      expect(used.length).toBeGreaterThan(1);
      const found = seen.map(([, bytes]) => idOf(bytes, 4));
      expect([...found].sort((a, b) => a - b)).toEqual(ids);
      for (let n = 0; n < 12; n++) {
        expect(found.filter((id) => id % 12 === n)).toEqual(ids.filter((id) => id % 12 === n));
      }
    });

    test('replies go to the overlay device, and one that is lost is nothing that was forwarded', () => {
      const tooBig = packetOf({ payload: payloadOf(2000) });
      const { core, forwarder, seen, containers } = watchedVm({ mtu: 1000 }, {}, [frameOf(small(1)), frameOf(tooBig)]);
      while (containers.send(small(0))); // The device is full: what the containers would read is elsewhere.
      forwarder.outbound(0);
      expect(seen.map(([name]) => name)).toEqual(['underlay', 'overlay']);
      const { received, forwarded, drops, replies } = core.counters('outbound');
      expect([received, forwarded, replies, drops[-abi.DROP_TOO_BIG], drops[-abi.DROP_NOT_WRITTEN]]).toEqual([
        ...[2, 1, 1, 1, 0],
      ]);
    });
  });

  test('another MTU while packets flow: counters, tunnels and what the devices can do stay', () => {
    const [a, b] = mesh(make);
    const dontFragment = (id: number, length: number) =>
      editedHeader(ipv4Packet(CONTAINER_A, CONTAINER_B, length), 4, 0, id, 0x40);
    const crosses = (id: number) => {
      send(a, [dontFragment(id, 1200)]);
      a.forwarder.outbound(id);
      receive(b, id);
      return delivered(b).length;
    };
    a.core.attach({ ports: 3 });
    const settings = { ...config, local: A };
    expect(crosses(1)).toBe(1);
    a.core.configure({ ...settings, mtu: 1000 });
    expect(crosses(2)).toBe(1);
    a.core.configure({ ...settings, mtu: 1476 });
    expect(crosses(3)).toBe(2);
    const { received, forwarded, drops } = a.core.counters('outbound');
    expect([received, forwarded, drops[-abi.DROP_TOO_BIG], a.core.tunnels.count]).toEqual([3, 2, 1, 1]);
    expect(new DataView(a.core.memory).getUint32(abi.CONFIG + abi.CONFIG_PORTS, true)).toBe(3);
  });

  test('65,534 VMs: all tunnels open, none evicted, all expire', () => {
    const [a] = mesh(make);
    for (let vmBits = 0; vmBits < 65536; vmBits += 128) {
      const packets = Array.from({ length: 128 }, (_, i) =>
        ipv4Packet(CONTAINER_A, 0x0a000007 + (vmBits + i) * 256, 0),
      );
      send(a, packets);
      a.forwarder.outbound(vmBits * abi.LEASE_INTERVAL);
    }
    expect(a.core.tunnels.count).toBe(65533); // our own slice is not one, and two addresses of the underlay are no VM's
    expect(a.log.filter((line) => line.startsWith('closed'))).toEqual([]);
    a.forwarder.expire(65536 * abi.LEASE_INTERVAL);
    expect(a.core.tunnels.count).toBe(0);
  });
});
