/** Requests, dumps and notifications, asked of a kernel that the test made. */
import os from 'node:os';
import { beforeEach, describe, expect, test } from 'vitest';
import { Writer } from '../../src/linux/netlink/codec.ts';
import { IFF_UP, link, RTM_GETLINK, RTM_NEWLINK, RTNLGRP_LINK } from '../../src/linux/netlink/link.ts';
import {
  type Message,
  messagesIn,
  NetlinkError,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  putAcknowledgement,
  putMessage,
  type Request,
  request,
} from '../../src/linux/netlink/message.ts';
import { Monitor } from '../../src/linux/netlink/monitor.ts';
import {
  type NeighbourRequest,
  NTF_EXT_LEARNED,
  NTF_SELF,
  NUD_FAILED,
  NUD_INCOMPLETE,
  NUD_PERMANENT,
  NUD_PROBE,
  NUD_REACHABLE,
  neighbour,
  neighbourTable,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_GETNEIGHTBL,
  RTM_NEWNEIGH,
  RTM_SETNEIGHTBL,
  RTNLGRP_NEIGH,
} from '../../src/linux/netlink/neighbour.ts';
import { Netlink } from '../../src/linux/netlink/netlink.ts';
import {
  type RouteRequest,
  RTM_DELROUTE,
  RTM_GETROUTE,
  RTM_NEWROUTE,
  RTN_UNREACHABLE,
  RTNH_F_ONLINK,
  route,
} from '../../src/linux/netlink/route.ts';
import { linksOfKind } from '../../src/linux/netlink/rtnetlink.ts';
import type { Transport } from '../../src/linux/netlink/transport.ts';
import { SystemError } from '../../src/linux/system-error.ts';
import { FakeKernel } from './fake-kernel.ts';

const { EINTR, ENOENT, EPERM } = os.constants.errno;
const AF_INET = 2;
const CREATE = NLM_F_CREATE | NLM_F_EXCL;

let kernel: FakeKernel;
let netlink: Netlink;
let gre: number;

beforeEach(() => {
  kernel = new FakeKernel();
  netlink = new Netlink(kernel.connect());
  gre = kernel.addLink({ name: 'gre1', info: { kind: 'gre' } });
});

const container = (n: number) => Uint8Array.of(10, 16, n >> 8, n);
const vm = (n: number) => Uint8Array.of(192, 168, n >> 8, n);

function newNeighbour(n: number, flags = NLM_F_CREATE | NLM_F_REPLACE, more: NeighbourRequest = {}): Request {
  const body = { family: AF_INET, ifindex: gre, state: NUD_REACHABLE, dst: container(n), lladdr: vm(n), ...more };
  return request(RTM_NEWNEIGH, flags, `neighbour ${n}`, neighbour, body);
}
const newRoute = (n: number, flags: number, more: RouteRequest = {}): Request =>
  request(RTM_NEWROUTE, flags, `route ${n}`, route, {
    ...{ family: AF_INET, dst: container(n), dstLength: 32, oif: gre, ...more },
  });
const allNeighbours = (more: NeighbourRequest = {}) =>
  request(RTM_GETNEIGH, 0, 'neighbours', neighbour, { family: AF_INET, ...more });
const dumped = () => netlink.dump(allNeighbours(), neighbour).map(({ dst }) => dst?.[3]);
const addNeighbours = (count: number) => {
  for (let n = 1; n <= count; n++) netlink.do(newNeighbour(n));
};

