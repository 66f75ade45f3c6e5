/** The alias of our devices: it tells whoever looks at the device which daemon made it. */
import path from 'node:path';
import { type Address, formatAddress } from '../mesh/address.ts';
import { isChainedId } from './chained.ts';

/** How the alias begins, and that of a container's device (containers/alias.ts), which is no daemon's. */
const PREFIX = 'inlay ';
export const CONTAINER_PREFIX: string = `${PREFIX}container `;
/** Bytes of an alias, at most (IFALIASZ in <linux/if.h>, without the final zero). */
const MAX_LENGTH = 255;

export interface Maker {
  /** Underlay address of the VM. */
  vm: string;
  /** The name that the device is to have. */
  device: string;
  /** Absolute; missing where an earlier version made the device, or the path is too long. */
  runDir?: string;
}

export function aliasOf(local: Address, device: string, runDir: string): string {
  const short = `${PREFIX}${formatAddress(local)} ${device}`;
  const whole = `${short} ${path.resolve(runDir)}`;
  return Buffer.byteLength(whole) > MAX_LENGTH ? short : whole;
}

/** Whether a device with this alias is a daemon's. */
export function isOurAlias(alias: string | undefined): boolean {
  return alias?.startsWith(PREFIX) === true && !isContainerAlias(alias);
}

/** Whether a device with this alias is the host's end of an attached container. */
export function isContainerAlias(alias: string | undefined): boolean {
  return alias?.startsWith(CONTAINER_PREFIX) === true;
}

/** What an alias of ours says; undefined if it is another's. */
export function makerOf(alias: string | undefined): Maker | undefined {
  if (isContainerAlias(alias)) return undefined;
  const [, vm, device, runDir] = /^inlay (\S+) (\S+)(?: (.+))?$/s.exec(alias ?? '') ?? [];
  if (vm === undefined || device === undefined) return undefined;
  return { vm, device, ...(runDir !== undefined && { runDir }) };
}

/** Whether the alias is that of a container behind which no other plugin comes: its id is the fifth word. */
export function isAttachedAlone(alias: string | undefined): boolean {
  if (!isContainerAlias(alias)) return false;
  const [, , , , id = ''] = (alias as string).slice(CONTAINER_PREFIX.length).split(' ');
  return !isChainedId(id);
}
