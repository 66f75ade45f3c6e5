/**
 * The settings: one table from which the flags, the file's schema, the defaults, the type and README's table
 * of settings come.
 */
import * as v from 'valibot';
import { type Access, parseAccess } from '../mesh/access.ts';
import { formatPrefix, network, type Prefix, parseAddress, parsePrefix } from '../mesh/address.ts';
import { DEFAULT_RUN_DIR } from './run-dir.ts';

/** A prefix without host bits, such as 10.0.0.0/8. */
const prefix = v.pipe(
  v.string('expected a prefix such as 10.0.0.0/8'),
  v.rawTransform<string, Prefix>(({ dataset, addIssue, NEVER }) => {
    const found = parsePrefix(dataset.value);
    if (!found) {
      addIssue({ message: 'expected an IPv4 prefix such as 10.0.0.0/8' });
      return NEVER;
    }
    const clean = network(found, found.length);
    if (clean.bits !== found.bits) {
      addIssue({ message: `expected no bits beyond the prefix length: ${formatPrefix(clean)}` });
      return NEVER;
    }
    return clean;
  }),
);

const address = v.pipe(
  v.string('expected an IPv4 address such as 192.168.16.32'),
  v.rawTransform(({ dataset, addIssue, NEVER }) => {
    const found = parseAddress(dataset.value);
    if (found) return found;
    addIssue({ message: 'expected an IPv4 address such as 192.168.16.32' });
    return NEVER;
  }),
);

/**
 * Every IPv4 host takes packets of 576 bytes (RFC 791 §3.1), so a tunnel should, too: with GRE around it,
 * such a packet has 600.
 */
const MIN_UNDERLAY_MTU = 600;

/** A whole number: flags bring digits, files bring numbers. */
function wholeNumber(min: number, max: number, expected = `expected a number from ${min} to ${max}`) {
  return v.pipe(
    v.union([v.number(), v.pipe(v.string(), v.regex(/^\d+$/), v.transform(Number))], expected),
    v.integer(expected),
    v.minValue(min, expected),
    v.maxValue(max, expected),
  );
}

const UNITS = { us: 0.001, ms: 1, s: 1000, m: 60_000, h: 3_600_000 } as const;
/** A duration between two others; the value is in ms. */
function duration(min: string, max: string, example: string) {
  const expected = `expected a duration such as ${example}`;
  return v.pipe(
    v.string(expected),
    v.regex(/^\d+(us|ms|s|m|h)$/, expected),
    v.transform(milliseconds),
    v.minValue(milliseconds(min), `expected at least ${min}`),
    v.maxValue(milliseconds(max), `expected at most ${max}`),
  );
}

function milliseconds(text: string): number {
  return Number.parseInt(text, 10) * UNITS[text.replace(/^\d+/, '') as keyof typeof UNITS];
}

/**
 * Linux: IFNAMSIZ is 16 bytes with the final zero; no slash, no white space (dev_valid_name in
 * net/core/dev.c); % asks for a number; all and default are directories of sysctls.
 */
const DEVICE = 'expected a device name of 1 to 15 ASCII characters without / : % and white space, not all or default';
const device = v.pipe(v.string(DEVICE), v.regex(/^(?!(\.{1,2}|all|default)$)[!-$&-.0-9;-~]{1,15}$/, DEVICE));

/** The control socket in it has a path of at most 107 bytes (sun_path, unix(7)). */
const RUN_DIR = 'expected a directory, its path at most 90 bytes';
const runDir = v.pipe(v.string(RUN_DIR), v.minLength(1, RUN_DIR), v.maxBytes(90, RUN_DIR));

const oneOf = <const T extends readonly string[]>(values: T) =>
  v.picklist(values, `expected ${values.slice(0, -1).join(', ')}${values.length > 1 ? ' or ' : ''}${values.at(-1)}`);

/** A whole number, or a word. */
function numberOr<const W extends string>(min: number, max: number, word: W) {
  const expected = `expected a number from ${min} to ${max} or ${word}`;
  return v.union([v.literal(word), wholeNumber(min, max, expected)], expected);
}

const onOff = v.pipe(
  oneOf(['on', 'off']),
  v.transform((value) => value === 'on'),
);

const mappings = v.pipe(
  v.array(
    v.strictObject({ overlay: prefix, underlay: prefix }, 'expected an overlay and an underlay prefix'),
    'expected a list of overlay and underlay pairs',
  ),
  v.minLength(1, 'expected at least one pair'),
  v.maxLength(16, 'expected at most 16 pairs'),
);