describe('do', () => {
  test('does what it is asked for', () => {
    netlink.do(newNeighbour(1));
    expect(kernel.neighbours).toMatchObject([{ ifindex: gre, state: NUD_REACHABLE, lladdr: vm(1) }]);
  });

  test('an acknowledgement is no error', () => {
    netlink.do(newNeighbour(1, NLM_F_CREATE | NLM_F_ACK));
    expect(kernel.neighbours).toHaveLength(1);
  });

  test('an error says what, why, and what the kernel says of it', () => {
    kernel.failNext(RTM_NEWNEIGH, EPERM, 'not today');
    const error = thrownBy(() => netlink.do(newNeighbour(1)));
    expect(error).toBeInstanceOf(NetlinkError);
    expect(error).toBeInstanceOf(SystemError);
    expect(error).toMatchObject({
      ...{ code: 'EPERM', errno: EPERM, syscall: 'netlink', name: 'NetlinkError' },
      message: 'EPERM: netlink neighbour 1: not today',
    });
    kernel.failNext(RTM_NEWNEIGH, ENOENT);
    expect(() => netlink.do(newNeighbour(1))).toThrow('ENOENT: netlink neighbour 1');
    kernel.failNext(RTM_NEWNEIGH, 4000, 'what?');
    expect(() => netlink.do(newNeighbour(1))).toThrow('errno 4000: netlink neighbour 1: what?');
  });
});

describe('tryAll', () => {
  test.each([0, 1, 63, 64, 65, 128, 300])('of %i requests each error is where its request was', (count) => {
    const isBad = (n: number) => n % 7 === 3 || n % 64 === 0 || n % 64 === 63;
    const numbers = Array.from({ length: count }, (_, n) => n);
    const requests = numbers.map((n) => newNeighbour(n, NLM_F_CREATE, isBad(n) ? { ifindex: 99 } : {}));
    const errors = netlink.tryAll(requests);
    expect(errors).toHaveLength(count);
    expect(numbers.filter((n) => errors[n])).toEqual(numbers.filter(isBad));
    for (const n of numbers.filter(isBad)) expect(errors[n]?.message).toBe(`ENODEV: netlink neighbour ${n}`);
    expect(kernel.neighbours).toHaveLength(numbers.filter((n) => !isBad(n)).length);
  });

  test('requests are done in their order, by the kernel as well', () => {
    const errors = netlink.tryAll([newRoute(1, CREATE), newRoute(1, CREATE), newRoute(2, 0)]);
    expect(errors.map((error) => error?.code)).toEqual([undefined, 'EEXIST', 'ENOENT']);
  });

  test('what was left over from before is not taken for an answer', () => {
    const transport = kernel.connect();
    const writer = new Writer();
    putMessage(writer, { type: 99, flags: 1, sequence: 1234 }, () => {});
    transport.send(writer.bytes); // Its error waits now.
    expect(new Netlink(transport).tryAll([newNeighbour(1)])).toEqual([undefined]);
  });
});

describe('get', () => {
  const linkOf = (name: string) => netlink.get(request(RTM_GETLINK, 0, `link ${name}`, link, { name }), link);

  test('answers the one', () => expect(linkOf('gre1')).toMatchObject({ index: gre, info: { kind: 'gre' } }));

  test('throws what the kernel says', () => expect(() => linkOf('gre2')).toThrow('ENODEV: netlink link gre2'));

  test('works with an acknowledgement, too', () => {
    const asked = request(RTM_GETLINK, NLM_F_ACK, 'link', link, { index: gre });
    expect(netlink.get(asked, link)).toMatchObject({ name: 'gre1' });
  });

  test('fails if there is no answer', () => {
    const silent = { ...kernel.connect(), send() {}, receive: () => undefined } as unknown as Transport;
    const asked = request(RTM_GETLINK, 0, 'link x', link, { name: 'x' });
    expect(() => new Netlink(silent).get(asked, link)).toThrow('link x: no answer');
  });
});

