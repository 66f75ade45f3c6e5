/** Every message of src/netlink, as fast-check generates it. */
import fc from 'fast-check';
import { address } from '../../src/linux/netlink/address.ts';
import type { Codec } from '../../src/linux/netlink/codec.ts';
import { family, fou } from '../../src/linux/netlink/generic.ts';
import { link } from '../../src/linux/netlink/link.ts';
import { neighbour, neighbourTable } from '../../src/linux/netlink/neighbour.ts';
import { netconf } from '../../src/linux/netlink/netconf.ts';
import { chain, elements, rule } from '../../src/linux/netlink/nf-tables.ts';
import { route } from '../../src/linux/netlink/route.ts';
import { bpfFilter } from '../../src/linux/netlink/traffic-control.ts';

const edges = (low: number, high: number) =>
  fc.oneof({ weight: 3, arbitrary: fc.integer({ min: low, max: high }) }, fc.constantFrom(low, high));
const u8 = edges(0, 0xff);
const u16 = edges(0, 0xffff);
const u32 = edges(0, 0xffffffff);
const s32 = edges(-0x80000000, 0x7fffffff);
const u64 = edges(0, Number.MAX_SAFE_INTEGER);
/** Names of devices. */
const name = fc.stringMatching(/^[a-z][a-z0-9]{0,14}$/);
const flag = fc.constant(true as const);
const ofLength = (length: number) => fc.uint8Array({ minLength: length, maxLength: length });
const ipv4 = ofLength(4);
const ip = fc.oneof(ipv4, ofLength(16));
const mac = fc.oneof(ofLength(4), ofLength(6));

/** The fields of the structure are always there, the attributes now and then. */
function parts<H extends object, A extends object>(
  header: { [N in keyof H]: fc.Arbitrary<H[N]> },
  attributes: { [N in keyof A]: fc.Arbitrary<A[N]> },
) {
  return fc
    .tuple(fc.record(header), fc.record(attributes, { requiredKeys: [] }))
    .map(([all, some]) => ({ ...all, ...some }));
}
const some = <A extends object>(attributes: { [N in keyof A]: fc.Arbitrary<A[N]> }) =>
  fc.record(attributes, { requiredKeys: [] });

const ifinfomsg = { family: u8, type: u16, index: s32, flags: u32, change: u32 };
const kinds = {
  gre: some({
    ...{ iflags: u16, oflags: u16, ikey: u32, okey: u32, local: ipv4, remote: ipv4, ttl: u8, tos: u8, pmtudisc: u8 },
    ...{ encapType: u16, encapFlags: u16, encapSport: u16, encapDport: u16, collectMetadata: flag, ignoreDf: u8 },
  }),
  vxlan: some({
    ...{ id: u32, link: u32, local: ipv4, ttl: u8, tos: u8, learning: u8, port: u16, udpCsum: u8 },
    ...{ collectMetadata: u8, ttlInherit: flag, df: u8 },
  }),
  tun: some({ type: u8, pi: u8, vnetHdr: u8, persist: u8, multiQueue: u8, numQueues: u32 }),
  veth: some({
    peer: parts(ifinfomsg, {
      ...{ name, mtu: u32, address: mac, netNsPid: u32, netNsFd: u32, numTxQueues: u32, numRxQueues: u32 },
    }),
  }),
};
const info = fc.oneof(
  fc.constantFrom('gre', 'bridge', 'dummy').map((kind) => ({ kind })),
  ...Object.entries(kinds).map(([kind, data]) => fc.record({ kind: fc.constant(kind), data })),
);
const count = { rxPackets: u64, txPackets: u64, rxBytes: u64, txBytes: u64 };
const stats = fc.record({ ...count, rxErrors: u64, txErrors: u64, rxDropped: u64, txDropped: u64 });

const data = some({ value: ip, verdict: some({ code: u32, chain: name }) });
const extension = some({ name, revision: u32, info: ofLength(8) });
const expression = fc.oneof(
  fc.record({ name: fc.constantFrom('counter', 'masq') }),
  ...Object.entries({
    immediate: some({ dreg: u32, data }),
    cmp: some({ sreg: u32, op: u32, data }),
    range: some({ sreg: u32, op: u32, from: data, to: data }),
    bitwise: some({ sreg: u32, dreg: u32, len: u32, mask: data, xor: data, op: u32 }),
    payload: some({ dreg: u32, base: u32, offset: u32, len: u32 }),
    meta: some({ dreg: u32, key: u32 }),
    ct: some({ dreg: u32, key: u32 }),
    lookup: some({ set: name, sreg: u32, dreg: u32, flags: u32 }),
    nat: some({ type: u32, addressMin: u32, addressMax: u32 }),
    match: extension,
    target: extension,
  }).map(([kind, values]) => fc.record({ name: fc.constant(kind), data: values as fc.Arbitrary<object> })),
);

