/** pyroute2, which knows netlink by itself, reads in our messages what we put into them, and in the kernel's what we read in them. */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Codec, Writer } from '../../src/linux/netlink/codec.ts';
import { messagesIn, putMessage } from '../../src/linux/netlink/message.ts';
import { skip } from '../net/require.ts';
import { examples } from './arbitraries.ts';
import { goldens, kindOf } from './golden.ts';

const DECODE = fileURLToPath(new URL('./decode.py', import.meta.url));
/** Debian's own, which has Debian's packages. */
const PYTHON = '/usr/bin/python3';
/** INLAY_SEED=number makes the same messages again. */
const SEED = Number(process.env['INLAY_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
const RANDOM = 30;

function missing(): string | undefined {
  try {
    execFileSync(PYTHON, ['-c', 'import pyroute2'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'missing on this machine: pyroute2 (apt-get install python3-pyroute2)';
  }
}

type Names = { [ours: string]: string | Names | ((value: never) => object) };
const ipv4 = (name: string) => (value: Uint8Array) => ({ [name]: [...value].join('.') });
const colons = (value: Uint8Array) => [...value].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
/** It reads six bytes, even if there are four. */
const mac = (name: string) => (value: Uint8Array) => ({ [name]: expect.stringMatching(`^${colons(value)}`) });
/** Here it takes the length for the meaning. */
const linkLayer = (name: string) => (value: Uint8Array) => (value.length === 4 ? ipv4(name) : mac(name))(value);
const nested = (name: string, names: Names) => (value: object) => ({ [name]: renamed(names, value) });
const prefixed = (prefix: string, names: Record<string, string>): Names =>
  Object.fromEntries(Object.entries(names).map(([ours, theirs]) => [ours, prefix + theirs]));

/** Our values by pyroute2's names. */
function renamed(names: Names, value: object): object {
  const found = {};
  for (const [name, inside] of Object.entries(value)) {
    const theirs = names[name];
    if (typeof theirs === 'function') Object.assign(found, theirs(inside as never));
    else if (typeof theirs === 'string') Object.assign(found, { [theirs]: inside });
  }
  return found;
}

const ifinfomsg = { family: 'family', type: 'ifi_type', index: 'index', flags: 'flags', change: 'change' };
const peer = {
  ...{ ...ifinfomsg, name: 'IFLA_IFNAME', mtu: 'IFLA_MTU', address: mac('IFLA_ADDRESS') },
  ...prefixed('IFLA_NET_NS_', { netNsPid: 'PID', netNsFd: 'FD' }),
  ...prefixed('IFLA_NUM_', { numTxQueues: 'TX_QUEUES', numRxQueues: 'RX_QUEUES' }),
};
const kinds: Record<string, Names> = {
  gre: {
    ...prefixed('IFLA_GRE_', {
      ...{ iflags: 'IFLAGS', oflags: 'OFLAGS', ikey: 'IKEY', okey: 'OKEY', ttl: 'TTL', tos: 'TOS' },
      ...{ pmtudisc: 'PMTUDISC', encapType: 'ENCAP_TYPE', encapFlags: 'ENCAP_FLAGS', encapSport: 'ENCAP_SPORT' },
      ...{ encapDport: 'ENCAP_DPORT', collectMetadata: 'COLLECT_METADATA', ignoreDf: 'IGNORE_DF' },
    }),
    ...{ local: ipv4('IFLA_GRE_LOCAL'), remote: ipv4('IFLA_GRE_REMOTE') },
  },
  vxlan: {
    ...prefixed('IFLA_VXLAN_', {
      ...{ id: 'ID', link: 'LINK', ttl: 'TTL', tos: 'TOS', learning: 'LEARNING', port: 'PORT', udpCsum: 'UDP_CSUM' },
      ...{ collectMetadata: 'COLLECT_METADATA', ttlInherit: 'TTL_INHERIT', df: 'DF' },
    }),
    local: ipv4('IFLA_VXLAN_LOCAL'),
  },
  tun: prefixed('IFLA_TUN_', {
    ...{ type: 'TYPE', pi: 'PI', vnetHdr: 'VNET_HDR', persist: 'PERSIST', multiQueue: 'MULTI_QUEUE' },
    numQueues: 'NUM_QUEUES',
  }),
  veth: { peer: nested('VETH_INFO_PEER', peer) },
};
const stats = {
  ...{ rxPackets: 'rx_packets', txPackets: 'tx_packets', rxBytes: 'rx_bytes', txBytes: 'tx_bytes' },
  ...{ rxErrors: 'rx_errors', txErrors: 'tx_errors', rxDropped: 'rx_dropped', txDropped: 'tx_dropped' },
};
const names: Record<string, Names> = {
  link: {
    ...peer,
    ...prefixed('IFLA_', {
      ...{ link: 'LINK', master: 'MASTER', txQueueLength: 'TXQLEN', alias: 'IFALIAS' },
      ...{ gsoMaxSegs: 'GSO_MAX_SEGS', gsoMaxSize: 'GSO_MAX_SIZE', group: 'GROUP' },
      linkNetNsId: 'LINK_NETNSID',
    }),
    // It takes the number for one without a sign.
    targetNetNsId: (id: number) => ({ IFLA_IF_NETNSID: id >>> 0 }),
    info: ({ kind, data }: { kind: string; data?: object }) => ({
      IFLA_LINKINFO: {
        IFLA_INFO_KIND: kind,
        ...(data && Object.keys(data).length > 0 && { IFLA_INFO_DATA: renamed(kinds[kind] ?? {}, data) }),
      },
    }),
    afSpec: nested('IFLA_AF_SPEC', { inet6: nested('AF_INET6', { addrGenMode: 'IFLA_INET6_ADDR_GEN_MODE' }) }),
    // As bytes, with its attribute's header: pyroute2 expects the kernel's, which are longer.
    stats: (value: object) => {
      const numbers = Buffer.from(BigUint64Array.from(Object.values(value).map(BigInt)).buffer);
      return { IFLA_STATS64: expect.stringMatching(`^....1700${numbers.toString('hex')}`) };
    },
  },
  address: {
    ...{ family: 'family', prefixLength: 'prefixlen', flags: 'flags', scope: 'scope', index: 'index' },
    ...{ address: ipv4('IFA_ADDRESS'), local: ipv4('IFA_LOCAL'), label: 'IFA_LABEL' },
    // pyroute2 0.7 does not know IFA_PROTO, which is of Linux 5.18.
    protocol: () => ({}),
  },
  route: {
    ...{ family: 'family', dstLength: 'dst_len', srcLength: 'src_len', tos: 'tos', table: 'table', protocol: 'proto' },
    ...{ scope: 'scope', type: 'type', flags: 'flags', oif: 'RTA_OIF', priority: 'RTA_PRIORITY' },
    ...{ dst: ipv4('RTA_DST'), src: ipv4('RTA_SRC'), gateway: ipv4('RTA_GATEWAY'), prefsrc: ipv4('RTA_PREFSRC') },
    metrics: nested('RTA_METRICS', {
      lock: 'RTAX_LOCK',
      mtu: 'RTAX_MTU',
      window: 'RTAX_WINDOW',
      ssthresh: 'RTAX_SSTHRESH',
    }),
    multipath: (hops: { ifindex: number }[]) =>
      hops.length > 0 ? { RTA_MULTIPATH: hops.map(({ ifindex }) => ({ flags: 0, hops: 0, oif: ifindex })) } : {},
    encapType: 'RTA_ENCAP_TYPE',
  },
  neighbour: {
    ...{ family: 'family', ifindex: 'ifindex', state: 'state', flags: 'flags', type: 'ndm_type' },
    ...{ dst: ipv4('NDA_DST'), lladdr: linkLayer('NDA_LLADDR') },
    ...prefixed('NDA_', { probes: 'PROBES', vlan: 'VLAN', port: 'PORT', vni: 'VNI', filterIfindex: 'IFINDEX' }),
    cacheInfo: nested('NDA_CACHEINFO', {
      ...{ confirmed: 'ndm_confirmed', used: 'ndm_used', updated: 'ndm_updated', references: 'ndm_refcnt' },
    }),
  },
  neighbourTable: {
    family: 'family',
    ...prefixed('NDTA_', { name: 'NAME', thresh1: 'THRESH1', thresh2: 'THRESH2', thresh3: 'THRESH3' }),
    parms: nested(
      'NDTA_PARMS',
      prefixed('NDTPA_', {
        ...{ ifindex: 'IFINDEX', baseReachableTime: 'BASE_REACHABLE_TIME', retransTime: 'RETRANS_TIME' },
        ...{ gcStaletime: 'GC_STALETIME', delayProbeTime: 'DELAY_PROBE_TIME', appProbes: 'APP_PROBES' },
        ...{ ucastProbes: 'UCAST_PROBES', mcastProbes: 'MCAST_PROBES', queueLenbytes: 'QUEUE_LENBYTES' },
      }),
    ),
  },
  bpfFilter: {
    ...{ family: 'family', ifindex: 'index', handle: 'handle', parent: 'parent', info: 'info', kind: 'TCA_KIND' },
    options: nested('TCA_OPTIONS', prefixed('TCA_BPF_', { fd: 'FD', name: 'NAME', flags: 'FLAGS' })),
  },
};

/** With what pyroute2 needs to understand it: IPv4, Ethernet, and the kind of a queueing discipline. */
function understood(kind: string, value: object): object {
  const changed = Object.entries(value).map(([name, inside]) => {
    if (['dst', 'src', 'gateway', 'prefsrc', 'local'].includes(name)) return [name, inside.slice(0, 4)];
    if (name === 'address' && kind !== 'link') return [name, inside.slice(0, 4)];
    return [name, inside];
  });
  return { ...Object.fromEntries(changed), family: 2, ...('options' in value && { kind: 'bpf' }) };
}

function decodedByPyroute2(messages: readonly { kind: string; message: Uint8Array }[]): object[] {
  const lines = messages.map(({ kind, message }) => `${kind} ${Buffer.from(message).toString('hex')}\n`);
  const options = { input: lines.join(''), encoding: 'utf8', maxBuffer: 64 << 20 } as const;
  return execFileSync(PYTHON, [DECODE], options)
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line));
}

describe.skipIf(skip('pyroute2', missing()))('pyroute2', () => {
  test(`reads in our messages what we put into them, INLAY_SEED=${SEED}`, () => {
    const ours = examples
      .filter(({ name }) => names[name])
      .flatMap(({ name: kind, codec, values }) =>
        // Everything at once, then whatever comes.
        [
          ...fc.sample(complete(values), { seed: SEED, numRuns: 3 }),
          ...fc.sample(values, { seed: SEED, numRuns: RANDOM }),
        ]
          .map((value) => understood(kind, value))
          .map((value) => ({ kind, value, message: encoded(codec, value) })),
      );
    const theirs = decodedByPyroute2(ours);
    expect(theirs).toHaveLength(ours.length);
    for (const [i, { kind, value }] of ours.entries())
      expect(theirs[i], `${kind} ${JSON.stringify(value)}`).toMatchObject(renamed(names[kind] ?? {}, value));
  });

  test("reads in the kernel's messages what we read in them", () => {
    const all = goldens.flatMap(({ name, hex, messages }) => {
      const bytes = Buffer.from(hex, 'hex');
      return [...messagesIn(bytes)].flatMap(({ type, start, end }, i) => {
        const kind = kindOf(type)?.kind;
        // It has no netconf.
        return kind && names[kind]
          ? [{ name, kind, message: bytes.subarray(start - 16, end), value: messages[i]?.value ?? {} }]
          : [];
      });
    });
    const theirs = decodedByPyroute2(all);
    expect(theirs.length).toBeGreaterThan(15);
    for (const [i, { name, kind, value }] of all.entries()) {
      const known = { ...names[kind], ...(kind === 'link' && { stats: nested('IFLA_STATS64', stats) }) };
      expect(theirs[i], name).toMatchObject(renamed(known, value));
    }
  });
});

/** Only those with many attributes. */
function complete(values: fc.Arbitrary<object>): fc.Arbitrary<object> {
  return fc
    .array(values, { minLength: 30, maxLength: 30 })
    .map((all) => Object.assign({}, ...all.sort((a, b) => Object.keys(a).length - Object.keys(b).length)));
}

function encoded(codec: Codec<object>, value: object): Uint8Array {
  const writer = new Writer();
  putMessage(writer, { type: 16, flags: 5, sequence: 7 }, (body) => codec.put(body, value));
  return writer.bytes.slice();
}
