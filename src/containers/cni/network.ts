/**
 * The network configuration of a call: what comes on standard input (CNI specification 1.1.0, sections 1
 * and 3).
 */
import path from 'node:path';
import { DEFAULT_RUN_DIR } from '../../config/run-dir.ts';
import { isObject, type JsonObject } from '../json.ts';
import type { Prefixes } from '../mesh.ts';
import { isName } from './environment.ts';
import { CniError, CODE, quoted } from './error.ts';
import { isSpoken, isVersion, UNNAMED, VERSIONS, type Version } from './versions.ts';

/** Bytes. What is valid of a network of 8,189 containers takes 2 MB. */
export const LONGEST = 16 << 20;

/** Lists and objects in each other. What is deeper could not be repeated in a result. */
const DEEPEST = 64;

/** Keys that mean something to the plugin, and those that the specification has for others. */
const KNOWN = new Set([
  ...['runDir', 'overlay', 'underlay', 'mappings', 'coolDown', 'container', 'mac'],
  ...['cniVersion', 'cniVersions', 'name', 'type', 'capabilities', 'runtimeConfig', 'args', 'prevResult', 'dns'],
  ...['plugins', 'disableCheck', 'disableGC', 'loadOnlyInlinedPlugins', 'ipam', 'ipMasq'],
]);

/** A configuration of which only name and version were looked at. */
export interface Network {
  name: string;
  version: Version;
  /** The keys of the configuration. */
  keys: JsonObject;
}

/** Which mesh a configuration means. */
export interface MeshRequest {
  runDir: string;
  /** Which it must be; undefined if any will do. */
  prefixes: Prefixes | undefined;
  /** Seconds; undefined for the default. */
  coolDown: number | undefined;
}

/** Decodes a configuration. Throws CniError, code 1, 6 or 7. */
export function readNetwork(config: string | Uint8Array): Network {
  const keys = decode(config);
  const version = keys['cniVersion'] ?? UNNAMED;
  if (typeof version !== 'string' || !isVersion(version))
    throw new CniError(CODE.decoding, `cniVersion ${quoted(version)} is no version`, 'such as "1.1.0"');
  if (!isSpoken(version))
    throw new CniError(
      CODE.incompatibleVersion,
      'incompatible CNI versions',
      `the configuration is of ${quoted(version)}, the plugin supports ${VERSIONS.join(', ')}`,
    );
  const { name } = keys;
  if (name === undefined || name === '') throw configuration('missing network name');
  if (typeof name !== 'string' || !isName(name))
    throw configuration(
      `network name ${quoted(name)}: expected a letter or digit, then letters, digits, "_", "." and "-"`,
    );
  return { name, version, keys };
}

/** The version that an undecided configuration asks for, as an answer repeats it. */
export function versionOf(config: string | Uint8Array): string | undefined {
  try {
    const { cniVersion } = decode(config);
    return typeof cniVersion === 'string' && isVersion(cniVersion) ? cniVersion : undefined;
  } catch {
    return undefined;
  }
}

function decode(config: string | Uint8Array): JsonObject {
  const value = parse(config);
  if (isDeeper(value, DEEPEST))
    throw new CniError(CODE.decoding, `the network configuration is nested deeper than ${DEEPEST} levels`);
  if (!isObject(value))
    throw new CniError(CODE.decoding, `the network configuration is no JSON object: ${quoted(value)}`);
  return value;
}

function isDeeper(value: unknown, most: number): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return most === 0 || Object.values(value).some((each) => isDeeper(each, most - 1));
}

function parse(config: string | Uint8Array): unknown {
  if (config.length > LONGEST)
    throw new CniError(CODE.decoding, `the network configuration is longer than ${LONGEST} bytes`);
  if (config.length === 0) throw new CniError(CODE.decoding, 'no network configuration came on standard input');
  try {
    return JSON.parse(typeof config === 'string' ? config : new TextDecoder('utf-8', { fatal: true }).decode(config));
  } catch (error) {
    const { message } = error as Error;
    throw new CniError(CODE.decoding, `the network configuration is no JSON: ${quoted(message).slice(1, -1)}`);
  }
}

/** Which mesh is meant. Throws CniError, code 7. */
export function meshOf({ keys }: Network): MeshRequest {
  const runDir = keys['runDir'] ?? DEFAULT_RUN_DIR;
  if (typeof runDir !== 'string' || !path.isAbsolute(runDir) || runDir.includes('\0'))
    throw configuration(`runDir ${quoted(runDir)}: expected an absolute path`);
  return { runDir: path.resolve(runDir), prefixes: prefixesOf(keys), coolDown: numberOf(keys, 'coolDown', 86_400) };
}

function prefixesOf({ overlay, underlay, mappings }: JsonObject): Prefixes | undefined {
  const isPair = overlay !== undefined || underlay !== undefined;
  if (isPair && mappings !== undefined) throw configuration('expected either overlay and underlay, or mappings');
  if (!isPair && mappings === undefined) return undefined;
  const pairs = mappings === undefined ? [{ overlay, underlay }] : mappings;
  if (!Array.isArray(pairs) || pairs.length === 0)
    throw configuration(`mappings ${quoted(pairs)}: expected a list of pairs of overlay and underlay`);
  return pairs.map((pair) => {
    if (isObject(pair) && typeof pair['overlay'] === 'string' && typeof pair['underlay'] === 'string')
      return { overlay: pair['overlay'], underlay: pair['underlay'] };
    throw configuration(`${quoted(pair)}: expected overlay and underlay, each a prefix such as "10.0.0.0/8"`);
  });
}

/** A whole number among the keys; undefined if it is not there. */
export function numberOf(keys: JsonObject, name: string, most: number): number | undefined {
  const value = keys[name];
  if (value === undefined) return undefined;
  if (!Number.isSafeInteger(value) || (value as number) < 0 || (value as number) > most)
    throw configuration(`${name} ${quoted(value)}: expected a whole number, 0 to ${most}`);
  return value as number;
}

/** Throws CniError, code 2, if the configuration asks for what the plugin does not do, or has a key that nobody knows. */
export function checkKeys({ keys }: Network): void {
  // A key with a slash is somebody's own, as cni.dev/... is.
  const unknown = Object.keys(keys).find((key) => !KNOWN.has(key) && !key.includes('/'));
  if (unknown !== undefined) throw unsupported(unknown, keys[unknown]);
  const { ipam, ipMasq } = keys;
  if (ipam !== undefined && !(isObject(ipam) && (ipam['type'] ?? '') === ''))
    throw unsupported('ipam', ipam, 'the addresses of a mesh follow from its prefixes: leave ipam out');
  if (ipMasq !== undefined && ipMasq !== false)
    throw unsupported('ipMasq', ipMasq, 'what leaves the mesh is translated by the VM, see the documentation');
}

export function unsupported(key: string, value: unknown, details?: string): CniError {
  const name = quoted(key).slice(1, -1);
  return new CniError(
    CODE.unsupportedField,
    `unsupported field in the network configuration: ${name}: ${quoted(value)}`,
    details,
  );
}

export function configuration(message: string, details?: string): CniError {
  return new CniError(CODE.configuration, message, details);
}
