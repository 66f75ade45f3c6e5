/**
 * What a journal may say of each kind of thing. `down` does what a journal says, and may be root where the
 * journal is another user's: so it may say nothing but what Inlay itself makes.
 */
import { GRE_UDP_PORT } from '../core/abi.ts';
import { deviceOfTable } from '../linux/netfilter/own-tables.ts';
import { parseAddress, parsePrefix } from '../mesh/address.ts';
import { CATCH_ALL_PROTOCOL, FALLBACK_GRE, ROUTE_PROTOCOL, type SysctlThing, type Thing } from './state.ts';
import { isSysctlName, isSysctlValue } from './things/sysctl-names.ts';

/** The type that a field has to have, or what its value has to be. */
type Field = 'string' | 'number' | ((value: unknown, thing: Thing) => boolean);

/** Characters of the longest word. A path has no more (PATH_MAX in <linux/limits.h>). */
const LONGEST = 4096;
const MAX_U32 = 0xffffffff;
/** IFNAMSIZ in <linux/if.h>, with the final zero. */
const DEVICE_NAME_SIZE = 16;
/** The kinds of devices that outlive a daemon. */
const KINDS: readonly unknown[] = ['gre', 'vxlan'];

/** The things that are noted, with the fields that undoing them takes. */
export const FIELDS: Record<string, Record<string, Field>> = {
  // It is never the one that is removed: that is the directory which the journal is in.
  directory: { path: isWord },
  link: { device: isDevice, info: isInfo, address: (address) => address === undefined },
  'link-up': { device: (device) => device === FALLBACK_GRE },
  route: {
    to: isPrefix,
    metric: isU32,
    protocol: (protocol) => protocol === ROUTE_PROTOCOL || protocol === CATCH_ALL_PROTOCOL,
    device: (device) => device === undefined || isDevice(device),
    source: (source) => source === undefined || (isWord(source) && parseAddress(source) !== undefined),
  },
  rule: { to: isPrefix, priority: isU32, action: (action) => action === 'main' || action === 'unreachable' },
  sysctl: {
    device: isDevice,
    name: (name, thing) => isWord(name) && isSysctlName(name, (thing as SysctlThing).device),
    value: isSysctlValue,
  },
  fou: { port: (port) => port === GRE_UDP_PORT },
  filter: { device: isDevice, place: (place) => place === 'ingress' || place === 'egress', index: isIndex },
  clsact: { device: isDevice, index: isIndex },
  // It is looked for at all devices.
  'container-filters': {},
  barrier: { table: (table) => isWord(table) && isDevice(deviceOfTable(table)) },
  // What it was before is looked into where it is undone.
  guard: { device: isDevice, index: isU32 },
};

/** What a thing may have been before. */
export function isBefore(before: unknown, thing: Thing): before is string {
  return thing.kind === 'sysctl' ? isSysctlValue(before) : isWord(before);
}

/** A text that can be shown on a terminal. */
export function isWord(value: unknown): value is string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what has to be kept out.
  return typeof value === 'string' && value.length <= LONGEST && !/[\x00-\x1f\x7f-\x9f]/.test(value);
}

/** As the kernel takes a name (dev_valid_name in net/core/dev.c), and no file below /proc/sys that is for all. */
function isDevice(value: unknown): value is string {
  return (
    isWord(value) && /^(?!(?:\.{1,2}|all|default)$)[^\s/:]+$/.test(value) && Buffer.byteLength(value) < DEVICE_NAME_SIZE
  );
}

/** Settings are not noted. */
function isInfo(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return Object.keys(value).join() === 'kind' && KINDS.includes((value as { kind: unknown }).kind);
}

/** Rules count with one bit less than the prefix has. */
function isPrefix(value: unknown): boolean {
  return isWord(value) && (parsePrefix(value)?.length ?? 0) > 0;
}

function isIndex(value: unknown): boolean {
  return value === undefined || isU32(value);
}

function isU32(value: unknown): boolean {
  return Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_U32;
}
