/** What devices did not take: counted by the error's name, the core told, and examples of it, with either core. */
import { afterEach, describe, expect, test, vi } from 'vitest';
import { abi, type PacketCore, tunnelsFrom } from '../src/core/index.ts';
import type { DropSample } from '../src/dataplane/drop-log.ts';
import { sendErrorName } from '../src/dataplane/wasm/portable/send-error.ts';
import { Refusals } from '../src/dataplane/wasm/refusals.ts';
import { cores, type Message } from './core.ts';
import * as wire from './packet.ts';
import { A, B, C, CONTAINER_C, coreOf, receive, sendPackets } from './vms.ts';

function watch(core: PacketCore) {
  const samples: DropSample[] = [];
  return { samples, refusals: new Refusals(core, (sample) => samples.push(sample)) };
}

const stateOf = (core: PacketCore, vm: number) =>
  tunnelsFrom(core.tunnels.copy(performance.now())).find((tunnel) => tunnel.vm === vm);

afterEach(() => vi.useRealTimers());

describe.each(cores)('$name', ({ make }) => {
  test('all that was not written is counted by the name of the error, as the core counts it', () => {
    const core = coreOf(make, {});
    const { refusals } = watch(core);
    sendPackets(core, [wire.packetOf({}), wire.packetOf({}), wire.packetOf({ destination: CONTAINER_C })]);
    refusals.refuse(0, 'underlay', 'EPERM');
    refusals.refuse(1, 'underlay', 'EAGAIN');
    refusals.refuse(2, 'underlay', 'EPERM');
    expect(refusals.counts).toEqual({ underlay: { EPERM: 2, EAGAIN: 1 }, overlay: {} });
    expect(core.counters('outbound').drops[-abi.DROP_NOT_WRITTEN]).toBe(3);
    expect([core.messages.replies(), stateOf(core, B)?.unreachable]).toEqual([[], undefined]);
  });

  test('a reply that is not written is nothing', () => {
    const core = coreOf(make, {});
    const { refusals, samples } = watch(core);
    sendPackets(core, [wire.packetOf({ destination: 0x0b000001 })]);
    for (const reply of core.messages.replies()) refusals.refuse(reply, 'overlay', 'EIO');
    expect([refusals.counts, samples]).toEqual([{ underlay: {}, overlay: {} }, []]);
  });

  test('a VM without a way is unreachable until something is sent to it', () => {
    const core = coreOf(make, {});
    const { refusals } = watch(core);
    const packets = [wire.packetOf({}), wire.packetOf({ destination: CONTAINER_C })];
    sendPackets(core, packets);
    refusals.refuse(0, 'underlay', 'ENETUNREACH');
    refusals.sent(1, 2);
    expect(core.messages.replies().length).toBe(1);
    expect([stateOf(core, B)?.unreachable, stateOf(core, C)?.unreachable]).toEqual([0, undefined]);
    sendPackets(core, packets);
    expect(stateOf(core, B)?.unreachable).toBe(0);
    refusals.sent(0, 2);
    expect(stateOf(core, B)?.unreachable).toBe(undefined);
  });

  test('what the underlay itself says of a VM is not undone by sending', () => {
    const core = coreOf(make, {});
    const { refusals } = watch(core);
    const [message] = sendPackets(core, [wire.packetOf({})]) as [Message];
    const quote = message.bytes.slice(0, 60);
    core.put(0, wire.ipv4Around({ source: B, destination: A, protocol: 1 }, wire.icmpMessage(3, 2, 0, quote)));
    core.learn(0, 1, performance.now());
    expect(stateOf(core, B)?.unreachable).toBe(2);
    sendPackets(core, [wire.packetOf({})]);
    refusals.sent(0, 1);
    expect(stateOf(core, B)?.unreachable).toBe(2);
  });

  test('that there was no way is forgotten when the core forgets it', () => {
    vi.useFakeTimers({ toFake: ['performance'] });
    const core = coreOf(make, {});
    const { refusals } = watch(core);
    const [message] = sendPackets(core, [wire.packetOf({})]) as [Message];
    const quote = message.bytes.slice(0, 60);
    refusals.refuse(0, 'underlay', 'ENETUNREACH');
    vi.advanceTimersByTime(abi.UNREACHABLE_LIFETIME * 1000);
    core.put(0, wire.ipv4Around({ source: B, destination: A, protocol: 1 }, wire.icmpMessage(3, 2, 0, quote)));
    core.learn(0, 1, performance.now());
    sendPackets(core, [wire.packetOf({})]);
    refusals.sent(0, 1);
    refusals.reached(B);
    expect(stateOf(core, B)?.unreachable).toBe(2);
  });

  test('however many VMs have no way, the next one is known to be reached again', () => {
    const core = coreOf(make, {});
    const { refusals } = watch(core);
    const cutOff = (n: number) =>
      wire.packetOf({ source: 0x0a102002 + (n % 250), destination: (0x0a400001 + (n << 8)) >>> 0 });
    for (let n = 0; n < 5000; n++) {
      sendPackets(core, [cutOff(n)]);
      refusals.refuse(0, 'underlay', 'ENETUNREACH');
    }
    sendPackets(core, [wire.packetOf({})]);
    refusals.refuse(0, 'underlay', 'ENETUNREACH');
    expect(stateOf(core, B)?.unreachable).toBe(0);
    refusals.reached(B);
    expect(stateOf(core, B)?.unreachable).toBe(undefined);
  });

  test('an example now and then, with all that was refused since', () => {
    const core = coreOf(make, {});
    const { refusals, samples } = watch(core);
    sendPackets(
      core,
      Array.from({ length: 100 }, () => wire.packetOf({})),
    );
    for (let message = 0; message < 100; message++) refusals.refuse(message, 'underlay', 'EPERM');
    expect(samples).toEqual([
      {
        ...{ direction: 'outbound', verdict: abi.DROP_NOT_WRITTEN, packets: 1 },
        refusal: { errno: 'EPERM', device: 'underlay' },
        outerDestination: B,
        ...{ innerSource: 0x0a10205b, innerDestination: 0x0a102107, protocol: 6, length: 140 },
      },
    ]);
    const inbound = coreOf(make, { local: B });
    const other = watch(inbound);
    receive(inbound, [wire.packetOf({})]);
    other.refusals.refuse(0, 'overlay', 'EIO');
    expect(other.refusals.counts).toEqual({ underlay: {}, overlay: { EIO: 1 } });
    expect(other.samples).toEqual([
      {
        ...{ direction: 'inbound', verdict: abi.DROP_NOT_WRITTEN, packets: 1 },
        refusal: { errno: 'EIO', device: 'overlay' },
      },
    ]);
  });

  test('a packet that is refused when the core has gone on', () => {
    const core = coreOf(make, {});
    const { refusals } = watch(core);
    const packet = wire.packetOf({});
    sendPackets(core, [packet]);
    sendPackets(core, [wire.packetOf({ destination: CONTAINER_C })]);
    refusals.refuseSent({ peer: B, packet }, 'EHOSTUNREACH');
    expect([core.messages.replies().length, stateOf(core, B)?.unreachable, stateOf(core, C)?.unreachable]).toEqual([
      1,
      1,
      undefined,
    ]);
    expect(core.counters('outbound')).toMatchObject({ received: 2, forwarded: 1 });
    refusals.reached(B);
    expect(stateOf(core, B)?.unreachable).toBe(undefined);
  });
});

test.each([
  [Object.assign(new Error('send ENETUNREACH 192.168.16.33:4754'), { code: 'ENETUNREACH' }), 'ENETUNREACH'],
  // What raw-socket throws is the text of strerror(3) in glibc.
  [new Error('Network is unreachable'), 'ENETUNREACH'],
  [new Error('No route to host'), 'EHOSTUNREACH'],
  [new Error('Operation not permitted'), 'EPERM'],
  [new Error('Permission denied'), 'EACCES'],
  [new Error('Message too long'), 'EMSGSIZE'],
  [new Error('No buffer space available'), 'ENOBUFS'],
  [new Error('something else'), 'something else'],
])('%s is %s', (error, name) => {
  expect(sendErrorName(error)).toBe(name);
});
