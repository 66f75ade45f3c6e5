/**
 * Under which id the library knows a container of a network: `cni:NETWORK:CONTAINER`. It stands in the alias
 * of the container's link, so that GC finds the containers of one network without any file. An alias has room
 * for 160 bytes of an id: names that are too long end in "~" and a part of their hash. No name of the
 * specification has a "~".
 */
import { hash } from 'node:crypto';
import { CNI_PREFIX } from '../../machine/chained.ts';

/** Characters. With what is around them they are 160, so that an alias has the id as it is. */
const LONGEST_NETWORK = 48;
const LONGEST_CONTAINER = 107;
/** Of the hash, in base64url: 120 bits. */
const HASH = 20;

export function idOf(network: string, container: string): string {
  return `${prefixOf(network)}${shortened(container, LONGEST_CONTAINER)}`;
}

/** How the ids of a network begin. */
export function prefixOf(network: string): string {
  return `${CNI_PREFIX}${shortened(network, LONGEST_NETWORK)}:`;
}

function shortened(name: string, longest: number): string {
  if (name.length <= longest) return name;
  return `${name.slice(0, longest - HASH - 1)}~${hash('sha256', name, 'base64url').slice(0, HASH)}`;
}