describe('dump', () => {
  test.each([0, 1, 2, 3, 4, 6, 7, 20])('answers all %i', (count) => {
    addNeighbours(count);
    expect(dumped()).toEqual(Array.from({ length: count }, (_, i) => i + 1));
  });

  test('a table that changes meanwhile is asked for again', () => {
    addNeighbours(7);
    let parts = 0;
    kernel.dumps.onPart = () => {
      if (++parts === 2) kernel.ask(gre, container(8));
    };
    expect(dumped()).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(parts).toBe(3 + 3);
  });

  test('a table that never stops changing is EINTR in the end', () => {
    addNeighbours(7);
    let changes = 0;
    kernel.dumps.onPart = () => kernel.ask(gre, container(100 + (++changes % 2)));
    expect(thrownBy(dumped)).toMatchObject({
      ...{ errno: EINTR, code: 'EINTR', message: 'EINTR: netlink neighbours: it changed meanwhile' },
    });
    // Each of nine attempts had four parts: of nine neighbours, the last is empty.
    expect(changes).toBe(9 * 4);
    kernel.dumps.onPart = undefined;
    expect(dumped()).toHaveLength(9);
  });

  test('links of a kind that the kernel does not know are none, however the others change', () => {
    for (let i = 0; i < 7; i++) kernel.addLink({ name: `veth${i}`, info: { kind: 'veth' } });
    kernel.dumps.onPart = () => kernel.addLink({ name: 'another', info: { kind: 'veth' } });
    expect(linksOfKind(netlink, 'unknown')).toEqual([]);
  });

  test('an error is thrown at once, with the words of the kernel', () => {
    addNeighbours(1);
    kernel.failNext(RTM_GETNEIGH, EPERM, 'no');
    expect(dumped).toThrow('EPERM: netlink neighbours: no');
    expect(dumped()).toEqual([1]);
    const strict = allNeighbours({ filterIfindex: 1 });
    expect(netlink.dump(strict, neighbour)).toEqual([]);
  });

  test('one that ends in the middle is an error, not a short table', () => {
    addNeighbours(7);
    const transport = kernel.connect();
    let received = 0;
    const receive = () => (++received > 2 ? undefined : transport.receive());
    const broken = { port: 1, send: (datagram: Uint8Array<ArrayBuffer>) => transport.send(datagram), receive };
    expect(() => new Netlink(broken as unknown as Transport).dump(allNeighbours(), neighbour)).toThrow(
      'neighbours: the kernel stopped in the middle of a dump',
    );
  });
});

describe('parts', () => {
  const parts = () => netlink.parts(allNeighbours(), neighbour);

  test('come as the kernel sends them', () => {
    addNeighbours(7);
    kernel.dumps.partSize = 4;
    expect([...parts()].map((part) => part.length)).toEqual([4, 3]);
  });

  test.each([1, 2, 3])('that are left after %i can be followed by another question', (count) => {
    addNeighbours(9);
    const found = [];
    for (const part of parts()) if (found.push(part) === count) break;
    expect(found).toHaveLength(count);
    netlink.do(newNeighbour(10));
    expect(dumped()).toHaveLength(10);
  });

  test('that are left because of an exception can be followed by another question', () => {
    addNeighbours(9);
    const leave = () => {
      for (const _ of parts()) throw new Error('enough');
    };
    expect(leave).toThrow('enough');
    expect(dumped()).toHaveLength(9);
  });

  test('whose bodies cannot be read can be followed by another question', () => {
    addNeighbours(9);
    const bad = { ...neighbour, get: (): never => thrower() };
    expect(() => [...netlink.parts(allNeighbours(), bad)]).toThrow('unreadable');
    expect(dumped()).toHaveLength(9);
  });

  test('end with EINTR if the table changed meanwhile, after all that there was', () => {
    addNeighbours(7);
    const found: number[] = [];
    const read = () => {
      for (const part of parts()) {
        found.push(part.length);
        if (found.length === 1) kernel.ask(gre, container(8));
      }
    };
    expect(thrownBy(read)).toMatchObject({ code: 'EINTR' });
    expect(found).toEqual([3, 3, 2]);
  });

  test('of a kernel that does not tell of changes end without', () => {
    addNeighbours(7);
    kernel.dumps.tellInterruptions = false;
    kernel.dumps.onPart = () => kernel.ask(gre, container(1));
    expect([...parts()].flat()).toHaveLength(7);
  });
});