export interface Example {
  /** Of the codec. */
  name: string;
  // biome-ignore lint/suspicious/noExplicitAny: each codec has values of its own type.
  codec: Codec<any>;
  /** Of its structure, in bytes. */
  header: number;
  values: fc.Arbitrary<object>;
}

export const examples: readonly Example[] = [
  {
    ...{ name: 'link', codec: link, header: 16 },
    values: parts(ifinfomsg, {
      ...{ address: mac, name, mtu: u32, link: u32, master: u32, txQueueLength: u32, info, netNsPid: u32, alias: name },
      ...{ stats, afSpec: some({ inet6: some({ addrGenMode: u8 }) }), netNsFd: u32, gsoMaxSegs: u32, gsoMaxSize: u32 },
      ...{ linkNetNsId: s32, targetNetNsId: s32 },
      ...{ group: u32, numTxQueues: u32, numRxQueues: u32 },
    }),
  },
  {
    ...{ name: 'address', codec: address, header: 8 },
    values: parts(
      { family: u8, prefixLength: u8, flags: u8, scope: u8, index: u32 },
      { address: ip, local: ip, label: name, protocol: u8 },
    ),
  },
  {
    ...{ name: 'route', codec: route, header: 12 },
    values: parts(
      {
        ...{ family: u8, dstLength: u8, srcLength: u8, tos: u8, table: u8 },
        ...{ protocol: u8, scope: u8, type: u8, flags: u32 },
      },
      {
        ...{ dst: ip, src: ip, oif: u32, gateway: ip, priority: u32, prefsrc: ip, encapType: u16 },
        metrics: some({ lock: u32, mtu: u32, window: u32, ssthresh: u32 }),
        multipath: fc.array(fc.record({ ifindex: s32 }), { maxLength: 3 }),
        encap: some({ id: ofLength(8), dst: ipv4, src: ipv4, ttl: u8, tos: u8 }),
      },
    ),
  },
  {
    ...{ name: 'neighbour', codec: neighbour, header: 12 },
    values: parts(
      { family: u8, ifindex: s32, state: u16, flags: u8, type: u8 },
      {
        ...{ dst: ip, lladdr: mac, probes: u32, vlan: u16, port: u16, vni: u32, filterIfindex: u32, protocol: u8 },
        cacheInfo: fc.record({ confirmed: u32, used: u32, updated: u32, references: u32 }),
      },
    ),
  },
  {
    ...{ name: 'neighbourTable', codec: neighbourTable, header: 4 },
    values: parts(
      { family: u8 },
      {
        ...{ name, thresh1: u32, thresh2: u32, thresh3: u32 },
        parms: some({
          ...{ ifindex: u32, baseReachableTime: u64, retransTime: u64, gcStaletime: u64, delayProbeTime: u64 },
          ...{ appProbes: u32, ucastProbes: u32, mcastProbes: u32, queueLenbytes: u32 },
        }),
      },
    ),
  },
  {
    ...{ name: 'bpfFilter', codec: bpfFilter, header: 20 },
    values: parts(
      { family: u8, ifindex: s32, handle: u32, parent: u32, info: u32 },
      { kind: name, options: some({ fd: u32, name, flags: u32, tag: ofLength(8), id: u32 }) },
    ),
  },
  {
    ...{ name: 'netconf', codec: netconf, header: 4 },
    values: parts({ family: u8 }, { ifindex: s32, forwarding: s32 }),
  },
  {
    ...{ name: 'family', codec: family, header: 4 },
    values: parts({ command: u8, version: u8 }, { id: u16, name }),
  },
  {
    ...{ name: 'fou', codec: fou, header: 4 },
    values: parts({ command: u8, version: u8 }, { port: u16, family: u8, protocol: u8, type: u8 }),
  },
  {
    ...{ name: 'chain', codec: chain, header: 4 },
    values: parts(
      { family: u8, version: u8, resource: u16 },
      { table: name, name, hook: some({ hooknum: u32 }), policy: u32, type: name },
    ),
  },
  {
    ...{ name: 'rule', codec: rule, header: 4 },
    values: parts(
      { family: u8, version: u8, resource: u16 },
      { table: name, chain: name, expressions: fc.array(expression, { maxLength: 4 }) },
    ),
  },
  {
    ...{ name: 'elements', codec: elements, header: 4 },
    values: parts(
      { family: u8, version: u8, resource: u16 },
      {
        ...{ table: name, set: name },
        elements: fc.array(some({ key: data, data, flags: u32, keyEnd: data }), { maxLength: 3 }),
      },
    ),
  },
];