const ACCESS = 'expected a list of ADDRESS[/LENGTH][:PORT], vm[:PORT] or all, such as 192.168.0.2:53,vm:53';
const access = v.pipe(
  v.union(
    [
      v.pipe(
        v.string(),
        v.transform((text) => text.split(',').map((entry) => entry.trim())),
      ),
      v.array(v.string(ACCESS), ACCESS),
    ],
    ACCESS,
  ),
  v.maxLength(64, 'expected at most 64 entries'),
  v.rawTransform<string[], Access[]>(({ dataset, addIssue, NEVER }) => {
    const entries = dataset.value.map(parseAccess);
    if (!entries.includes(undefined)) return entries as Access[];
    addIssue({ message: ACCESS });
    return NEVER;
  }),
);

export interface Setting {
  /** What stands for the value in help and documentation; a setting without it has no flag. */
  readonly placeholder?: string;
  readonly description: string;
  /** In the text of a flag. */
  readonly default?: string;
  readonly schema: v.GenericSchema<unknown, unknown>;
}

/** Every setting by its name, which is both its key in the file and its flag. */
export const settings = {
  overlay: { placeholder: 'PREFIX', description: "the containers' network", schema: prefix },
  underlay: { placeholder: 'PREFIX', description: "the VMs' network", schema: prefix },
  mappings: { description: 'several pairs of overlay and underlay, instead of one', schema: mappings },
  local: {
    placeholder: 'ADDRESS',
    description: "this VM's underlay address (default: the machine's one address inside the underlay prefix)",
    schema: address,
  },
  device: { placeholder: 'NAME', description: "name of the overlay's device", default: 'inlay0', schema: device },
  encapsulation: {
    placeholder: 'FORMAT',
    description:
      'format of packets on the underlay: gre (IP protocol 47); gre-udp (UDP port 4754), which passes clouds that drop protocol 47; or vxlan (dataplane kernel). A VM with dataplane wasm understands both gre and gre-udp',
    default: 'gre',
    schema: oneOf(['gre', 'gre-udp', 'vxlan']),
  },
  dataplane: {
    placeholder: 'PLANE',
    description:
      'what forwards packets: wasm, the packet core in this process; or kernel, a GRE or VXLAN device of the kernel, which asks this process only where each VM is',
    default: 'wasm',
    schema: oneOf(['wasm', 'kernel']),
  },
  key: {
    placeholder: 'NUMBER',
    description: 'GRE key that all VMs share (default: none), or VXLAN network identifier (default: 1)',
    schema: wholeNumber(0, 0xffffffff),
  },
  'gre-checksum': {
    placeholder: 'SWITCH',
    description: 'whether packets are sent with a GRE checksum: on or off. A checksum that comes in is always checked',
    default: 'off',
    schema: onOff,
  },
  'gre-sequence': {
    placeholder: 'SWITCH',
    description:
      'whether packets carry GRE sequence numbers: on or off, the same on all VMs. With on, packets that come late or without a number are dropped',
    default: 'off',
    schema: onOff,
  },
  ttl: {
    placeholder: 'TTL',
    description: 'outer time to live, 1 to 255, or inherit: copied from the inner packet',
    default: '64',
    schema: numberOr(1, 255, 'inherit'),
  },
  dscp: {
    placeholder: 'DSCP',
    description: 'outer DSCP, 0 to 63, or uniform: copied from the inner packet, and back (RFC 2983)',
    default: '0',
    schema: numberOr(0, 63, 'uniform'),
  },
  ecn: {
    placeholder: 'MODE',
    description: 'outer ECN field (RFC 6040): normal, copied from the inner packet; or compatibility, always empty',
    default: 'normal',
    schema: oneOf(['normal', 'compatibility']),
  },
  'underlay-mtu': {
    placeholder: 'BYTES',
    description:
      'largest packet that the underlay carries, where that is less than the route says, as with IPsec (default: what the route says)',
    schema: wholeNumber(MIN_UNDERLAY_MTU, 65535),
  },
  'path-mtu-discovery': {
    placeholder: 'SWITCH',
    description:
      "whether outer packets have don't-fragment set, so that routers report packets that are too large: on or off",
    default: 'on',
    schema: onOff,
  },
  'clamp-mss': {
    placeholder: 'SWITCH',
    description:
      'whether TCP connections are told to keep their segments within the tunnel MTU, in case ICMP is lost: on or off',
    default: 'off',
    schema: onOff,
  },
  core: {
    placeholder: 'CORE',
    description: 'packet core: wasm or typescript',
    default: 'wasm',
    schema: oneOf(['wasm', 'typescript']),
  },
  engine: {
    placeholder: 'ENGINE',
    description:
      'how packets are read and written: linux, in batches by threads of their own; or portable, one by one with the packages raw-socket and tuntap2',
    default: 'linux',
    schema: oneOf(['linux', 'portable']),
  },
  'gre-segmentation': {
    placeholder: 'WHERE',
    description:
      'who cuts TCP super-packets (GSO) of gre: core; kernel, which is two to four times as fast, but sends them through the FORWARD firewall; or auto, the kernel where no firewall stands in the way (engine linux)',
    default: 'auto',
    schema: oneOf(['auto', 'core', 'kernel']),
  },
  'fast-path': {
    placeholder: 'SWITCH',
    description:
      'whether the kernel carries packets between containers and the underlay by eBPF programs, past both data planes (gre and gre-udp): auto, where that goes past nothing else; on, also past firewalls; or off',
    default: 'auto',
    schema: oneOf(['auto', 'on', 'off']),
  },
  queues: {
    placeholder: 'NUMBER',
    description: 'queues of the TUN device, each with a thread of its own (engine linux)',
    default: '1',
    schema: wholeNumber(1, 64),
  },
  'container-access': {
    placeholder: 'LIST',
    description:
      "what containers may reach of VMs' addresses without a tunnel: ADDRESS[/LENGTH][:PORT] inside the underlay, vm[:PORT] for this VM itself by any of its addresses, or all. A port is one of TCP and of UDP. Answers pass (those of UDP to this VM alone), and pings of this VM's overlay address (default: nothing)",
    schema: access,
  },
  'address-cool-down': {
    placeholder: 'DURATION',
    description:
      'how long no other container gets the address of one that was detached: who still sends to the old one is told that it has gone, and does not reach the new one',
    default: '60s',
    schema: duration('0s', '24h', '60s or 5m'),
  },
  attach: {
    placeholder: 'SWITCH',
    description:
      "whether the daemon attaches containers for CNI's shim, which needs CAP_SYS_ADMIN: on or off. It is eight times as fast as a process for each container",
    default: 'off',
    schema: onOff,
  },
  'run-dir': {
    placeholder: 'DIR',
    description: "directory of the daemon's lock, control socket and journal; each daemon has one of its own",
    default: DEFAULT_RUN_DIR,
    schema: runDir,
  },
  'idle-timeout': {
    placeholder: 'DURATION',
    description: 'how long a tunnel is kept without packets',
    default: '60s',
    schema: duration('100ms', '168h', '60s, 500ms or 5m'),
  },
  'busy-poll': {
    placeholder: 'DURATION',
    description:
      'how long to poll for the next packet before sleeping: shorter round trips for more CPU time (engine linux)',
    default: '0s',
    schema: duration('0s', '1s', '2ms or 500us'),
  },
  'log-level': {
    placeholder: 'LEVEL',
    description: 'least severe level that is logged: debug, info, warn or error',
    default: 'info',
    schema: oneOf(['debug', 'info', 'warn', 'error']),
  },
} as const satisfies Record<string, Setting>;