test('sequence numbers start again after 2^32', () => {
  // A kernel that answers each request with an error, as if the first of them had this number.
  const sequences: number[] = [];
  const queue: Uint8Array[] = [];
  const transport = {
    ...{ port: 1, wait() {}, close() {} },
    send(datagram: Uint8Array<ArrayBuffer>) {
      for (const message of messagesIn(datagram)) {
        sequences.push(message.sequence);
        const writer = new Writer();
        putAcknowledgement(writer, message, EPERM, String(message.type));
        queue.push(writer.bytes);
      }
    },
    receive: () => queue.shift(),
  };
  const asked = new Netlink(transport, 0xfffffffd);
  const errors = asked.tryAll([1, 2, 3, 4].map((type) => request(type, 0, `request ${type}`, link, {})));
  expect(sequences).toEqual([0xfffffffe, 0xffffffff, 0, 1]);
  expect(errors.map((error) => error?.message)).toEqual([1, 2, 3, 4].map((n) => `EPERM: netlink request ${n}: ${n}`));
});

describe('Monitor', () => {
  /** What a monitor told, as words, and how to wait for the next of it. */
  function listen(groups: readonly number[], onMessages: (messages: readonly Message[]) => void = () => {}) {
    const transport = kernel.connect(groups);
    const told: string[] = [];
    let wake = () => {};
    const tell = (words: string) => {
      told.push(words);
      wake();
    };
    const monitor = new Monitor(transport, {
      onMessages: (messages) => {
        onMessages(messages);
        for (const { type, port } of messages) tell(`${type} of ${port}`);
      },
      onOverrun: () => tell('overrun'),
      onFailure: ({ message }) => tell(message),
    });
    const until = async (count: number) => {
      while (told.length < count)
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      return told;
    };
    return { transport, told, monitor, until };
  }
  /** Whatever was to happen has happened. */
  const settled = async () => {
    for (let i = 0; i < 5; i++) await new Promise((resolve) => setImmediate(resolve));
  };

  test('hears its groups, and whose request it was', async () => {
    const { until, monitor } = listen([RTNLGRP_NEIGH]);
    netlink.do(newNeighbour(1));
    netlink.do(newRoute(1, CREATE));
    kernel.ask(gre, container(2));
    netlink.do(newNeighbour(2));
    expect(await until(4)).toEqual([
      `${RTM_NEWNEIGH} of ${netlink.port}`,
      ...[`${RTM_NEWNEIGH} of 0`, `${RTM_GETNEIGH} of 0`, `${RTM_NEWNEIGH} of ${netlink.port}`],
    ]);
    monitor.close();
  });

  test('messages stay as they are when others come', async () => {
    const kept: Message[] = [];
    const { until, monitor } = listen([RTNLGRP_NEIGH], (messages) => kept.push(...messages));
    for (const n of [1, 2, 3]) {
      netlink.do(newNeighbour(n));
      await until(n);
    }
    const found = kept.map(({ view, start, end }) => neighbour.get(view, start, end).dst);
    expect(found).toEqual([1, 2, 3].map(container));
    monitor.close();
  });

  test('many messages come in few calls, and others have their turn between them', async () => {
    const sizes: number[] = [];
    const { until, monitor } = listen([RTNLGRP_NEIGH], (messages) => sizes.push(messages.length));
    for (let n = 0; n < 600; n++) netlink.do(newNeighbour(n));
    await until(600);
    expect(sizes).toEqual([256, 256, 88]);
    monitor.close();
  });

  test('what was lost is told after what was not, and it goes on', async () => {
    const { until, transport, monitor } = listen([RTNLGRP_NEIGH]);
    netlink.do(newNeighbour(1));
    kernel.overrun(transport);
    netlink.do(newNeighbour(2));
    expect(await until(2)).toEqual([`${RTM_NEWNEIGH} of ${netlink.port}`, 'overrun']);
    netlink.do(newNeighbour(3));
    expect(await until(3)).toHaveLength(3);
    kernel.overrun(transport);
    expect((await until(4))[3]).toBe('overrun');
    monitor.close();
  });

  test('a closed one says nothing more: while it waits', async () => {
    const { told, monitor } = listen([RTNLGRP_NEIGH]);
    monitor.close();
    netlink.do(newNeighbour(1));
    await settled();
    expect(told).toEqual([]);
  });

  test('a closed one says nothing more: with something to tell', async () => {
    const { told, monitor } = listen([RTNLGRP_NEIGH]);
    netlink.do(newNeighbour(1));
    monitor.close();
    await settled();
    expect(told).toEqual([]);
  });

  test('a closed one says nothing more: by its listener', async () => {
    const { told, monitor } = listen([RTNLGRP_NEIGH], () => monitor.close());
    netlink.do(newNeighbour(1));
    await settled();
    netlink.do(newNeighbour(2));
    await settled();
    expect(told).toHaveLength(1);
  });

  test('a failure is told once, and is the end', async () => {
    const transport = kernel.connect([RTNLGRP_NEIGH]);
    let closed = 0;
    const failing = {
      ...{ port: transport.port, send() {}, wait: (done: () => void) => transport.wait(done) },
      receive(): never {
        throw new SystemError('read', EPERM, 'from netlink');
      },
      close: () => closed++,
    };
    const failed = new Promise<Error>((resolve) => {
      new Monitor(failing, { onMessages: thrower, onOverrun: thrower, onFailure: resolve });
    });
    netlink.do(newNeighbour(1));
    expect(await failed).toMatchObject({ code: 'EPERM' });
    expect(closed).toBe(1);
    await settled();
    expect(closed).toBe(1);
  });

  test('a listener that throws is a failure', async () => {
    const { until } = listen([RTNLGRP_NEIGH], thrower);
    netlink.do(newNeighbour(1));
    expect(await until(1)).toEqual(['unreadable']);
  });
});

