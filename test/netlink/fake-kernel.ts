/** A kernel in memory: links, IPv4 addresses, routes and neighbours, with the rules and words of Linux (net/core, net/ipv4) as far as tests need them. */
import os from 'node:os';
import { type Address, address, RTM_NEWADDR, RTNLGRP_IPV4_IFADDR } from '../../src/linux/netlink/address.ts';
import {
  IFF_LOOPBACK,
  IFF_NOARP,
  IFF_UP,
  type Link,
  type LinkInfo,
  link,
  type ReceivedLink,
  RTM_NEWLINK,
  RTNLGRP_LINK,
} from '../../src/linux/netlink/link.ts';
import {
  type Message,
  messagesIn,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  putAcknowledgement,
} from '../../src/linux/netlink/message.ts';
import {
  type Neighbour,
  type NeighbourTable,
  NUD_INCOMPLETE,
  neighbourTable,
} from '../../src/linux/netlink/neighbour.ts';
import { type Route, RTN_UNICAST } from '../../src/linux/netlink/route.ts';
import type { Transport } from '../../src/linux/netlink/transport.ts';
import { entryOf, neighbourRules } from './fake-neighbours.ts';
import { routeRules } from './fake-routes.ts';
import { FakeSocket, type SocketOptions } from './fake-socket.ts';
import { type Dumps, hex, Refusal, type Rules, refuse, Table } from './fake-table.ts';

const { EADDRNOTAVAIL, EEXIST, EINVAL, ENODEV, ENOENT, EOPNOTSUPP } = os.constants.errno;
const AF_INET = 2;
const AF_INET6 = 10;
const RTM_NEWNEIGHTBL = 64;

/** Kinds of links that can be made, and what they are like at first. */
const KINDS: Record<string, Partial<Link>> = {
  gre: { type: 778, flags: IFF_NOARP, mtu: 1476, address: new Uint8Array(4) },
  vxlan: { type: 1, mtu: 1450, address: Uint8Array.of(2, 0, 0, 0, 0, 2) },
};
const ARP_CACHE = { family: AF_INET, name: 'arp_cache' };
const ARP: NonNullable<NeighbourTable['parms']> = {
  ...{ baseReachableTime: 30_000, retransTime: 1000, gcStaletime: 60_000, delayProbeTime: 5000 },
  ...{ appProbes: 0, ucastProbes: 3, mcastProbes: 3, queueLenbytes: 212_992 },
};

export class FakeKernel {
  readonly dumps: Dumps = { partSize: 3, tellInterruptions: true, onPart: undefined };
  /** What it has learnt of paths: the MTU towards an address, in hexadecimal digits. */
  readonly paths = new Map<string, number>();
  readonly #sockets = new Set<FakeSocket>();
  readonly #failures: { type: number; refusal: Refusal }[] = [];
  readonly #tables = new Map<number, Table<unknown>>();
  #lastPort = 1000;

