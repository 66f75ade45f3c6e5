/** Foreign objects on a VM: more than 200 of many kinds, which a daemon may not change. Their devices are named `o-...`, and one of them `inlay1`. */
const SLICE = '10.16.32';
/** Our device, and those that the faults themselves change: their objects do not count as foreign. */
const CHANGING = ['inlay0', 'eth0', 'eth1', 'x0'];
const OUR_PROTOCOLS = ['73', '75'];

const list = (count, line) => Array.from({ length: count }, (_, i) => line(i));

const LINKS = [
  ...list(8, (i) => `link add o-veth${i} type veth peer name o-peer${i}`),
  ...list(8, (i) => `link set o-peer${i} addrgenmode none up`),
  ...list(8, (i) => `link set o-veth${i} addrgenmode none up`),
  ...list(6, (i) => `link add o-br${i} type bridge`),
  ...list(6, (i) => `address add 172.30.${i}.1/24 dev o-br${i}`),
  ...list(4, (i) => `link add o-ifb${i} type ifb`),
  ...list(4, (i) => `link add o-vxlan${i} type vxlan id ${100 + i} dstport ${5000 + i}`),
  ...list(4, (i) => `link add link o-veth0 name o-mac${i} type macvlan mode bridge`),
  ...list(4, (i) => `tuntap add dev o-tap${i} mode tap`),
  'tuntap add dev inlay1 mode tun',
];

/** Static, babel, bird, DHCP and BGP (<linux/rtnetlink.h>). */
const PROTOCOLS = [4, 42, 12, 16, 186];
const ROUTES = [
  ...list(60, (i) => {
    const where = i % 4 === 3 ? '' : ` dev o-veth${i % 8}`;
    const kind = where ? '' : ['unreachable ', 'blackhole ', 'prohibit '][i % 3];
    return `route replace ${kind}198.18.${i}.0/24${where} table ${100 + (i % 6)} proto ${PROTOCOLS[i % 5]} metric ${i % 3}`;
  }),
  'route replace 10.0.0.0/8 dev o-veth1 table 100 proto 73',
  ...list(20, (i) => `route replace 198.19.${i}.0/24 dev o-veth${i % 8} proto ${PROTOCOLS[i % 5]}`),
  // Inside our slice, as containers have them.
  ...list(20, (i) => `route replace ${SLICE}.${150 + i} dev o-veth${i % 8} proto ${PROTOCOLS[i % 5]}`),
];

const RULES = list(20, (i) => `rule add from 203.0.113.${i} lookup ${100 + (i % 6)} priority ${1000 + i}`);

/** Some before our filter (priority 73), some after it. */
const FILTERS = ['ingress', 'egress'].flatMap((place) =>
  list(10, (i) => {
    const match = `protocol ip u32 match ip dst 203.0.113.${i}`;
    return `filter add dev eth0 ${place} prio ${i < 5 ? 10 + i : 100 + i} ${match} flowid 1:1`;
  }),
);

const TABLES = [
  'add table inet others',
  ...list(10, (i) => `add chain inet others c${i} { type filter hook forward priority ${i}; }`),
  ...list(10, (i) => `add rule inet others c${i} ip daddr 203.0.113.${i} accept`),
];

const SYSCTLS = list(8, (i) => [
  `o-veth${i}/forwarding=1`,
  `o-peer${i}/rp_filter=2`,
  `o-peer${i}/accept_local=1`,
]).flat();

/** Shell lines that bring back foreign objects which the command of a fault itself removes. */
export const restoreRoutes = `ip -force -batch - <<'END'\n${ROUTES.join('\n')}\nEND\n`;
export const restoreSysctls = SYSCTLS.map((line) => {
  const [file, value] = line.split('=');
  return `echo ${value} >/proc/sys/net/ipv4/conf/${file}\n`;
}).join('');
/** Only for a device that has none of them. */
export const restoreFilters = `tc qdisc add dev eth0 clsact 2>/dev/null || true
tc -batch - <<'END'\n${FILTERS.join('\n')}\nEND\n`;

/** Makes all of it. */
export async function makeForeign(lab, vm) {
  await lab.ip(vm, [...LINKS, ...RULES]);
  await lab.must(vm, ['sh', '-ec', restoreRoutes + restoreSysctls + restoreFilters]);
  await lab.must(vm, ['nft', '-f', '-'], TABLES.join('\n'));
}

/** What the daemon guards at devices that routes inside its slice lead to. */
const GUARDED_DEVICE = /^(o-veth\d|veth90)$/;
const GUARDED = /\/(o-veth\d|veth90)\/(rp_filter|accept_redirects|send_redirects):/;

const is = (value) => value !== undefined;

/** All that the VM has and the daemon did not make: one line for each object. */
export async function foreignObjects(lab, vm) {
  const json = async (...words) => JSON.parse((await lab.must(vm, words)) || '[]');
  const named = (what) => (object) => `${what} ${JSON.stringify(object)}`;
  const stays = ({ ifname, dev, protocol }) =>
    !CHANGING.includes(ifname ?? dev) && !(OUR_PROTOCOLS.includes(protocol) && is(protocol) && dev === undefined);
  const [links, addresses, routes, rules, disciplines, ingress, egress] = await Promise.all([
    json('ip', '-d', '-j', 'link'),
    json('ip', '-j', 'address'),
    json('ip', '-N', '-j', 'route', 'show', 'table', 'all'),
    json('ip', '-j', 'rule'),
    json('tc', '-j', 'qdisc'),
    json('tc', '-j', 'filter', 'show', 'dev', 'eth0', 'ingress'),
    json('tc', '-j', 'filter', 'show', 'dev', 'eth0', 'egress'),
  ]);
  const conf = "grep -s '' /proc/sys/net/ipv4/conf/*/* /proc/sys/net/ipv4/ip_forward";
  const sysctls = (await lab.must(vm, ['sh', '-c', `${conf}; true`])).split('\n');
  const tables = (await lab.must(vm, ['nft', '-j', 'list', 'ruleset'])).trim();
  // The numbers of u32's hash tables depend on the order in which they were made.
  const isTheirs = ({ kind, options }) => kind === 'u32' && is(options?.match);
  const matchOf = ({ pref, options }) => ({ pref, match: options.match, flowid: options.flowid });
  return [
    ...links.filter(stays).map(named('link')),
    ...addresses.filter(stays).map(named('address')),
    // IPv6 is off on devices that are guarded, and with it the kernel's route of multicast.
    ...routes
      .filter((each) => stays(each) && !(each.dst === 'ff00::/8' && GUARDED_DEVICE.test(each.dev)))
      .map(named('route')),
    ...rules.map(named('rule')),
    ...disciplines.filter(stays).map(named('discipline')),
    ...ingress.filter(isTheirs).map(matchOf).map(named('ingress')),
    ...egress.filter(isTheirs).map(matchOf).map(named('egress')),
    ...sysctls.filter(
      (line) => line && !GUARDED.test(line) && !CHANGING.some((device) => line.includes(`/${device}/`)),
    ),
    ...JSON.parse(tables)
      .nftables.filter(({ metainfo }) => !metainfo)
      .map(named('nft')),
  ];
}
