/** Configurations, and the addresses that make sense under them. */
import { abi } from 'inlay/core';

const mapping = (overlay, overlayLength, underlay, underlayLength) => ({
  overlay,
  overlayLength,
  underlay,
  underlayLength,
});
const TEN = mapping(0x0a000000, 8, 0xc0a80000, 16);
/** So many VMs that more of them share a set of the tunnel table than it has ways. */
const LARGE = [mapping(0xf0000000, 4, 0x0a000000, 8)];
const PLANS = [
  [TEN],
  [TEN],
  [TEN],
  [mapping(0xf0000000, 4, 0xc0a80000, 17)],
  [TEN, mapping(0xf0000000, 4, 0xc0a80000, 16)],
  [mapping(0x0a000000, 8, 0xac100800, 21)],
  LARGE,
];
/** VM 192.168.16.32, that of the vectors. */
const HERE = 0xc0a81020;
/** That with which it talks there. */
const THERE = 0xc0a81021;

/** VMs that share two sets of the tunnel table, so that tunnels evict each other. */
const rivals = [];
for (let vm = LARGE[0].underlay + 2; rivals.length < 3 * abi.TUNNEL_WAYS; vm++) {
  if (Math.imul(vm, 0x9e3779b1) >>> (32 - abi.TUNNEL_SETS_LOG2) < 2) rivals.push(vm);
}

/** Addresses that no mapping here covers, or that are nobody's anywhere. */
const ELSEWHERE = [0, 1, 0x08080808, 0x7f000001, 0xe0000001, 0xffffffff, 0xc0a81020, 0xc0a81021, 0x80000000];

const isIn = (vm, { underlay, underlayLength }) => vm >= underlay && vm < underlay + 2 ** (32 - underlayLength);

/** A plan and what goes with it: `config` and `devices` for the core, and for the generator the VMs. Crowded: most VMs are like any other. */
export function drawSetup(random, isCrowded) {
  const plan = isCrowded ? LARGE : random.pick(PLANS);
  const { underlay, underlayLength } = plan[0];
  const vms = 2 ** (32 - underlayLength);
  const known = isIn(HERE, plan[0]);
  const usual = known ? HERE : underlay + random.between(1, vms - 2);
  const peers = [known ? THERE : underlay + random.between(1, vms - 1), underlay + random.below(vms), usual + 2];
  if (plan === LARGE) peers.push(...rivals);
  const mappings = random.chance(90) ? plan : [...plan, ...nonsense(random)];
  const local = random.chance(97) ? usual : random.pick([0, THERE, 0x08080808, underlay]);
  return redrawSetup(random, { config: { local, mappings }, peers, isCrowded });
}

/** A VM to talk to. */
export function anyPeer(random, { peers, isCrowded }) {
  if (!isCrowded || random.chance(20)) return random.pick(peers);
  const [{ underlay, underlayLength }] = LARGE;
  return underlay + random.below(2 ** (32 - underlayLength));
}

/** The same VMs with other options and devices: what the core knows of tunnels meets another configuration. */
export function redrawSetup(random, { config: { local, mappings }, peers, isCrowded }) {
  const config = { local, mappings, ...drawOptions(random) };
  return { config, devices: drawDevices(random), local, peers, isCrowded };
}

function drawOptions(random) {
  return {
    key: random.chance(60) ? undefined : random.pick([9, 0, 0xffffffff, 0xdecafbad, random.u32()]),
    greChecksum: random.chance(20),
    greSequence: random.chance(20),
    ttl: random.pick([64, 64, 255, 1, 0, 256, -1, 'inherit', 'inherit']),
    ecn: random.pick(['normal', 'normal', 'compatibility']),
    dscp: random.pick([0, 0, 46, 63, 64, -1, 'uniform', 'uniform', 'uniform']),
    pathMtuDiscovery: random.chance(70),
    clampMss: random.chance(50),
    mtu: random.chance(94)
      ? random.pick([1476, 1476, 1476, 1456, 1276, 576, 100, 68, 65535])
      : random.pick([67, 0, -1, 65511, 65536, 2147483647, -2147483648]),
    encapsulation: random.pick(['gre', 'gre-udp']),
  };
}

function drawDevices(random) {
  return {
    base: random.pick([0, 0, 0x1000, 0xffffffff, 2 ** 32, 0x7f1234567000, 2 ** 53 - 1]),
    offloads: random.chance(50) ? random.pick([7, 15]) : random.chance(90) ? random.below(16) : random.u32(),
    ports: random.pick([1, 1, 2, 3, 8, 8, 8, 0, -1, 9, 2147483647, -2147483648]),
  };
}

/** Mappings of which some do not fit; the core says so, and keeps those before. */
function nonsense(random) {
  return Array.from({ length: random.between(1, 20) }, () =>
    mapping(
      random.pick([0x0a000000, HERE, 0xf0000000, 0, random.u32()]),
      random.between(-1, 33),
      random.pick([0x0a000000, HERE, 0xf0000000, 0, random.u32()]),
      random.between(-1, 33),
    ),
  );
}

/** The overlay address of a container of `vm`: one of `count`, which are few, so that they meet again. */
export function container(random, { config }, vm, count = 4) {
  const { mappings } = config;
  const of = mappings[mappings.length > 1 && random.chance(50) ? 1 : 0];
  const bits = of.underlayLength - of.overlayLength;
  return (of.overlay + (vm - of.underlay) * 2 ** bits + random.between(1, count)) >>> 0;
}

/** An address that is probably wrong where it is put, and is on the edge of something. */
export function oddAddress(random, setup) {
  const [of] = setup.config.mappings;
  const slice = 2 ** (of.underlayLength - of.overlayLength);
  switch (random.below(5)) {
    case 0:
      return random.pick(ELSEWHERE);
    case 1:
      return random.u32();
    case 2: // a slice itself, or all ones of the one before
      return (
        (container(random, setup, random.chance(50) ? setup.local : random.pick(setup.peers)) & -slice) -
        random.below(2)
      );
    case 3:
      return container(random, setup, random.chance(50) ? setup.local : random.pick(setup.peers));
    default:
      return of.underlay + random.pick([0, -1, 1, 2 ** (32 - of.underlayLength) - 1, 2 ** (32 - of.underlayLength)]);
  }
}