export type SettingName = keyof typeof settings;

/** Settings that stand for pairs of prefixes; a configuration has mappings for them. */
const PREFIXES = ['overlay', 'underlay', 'mappings'] as const;
type PrefixName = (typeof PREFIXES)[number];
type ValueName = Exclude<SettingName, PrefixName>;
/** Names of the settings that a configuration has as they are. */
export const valueNames = (Object.keys(settings) as SettingName[]).filter(
  (name): name is ValueName => !(PREFIXES as readonly string[]).includes(name),
);

type CamelCase<Name extends string> = Name extends `${infer Word}-${infer Rest}`
  ? `${Word}${Capitalize<CamelCase<Rest>>}`
  : Name;

/** A setting's name in code, and in the options that commander has parsed: `run-dir` is `runDir`. */
export function camelCase<Name extends string>(name: Name): CamelCase<Name> {
  return name.replace(/-(.)/g, (_, letter: string) => letter.toUpperCase()) as CamelCase<Name>;
}

type Value<Name extends SettingName> = v.InferOutput<(typeof settings)[Name]['schema']>;
/**
 * The values of the settings by their names in code. One that has no default may be undefined. Durations are
 * in ms.
 */
export type Values = {
  [Name in ValueName as CamelCase<Name>]: (typeof settings)[Name] extends { default: string }
    ? Value<Name>
    : Value<Name> | undefined;
};

/** README's table of settings, as Markdown. */
export function settingsTable(): string {
  const rows = Object.entries<Setting>(settings).map(([name, s]) => {
    const flag = s.placeholder ? `\`--${name} ${s.placeholder}\`` : 'file only';
    return `| \`${name}\` | ${flag} | ${s.default ? `\`${s.default}\`` : ''} | ${s.description} |`;
  });
  return ['| key | flag | default | meaning |', '|---|---|---|---|', ...rows].join('\n');
}
