/**
 * What one attachment asks for, from the places that the CNI conventions have for it: runtimeConfig (the
 * capabilities ips and mac), then args.cni, then CNI_ARGS. What comes first counts; the others are ignored.
 */
import { isObject, type JsonObject } from '../json.ts';
import { isOfOne, macIn } from '../request.ts';
import type { Arguments } from './arguments.ts';
import { CniError, CODE, quoted } from './error.ts';
import { configuration, type Network, numberOf, unsupported } from './network.ts';

/** The addresses of this VM's containers. */
export interface Addresses {
  /** The number of the container with this address in text. Throws ContainerError. */
  requireContainerAt(text: string): number;
}

/** A value and where it comes from, for errors. */
interface Asked {
  where: string;
  value: unknown;
  /** Of the CNI error if it makes no sense. */
  code: number;
}

/** What other plugins of a chain do. A runtime that has it done by this one would wait for it in vain. */
const OTHERS: Readonly<Record<string, string>> = {
  portMappings: 'chain the plugin portmap',
  bandwidth: 'chain the plugin bandwidth',
  ipRanges: 'the addresses of a mesh follow from its prefixes',
};
/** One of the four parts of an address. (What node:net has for it takes 2 ms to load.) */
const PART = String.raw`(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)`;
/** An address, with the length of a prefix or without: the conventions have both. */
const IP = new RegExp(String.raw`^(${PART}(?:\.${PART}){3})(?:/(?:\d|[12]\d|3[0-2]))?$`);
/** A container number fits in as many bits as an overlay address has. */
const MOST = 2 ** 32 - 1;

/** Throws CniError, code 2, if the runtime hands over what another plugin is to do. */
export function checkCapabilities(network: Network): void {
  const runtime = runtimeConfig(network);
  for (const [name, help] of Object.entries(OTHERS)) {
    const value = lookUp(runtime, name);
    if (value !== undefined && value !== null && !(Array.isArray(value) && value.length === 0))
      throw unsupported(`runtimeConfig.${name}`, value, help);
  }
}

/** The number that is asked for; undefined if any will do. Throws CniError or ContainerError. */
export function containerOf(network: Network, args: Arguments, slice: Addresses): number | undefined {
  const found = ipOf(network, args);
  if (!found) return numberOf(network.keys, 'container', MOST);
  const { where, value, code } = found;
  const [, text] = IP.exec(typeof value === 'string' ? value : '') ?? [];
  if (text === undefined) throw new CniError(code, `${where} ${quoted(value)}: expected an IPv4 address`);
  return slice.requireContainerAt(text);
}

function ipOf(network: Network, args: Arguments): Asked | undefined {
  for (const [where, value] of [
    ['runtimeConfig.ips', lookUp(runtimeConfig(network), 'ips')],
    ['args.cni.ips', lookUp(argsOf(network), 'ips')],
  ] as const) {
    if (value === undefined || value === null) continue;
    if (!Array.isArray(value)) throw configuration(`${where} ${quoted(value)}: expected a list of addresses`);
    if (value.length > 1)
      throw configuration(`${where} ${quoted(value)}: expected one address, an interface has no more`);
    if (value.length === 1) return { where, value: value[0], code: CODE.configuration };
  }
  return args.ip === undefined || args.ip === ''
    ? undefined
    : { where: 'CNI_ARGS: IP', value: args.ip, code: CODE.environment };
}

/** The link-layer address that is asked for; undefined if any will do. Throws CniError. */
export function macOf(network: Network, args: Arguments): Uint8Array | undefined {
  const places: Asked[] = [
    { where: 'runtimeConfig.mac', value: lookUp(runtimeConfig(network), 'mac'), code: CODE.configuration },
    { where: 'args.cni.mac', value: lookUp(argsOf(network), 'mac'), code: CODE.configuration },
    { where: 'CNI_ARGS: MAC', value: args.mac, code: CODE.environment },
    { where: 'mac', value: network.keys['mac'], code: CODE.configuration },
  ];
  const found = places.find(({ value }) => value !== undefined && value !== null && value !== '');
  if (!found) return undefined;
  const { where, value, code } = found;
  const bytes = typeof value === 'string' ? macIn(value) : undefined;
  if (!bytes)
    throw new CniError(code, `${where} ${quoted(value)}: expected a link-layer address such as "02:00:00:00:00:5a"`);
  if (!isOfOne(bytes))
    throw new CniError(code, `${where} ${quoted(value)}: no interface can have that link-layer address`);
  return bytes;
}

function runtimeConfig({ keys }: Network): JsonObject {
  return object('runtimeConfig', keys['runtimeConfig']);
}

function argsOf({ keys }: Network): JsonObject {
  return object('args.cni', object('args', keys['args'])['cni']);
}

function object(where: string, value: unknown): JsonObject {
  if (value === undefined || value === null) return {};
  if (!isObject(value)) throw configuration(`${where} ${quoted(value)}: expected an object`);
  return value;
}

/** The runtimes' own language takes keys in any capitals, and so some write them in others. */
function lookUp(keys: JsonObject, name: string): unknown {
  if (Object.hasOwn(keys, name)) return keys[name];
  const lower = name.toLowerCase();
  const found = Object.keys(keys).find((key) => key.toLowerCase() === lower);
  return found === undefined ? undefined : keys[found];
}