describe('the kernel that the tests made', () => {
  const code = (asked: Request) => netlink.tryAll([asked])[0]?.code;

  test.each([
    ['nothing', 0, ['ENOENT', undefined]],
    ['CREATE', NLM_F_CREATE, [undefined, undefined]],
    ['CREATE and EXCL', CREATE, [undefined, 'EEXIST']],
    ['REPLACE', NLM_F_REPLACE, ['ENOENT', undefined]],
    ['CREATE and REPLACE', NLM_F_CREATE | NLM_F_REPLACE, [undefined, undefined]],
  ])('a neighbour with %s', (_, flags, [absent, present]) => {
    expect(code(newNeighbour(1, flags))).toBe(absent);
    netlink.do(newNeighbour(2));
    expect(code(newNeighbour(2, flags, { lladdr: vm(3) }))).toBe(present);
    const isReplaced = present === undefined && flags & NLM_F_REPLACE;
    expect(kernel.neighbours.find(({ dst }) => dst?.[3] === 2)?.lladdr).toEqual(vm(isReplaced ? 3 : 2));
  });

  test('asks with the sizes that Linux has, and knows the old answer when it probes', () => {
    const monitor = kernel.connect([RTNLGRP_NEIGH], ({ type }) => type === RTM_GETNEIGH);
    kernel.ask(gre, container(1));
    expect(monitor.receive()).toHaveLength(64);
    netlink.do(newNeighbour(1));
    kernel.ask(gre, container(1), NUD_PROBE);
    const [message] = [...messagesIn(monitor.receive() ?? new Uint8Array())] as [Message];
    expect(message).toMatchObject({ type: RTM_GETNEIGH, flags: 1, sequence: 0, port: 0, end: 72 });
    expect(neighbour.get(message.view, message.start, message.end)).toMatchObject({
      ...{ family: AF_INET, ifindex: gre, state: NUD_PROBE, dst: container(1), lladdr: vm(1) },
    });
    netlink.do(newNeighbour(1, NLM_F_REPLACE, { state: NUD_FAILED }));
    expect(kernel.neighbours).toMatchObject([{ state: NUD_FAILED }]);
    expect(kernel.neighbours[0]).not.toHaveProperty('lladdr');
    kernel.ask(gre, container(1), NUD_INCOMPLETE);
    expect(monitor.receive()).toHaveLength(64);
  });

  test('a link that is removed takes all with it, and all is told but the routes', () => {
    const monitor = kernel.connect([RTNLGRP_LINK, RTNLGRP_NEIGH, 7]);
    netlink.do(newRoute(1, CREATE));
    netlink.do(newNeighbour(1, CREATE, { state: NUD_PERMANENT, flags: NTF_EXT_LEARNED }));
    for (let i = 0; i < 2; i++) monitor.receive();
    netlink.do(request(RTM_NEWLINK + 1, 0, 'link', link, { index: gre }));
    const told: number[] = [];
    for (let next = monitor.receive(); next; next = monitor.receive())
      for (const { type } of messagesIn(next)) told.push(type);
    expect(told).toEqual([RTM_DELNEIGH, RTM_NEWLINK + 1]);
    expect([kernel.routes, kernel.neighbours, kernel.links.map(({ name }) => name)]).toEqual([[], [], ['lo']]);
    expect(code(request(RTM_NEWLINK + 1, 0, 'link', link, { index: 1 }))).toBe('EOPNOTSUPP');
  });

  test('routes: replaced, deleted, looked up by their longest prefix', () => {
    netlink.do(newRoute(0, CREATE, { dstLength: 16, dst: container(0), gateway: vm(1), flags: RTNH_F_ONLINK }));
    netlink.do(newRoute(512, CREATE, { dstLength: 24, type: RTN_UNREACHABLE, oif: undefined }));
    const look = (n: number) =>
      netlink.get(
        request(RTM_GETROUTE, 0, 'route', route, { family: AF_INET, dstLength: 32, dst: container(n) }),
        route,
      );
    expect(look(1)).toMatchObject({ dst: container(1), oif: gre, gateway: vm(1) });
    expect(() => look(513)).toThrow('EHOSTUNREACH');
    const remove = (more: RouteRequest) => ({ ...newRoute(0, 0, { dstLength: 16, ...more }), type: RTM_DELROUTE });
    expect(code(remove({ gateway: vm(2) }))).toBe('ESRCH');
    expect(code(remove({ protocol: 0 }))).toBeUndefined();
    expect(() => look(1)).toThrow('ENETUNREACH');
    netlink.do(request(RTM_NEWLINK, 0, 'link', link, { index: gre, flags: 0, change: IFF_UP }));
    expect(netlink.tryAll([newRoute(1, CREATE)])[0]?.message).toContain('Device for nexthop is not up');
  });

  test('entries of a forwarding database are apart', () => {
    const vxlan = kernel.addLink({ name: 'vx0', info: { kind: 'vxlan' } });
    const mac = Uint8Array.of(2, 0, 0, 0, 0, 9);
    netlink.do(newNeighbour(1, CREATE, { family: 7, ifindex: vxlan, flags: NTF_SELF, lladdr: mac, dst: vm(1) }));
    expect(netlink.dump(allNeighbours({ family: 7 }), neighbour)).toMatchObject([{ lladdr: mac, dst: vm(1) }]);
    expect(dumped()).toEqual([]);
  });

  test('parameters of a neighbour table are those of one link', () => {
    const parms = { ifindex: gre, appProbes: 1, ucastProbes: 0, mcastProbes: 0 };
    const table = { family: AF_INET, name: 'arp_cache' };
    netlink.do(request(RTM_SETNEIGHTBL, NLM_F_REPLACE, 'table', neighbourTable, { ...table, parms }));
    const all = netlink.dump(
      request(RTM_GETNEIGHTBL, 0, 'tables', neighbourTable, { family: AF_INET }),
      neighbourTable,
    );
    expect(all.map((each) => [each.parms?.ifindex, each.parms?.appProbes])).toEqual([
      ...[
        [undefined, 0],
        [1, 0],
        [gre, 1],
      ],
    ]);
    expect(code(request(RTM_SETNEIGHTBL, 0, 'table', neighbourTable, { ...table, parms: { ifindex: 99 } }))).toBe(
      'ENOENT',
    );
  });
});

function thrower(): never {
  throw new Error('unreadable');
}

function thrownBy(act: () => unknown): unknown {
  try {
    act();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}
