/** Packets that are not like most: what becomes of each is the same with the fast path and without it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ethernet, superPacket as virtio } from '../attack/packets.mjs';
import { cut, fixed, packetOf } from '../packet.ts';
import { type Ends, PORT, PROBES, type Probe, SUPER_PROBES, superPacket, type Way } from './fast-path/probes.ts';
import { expectExact, FastPathVms, type Seen, takenOf } from './fast-path/vms.ts';
import { missing, skip } from './require.ts';
import { PATIENCE, type Plane } from './vms.ts';

const number = (address: string) => address.split('.').reduce((all, part) => all * 256 + Number(part), 0);
const text = (packets: readonly Uint8Array[]) => packets.map((packet) => Buffer.from(packet).toString('hex')).sort();
const ICMP = 1;
/** Of fences: no probe has it. */
const FENCE_PORT = 7778;
const OPTION = [1, 1, 1, 0];
const HOPS = { far: 2, near: 1 };
const needed = await missing('ping');

describe.skipIf(skip('fast path, answers', needed)).each<{ plane: Plane; fastPath: 'on' | 'off' }>([
  { plane: 'wasm', fastPath: 'off' },
  { plane: 'wasm', fastPath: 'on' },
  { plane: 'wasm-udp', fastPath: 'off' },
  { plane: 'wasm-udp', fastPath: 'on' },
])('answers, $plane, fast path $fastPath', ({ plane, fastPath }) => {
  let vms: FastPathVms;
  let mtu: number;
  beforeAll(async () => {
    vms = await FastPathVms.of(plane, 'a', 'b');
    for (const vm of ['a', 'b']) {
      await vms.up(vm, '--fast-path', fastPath);
      // Each probe gets its answer, however many there were before. (A rate of 0 would use up what unreachable routes may answer.)
      await vms.lab.must(vm, ['sh', '-c', 'echo 0 >/proc/sys/net/ipv4/icmp_ratemask']);
    }
    await vms.attachTo('a', 'c1', 'c2');
    await vms.attachTo('b', 'd1');
    ({ mtu } = await vms.status('a'));
    // Root in a container may send longer packets than it was told.
    await vms.ip('a', `link set ${vms.attached('c1').hostInterface} mtu 1500`);
    await vms.lab.ip('c1', ['link set eth0 mtu 1500']);
    await vms.settled('a', 'b');
    await vms.watch('c1', 'c2', 'd1');
    await vms.take(PORT, 'c2', 'd1');
    await vms.acquainted('c1', 'd1');
    await vms.acquainted('c1', 'c2');
  });
  afterAll(() => vms?.close());

  const target = { far: 'd1', near: 'c2' };

  function endsOf(way: Way): Ends {
    const to = number(vms.address(target[way]));
    return {
      ...{ from: number(vms.address('c1')), to, mtu },
      ...{ nobody: (to & ~0xff) | 200, neighbour: number(vms.address('c2')) },
    };
  }

  function frameOf(packet: Uint8Array, { frame = {}, padding = 0 }: Partial<Probe> = {}): Uint8Array {
    const { mac, hostMac } = vms.attached('c1');
    const to = { nobody: '02:00:00:00:00:66', everybody: 'ff:ff:ff:ff:ff:ff' };
    const payload = Buffer.concat([packet, Buffer.alloc(padding, 0xee)]);
    return ethernet({ from: mac, to: frame.to ? to[frame.to] : hostMac, tag: frame.tag ?? false }, payload);
  }

  /** Also where it comes back, because nobody takes it. */
  const isFence = ({ packet }: Seen) => packet.includes('fence');

  /** Datagrams that go their ordinary way, because of an option, and others: behind them comes nothing that was sent before. */
  function fences(): Uint8Array[] {
    const payload = new Uint8Array(Buffer.from('fence'));
    return (['far', 'near'] as const).flatMap((way) =>
      [OPTION, []].map((ipOptions) => {
        const ends = { source: endsOf(way).from, destination: endsOf(way).to };
        return frameOf(packetOf({ protocol: 17, destinationPort: FENCE_PORT, ipOptions, payload, ...ends }));
      }),
    );
  }

  /** What comes of frames of c1, by place. */
  async function shoot(at: string, frames: readonly Uint8Array[], wanted: (seen: Seen[]) => boolean): Promise<Seen[]> {
    await vms.collect();
    const seen: Seen[] = [];
    const more = async () => {
      seen.push(...(await vms.collect()));
      return seen;
    };
    expect(await vms.send(at, frames)).toBe(0);
    // What does not come although it should is told by the test; what comes although it should not is behind no fence.
    await expect
      .poll(more, PATIENCE)
      .toSatisfy(wanted)
      .catch(() => {});
    const sent = fences();
    await vms.send('c1', sent);
    await expect
      .poll(more, PATIENCE)
      .toSatisfy((all: Seen[]) => all.filter((each) => isFence(each) && each.at !== 'c1').length === sent.length);
    return seen.filter((each) => !isFence(each));
  }

  /** An ICMP error in short. */
  function answerOf({ packet }: Seen) {
    const from = packet.subarray(12, 16).join('.');
    const [type, code, mtuOf] = [packet[20], packet[21], packet.readUInt16BE(26)];
    return {
      icmp: `${type}/${code}`,
      from: from === vms.overlay('a') ? 'own VM' : from === vms.overlay('b') ? 'other VM' : from,
      ...(mtuOf > 0 && type === 3 && { mtu: mtuOf }),
      quoted: packet
        .subarray(28)
        .toString('hex')
        .slice(0, 16 * 2),
    };
  }

  const ways: readonly Way[] = ['far', 'near'];
  for (const way of ways) {
    test.each(PROBES.filter((probe) => (probe.ways ?? ways).includes(way)))(`${way}: $name`, async (probe) => {
      const ends = endsOf(way);
      const packets = probe.packets(ends);
      const coming = probe.come?.(packets, HOPS[way], ends) ?? [];
      const answer = probe.answer?.(ends, way);
      const at = (place: string) => (each: Seen) => each.at === place;
      const isEnough = (all: Seen[]) =>
        all.filter(at(target[way])).length >= coming.length && (!answer || all.some(at('c1')));
      const seen = await shoot(
        'c1',
        packets.map((packet) => frameOf(packet, probe)),
        isEnough,
      );
      expect(text(seen.filter(at(target[way])).map(({ packet }) => packet))).toEqual(text(coming));
      // What the container itself has to say is not about the way.
      const isFrom = (address: number, packet: Buffer) => packet.readUInt32BE(12) === address;
      const answers = seen.filter(at('c1')).filter(({ packet }) => packet[9] === ICMP && !isFrom(ends.to, packet));
      const quoted = Buffer.from(packets[0] as Uint8Array)
        .toString('hex')
        .slice(0, 8);
      expect(answers.map(answerOf)).toEqual(answer ? [{ ...answer, quoted: expect.stringContaining(quoted) }] : []);
    });

    test.each(SUPER_PROBES)(`${way}: super-packet, $name`, async (probe) => {
      const { packet, segments } = superPacket(probe, endsOf(way), HOPS[way]);
      const arrived = (all: Seen[]) =>
        all
          .filter(({ at }) => at === target[way])
          .flatMap((each) =>
            each.packet.length > 1500 || each.packet.length > probe.size + 40
              ? cut(each.packet, probe.size)
              : [fixed(each.packet)],
          );
      const seen = await shoot(
        'c1 super-packets',
        [virtio(frameOf(packet), probe.size)],
        (all) => arrived(all).length >= segments.length,
      );
      expect(text(arrived(seen))).toEqual(text(segments));
      if (probe.protocol !== 17) return;
      const lengths = seen.filter(({ at }) => at === `${target[way]} port ${PORT}`).map((each) => each.packet.length);
      expect(lengths).toEqual(segments.map((segment) => segment.length - 28));
    });
  }

  test('this was with the fast path as it was said', async () => {
    const [a, b] = [await vms.status('a'), await vms.status('b')];
    for (const each of [a, b]) {
      expect(each.fastPath?.state ?? 'off').toBe(fastPath);
      expectExact(each);
    }
    const taken = [takenOf(a).outbound, takenOf(a).local, takenOf(b).inbound].map((packets) => packets > 0);
    expect(taken).toEqual(taken.map(() => fastPath === 'on'));
  });
});