  readonly #links = this.#table<ReceivedLink>({
    ...{ type: RTM_NEWLINK, group: RTNLGRP_LINK, codec: link },
    keyOf: ({ index }) => `${index}`,
    put: (given, message) => this.#putLink(given, message),
    find: ({ index, name }) =>
      this.links.find((each) => (index ? index === each.index : name === each.name)) ?? refuse(ENODEV),
    remove: (found, port) => (found.info ? this.#removeLink(found, port) : refuse(EOPNOTSUPP)),
    // Of a kind that it does not know, it sends all.
    isWanted: ({ info }, each) =>
      !this.links.some((other) => other.info?.kind === info?.kind) || info?.kind === each.info?.kind || !info,
  });
  readonly #addresses: Table<Address> = this.#table<Address>({
    ...{ type: RTM_NEWADDR, group: RTNLGRP_IPV4_IFADDR, codec: address },
    keyOf: ({ index, local, prefixLength }) => [index, hex(local), prefixLength].join(),
    put: (given, message) => this.#putAddress(given, message),
    find: (given) => this.#addresses.like(given) ?? refuse(EADDRNOTAVAIL, 'ipv4: Address not found'),
    isWanted: ({ family, index }, each) => family !== AF_INET6 && (!index || index === each.index),
  });
  readonly #routes: Table<Route> = this.#table(
    routeRules(
      (index) => this.#link(index),
      () => this.#routes,
      this.paths,
    ),
  );
  readonly #neighbours: Table<Neighbour> = this.#table(
    neighbourRules(
      (index, words) => this.#link(index, words),
      () => this.#neighbours,
    ),
  );
  /** Of ARP on each link. */
  readonly #parameters = this.#table<NeighbourTable>({
    ...{ type: RTM_NEWNEIGHTBL, group: 0, codec: neighbourTable },
    keyOf: ({ name, parms }) => [name, parms?.ifindex].join(),
    put: (given) => {
      const known = this.#parameters.like(given) ?? refuse(ENOENT);
      this.#parameters.set({ ...known, parms: { ...known.parms, ...given.parms } });
    },
    find: () => refuse(EOPNOTSUPP),
    checkDump: ({ name, parms }) => {
      if (name ?? parms) refuse(EINVAL, 'Invalid data after header in neighbor table dump request');
    },
  });

  constructor() {
    this.#parameters.set({ ...ARP_CACHE, thresh1: 128, thresh2: 512, thresh3: 1024, parms: ARP });
    this.addLink({ name: 'lo', type: 772, flags: IFF_UP | IFF_LOOPBACK, mtu: 65_536 });
  }

  get links(): ReceivedLink[] {
    return this.#links.all;
  }
  get addresses(): Address[] {
    return this.#addresses.all;
  }
  get routes(): Route[] {
    return this.#routes.all;
  }
  get neighbours(): Neighbour[] {
    return this.#neighbours.all;
  }
  get parameters(): NeighbourTable[] {
    return this.#parameters.all;
  }

  /** Opens a socket; `filter` is asked about notifications. */
  connect(groups: readonly number[] = [], filter: SocketOptions['filter'] = () => true): Transport {
    const socket = new FakeSocket({
      port: ++this.#lastPort,
      groups,
      filter,
      onSend: (datagram) => {
        for (const message of messagesIn(datagram)) this.#take(message, socket);
      },
      onClose: () => this.#sockets.delete(socket),
    });
    this.#sockets.add(socket);
    return socket;
  }

  /** Somebody makes a link; returns its number. */
  addLink(given: Link): number {
    const index = given.index || Math.max(0, ...this.links.map((each) => each.index)) + 1;
    const { flags = 0, ...kind } = KINDS[given.info?.kind ?? ''] ?? {};
    const like = { type: 1, flags: IFF_UP | flags, mtu: 1500, address: new Uint8Array(6), ...kind };
    this.#parameters.set({ ...ARP_CACHE, parms: { ...ARP, ifindex: index } });
    this.#links.set({
      family: 0,
      change: 0,
      name: `link${index}`,
      ...like,
      ...given,
      type: given.type || like.type,
      index,
    });
    return index;
  }

  /** Something was sent to a neighbour that is not known, or no longer for sure: those who listen are asked where it is. */
  ask(ifindex: number, dst: Uint8Array, state: number = NUD_INCOMPLETE): void {
    const asked = { family: AF_INET, ifindex, state, flags: 0, type: RTN_UNICAST, dst };
    const entry = entryOf({ ...this.#neighbours.like(asked), ...asked });
    this.#neighbours.set(entry);
    this.#neighbours.ask(entry);
  }

  /** What waits for this socket is lost. */
  overrun(transport: Transport): void {
    (transport as FakeSocket).overrun();
  }

  /** Refuses the next request of this type. */
  failNext(type: number, errno: number, words?: string): void {
    this.#failures.push({ type, refusal: new Refusal(errno, words) });
  }

  #table<T>(rules: Rules<T>): Table<T> {
    const table = new Table(this.#sockets, this.dumps, rules);
    this.#tables.set(rules.type, table);
    return table;
  }

  #take(message: Message, from: FakeSocket): void {
    try {
      const failure = this.#failures.findIndex(({ type }) => type === message.type);
      if (failure >= 0) throw this.#failures.splice(failure, 1)[0]?.refusal;
      const table = this.#tables.get(message.type & ~3) ?? refuse(EOPNOTSUPP);
      const isDump = table.handle({ ...message, port: from.port }, from);
      if (!isDump && message.flags & NLM_F_ACK) from.push((writer) => putAcknowledgement(writer, message, 0));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      from.push((writer) => putAcknowledgement(writer, message, error.errno, error.words));
    }
  }

  #link(index: number, words?: string): ReceivedLink {
    return this.links.find((each) => each.index === index) ?? refuse(ENODEV, words);
  }

  #putLink({ change, netNsFd, netNsPid, ...given }: ReceivedLink, message: Message): void {
    const isElsewhere = netNsFd !== undefined || netNsPid !== undefined;
    const { index, name, info } = given;
    const known = this.links.find((each) => (index ? index === each.index : name === each.name));
    if (!known) {
      if (!(message.flags & NLM_F_CREATE)) refuse(ENODEV);
      if (!KINDS[info?.kind ?? '']) refuse(EOPNOTSUPP, 'Unknown device type');
      if (!isElsewhere) this.addLink({ ...given, flags: given.flags | (KINDS[info?.kind ?? '']?.flags ?? 0) });
      return;
    }
    if (message.flags & NLM_F_EXCL) refuse(EEXIST);
    if (message.flags & NLM_F_REPLACE || (info?.data && info.kind !== known.info?.kind)) refuse(EOPNOTSUPP);
    if (isElsewhere) {
      this.#removeLink(known, message.port);
      return;
    }
    const mask = change || (given.flags ? ~0 : 0);
    const flags = ((known.flags & ~mask) | (given.flags & mask)) >>> 0;
    const merged = { ...known, ...given, flags, index: known.index, type: known.type };
    if (info) merged.info = { kind: info.kind, data: { ...known.info?.data, ...info.data } } as LinkInfo;
    if (known.flags & ~flags & IFF_UP) this.#flush(known.index);
    this.#links.set(merged, message.port);
  }

  #removeLink(found: ReceivedLink, port: number): void {
    this.#flush(found.index);
    for (const each of this.addresses) if (each.index === found.index) this.#addresses.delete(each);
    for (const each of this.parameters) if (each.parms?.ifindex === found.index) this.#parameters.delete(each);
    this.#links.delete(found, port);
  }

  /** A link that goes down takes its neighbours with it and, without a word, its routes. */
  #flush(ifindex: number): void {
    for (const each of this.neighbours) if (each.ifindex === ifindex) this.#neighbours.delete(each);
    for (const [key, { oif }] of this.#routes.entries) if (oif === ifindex) this.#routes.entries.delete(key);
  }

  #putAddress(given: Address, { flags, port }: Message): void {
    const local = given.local ?? refuse(EINVAL, 'ipv4: Local address is not supplied');
    const { name } = this.#link(given.index, 'ipv4: Device not found');
    if (this.#addresses.like(given) && (flags & NLM_F_EXCL || !(flags & NLM_F_REPLACE)))
      refuse(EEXIST, 'ipv4: Address already assigned');
    this.#addresses.set({ address: local, label: name, ...given }, port);
  }
}
