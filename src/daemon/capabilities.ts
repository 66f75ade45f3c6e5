/**
 * Which Linux capabilities this process has (capabilities(7)), and the command that starts it with those that
 * it lacks.
 */
import { accessSync, constants, existsSync, readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { errorCode, InlayError } from '../errors.ts';
import { quote } from '../shell.ts';

// <linux/capability.h>
const BITS = { CAP_NET_ADMIN: 12, CAP_NET_RAW: 13, CAP_SYS_ADMIN: 21, CAP_BPF: 39 } as const;
export type Capability = keyof typeof BITS;

const TUN = '/dev/net/tun';

/** What a command needs of the machine. */
export interface Needs {
  capabilities: readonly Capability[];
  /** What it does better with, and without, too. */
  wanted?: readonly Capability[];
  /** Has to be writable. */
  runDir: string;
  /** Whether it opens /dev/net/tun. */
  tun: boolean;
}

/** Does `work`; an error about permission without a hint gets one: the command that helps. */
export async function explainPermission<T>(needs: Needs, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof InlayError) || error.code !== 'ERR_PERMISSION' || error.hint) throw error;
    throw new InlayError(error.code, error.message, { hint: privilegeHint(needs), cause: error });
  }
}

/** Throws ERR_PERMISSION that names what is missing. */
export function requireCapabilities(needed: readonly Capability[]): void {
  const effective = lacking(needed, 'CapEff');
  if (effective.length === 0) return;
  const network = effective.filter((name) => name !== 'CAP_SYS_ADMIN');
  const why = [
    ...(network.length > 0 ? [`${names(network)}: devices, routes and raw sockets need them`] : []),
    ...(effective.length > network.length ? ['CAP_SYS_ADMIN: attaching containers needs it (attach on)'] : []),
  ];
  throw new InlayError('ERR_PERMISSION', `missing ${why.join('; and ')}`);
}

/**
 * The command that starts this process again with all that it needs, to be pasted into a shell. A second line
 * tells of systemd and containers.
 */
function privilegeHint({ capabilities, wanted = [], runDir, tun }: Needs): string {
  const [uid, gid] = [process.geteuid?.(), process.getegid?.()];
  // A run directory of another user stays theirs, so the command runs as root.
  const isTheirs = existsSync(runDir) && !isWritable(runDir);
  const asRoot = isRoot() || isTheirs;
  const commands = [];
  if (!asRoot && !isWritable(runDir)) commands.push(`sudo install -d -o ${uid} -g ${gid} ${quote(runDir)}`);
  // As udev sets it: "There's no harm in allowing the device to be accessible by non-root users"
  // (Documentation/networking/tuntap.rst).
  if (!isTheirs && tun && existsSync(TUN) && !isWritable(TUN)) commands.push(`sudo chmod 666 ${TUN}`);
  // A program whose file has capabilities loses its ambient ones when it starts (capabilities(7)), so those
  // of the file are removed first.
  const ofFile = lacking(capabilities, 'CapAmb').length > lacking(capabilities, 'CapEff').length;
  if (!asRoot && ofFile) commands.push(`sudo setcap -r ${quote(process.execPath)}`);
  const isOut = lacking(capabilities, 'CapBnd').length > 0;
  // What this process cannot have, the command cannot give.
  const missing = isOut ? [] : lacking(wanted, 'CapBnd');
  const good = [...capabilities, ...wanted.filter((name) => !missing.includes(name))];
  const caps = good.map((name) => `+${name.slice('CAP_'.length).toLowerCase()}`).join(',');
  const asUser = `setpriv --reuid=${uid} --regid=${gid} ${groups()} --inh-caps=${caps} --ambient-caps=${caps} `;
  commands.push(`sudo ${asRoot ? '' : asUser}${commandLine()}`);

  const all = good.join(' ');
  const containers = good.map((name) => `--cap-add=${name.slice('CAP_'.length)}`).join(' ');
  const elsewhere = isOut
    ? `outside, as nothing that is started here can have them; in a container: docker run ${containers}; in a systemd unit: CapabilityBoundingSet=${all}`
    : isTheirs
      ? `or as the user whose directory it is, with ${all}`
      : `or in a systemd unit, beside User=: AmbientCapabilities=${all}`;
  return `${commands.join(' && ')}\n${elsewhere}`;
}

/** This process's own command, for a shell. */
export function commandLine(): string {
  return [process.execPath, ...process.execArgv, ...process.argv.slice(1)].map(quote).join(' ');
}

/** The capabilities of `needed` that are missing in a set of this process. */
function lacking(needed: readonly Capability[], set: CapabilitySet): Capability[] {
  const bits = capabilitySet(set);
  return needed.filter((name) => !((bits >> BigInt(BITS[name])) & 1n));
}

type CapabilitySet = 'CapEff' | 'CapPrm' | 'CapAmb' | 'CapBnd';

/** A set of this process, one bit each: a line of /proc/self/status. */
export function capabilitySet(set: CapabilitySet): bigint {
  const hex = new RegExp(`^${set}:\\s*([0-9a-f]+)`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return BigInt(`0x${hex ?? '0'}`);
}

/** The number of a capability. */
export function numberOf(name: Capability): number {
  return BITS[name];
}

/** The command that does the same as another user with these capabilities, to be pasted into a shell. */
export function commandAs(uid: number, capabilities: readonly Capability[]): string {
  const caps = capabilities.map((name) => `+${name.slice('CAP_'.length).toLowerCase()}`).join(',');
  const as = `--reuid=${uid} --regid=${uid} --clear-groups --inh-caps=${caps} --ambient-caps=${caps}`;
  return `sudo setpriv ${as} ${commandLine()}`;
}

function names(capabilities: readonly Capability[]): string {
  return capabilities.join(' and ');
}

function isRoot(): boolean {
  return process.geteuid?.() === 0;
}

/**
 * Whether this user may write a file or directory. True as well for one that does not exist, but can be made.
 */
function isWritable(file: string): boolean {
  try {
    accessSync(file, constants.R_OK | constants.W_OK);
    return true;
  } catch (error) {
    return errorCode(error) === 'ENOENT' && path.dirname(file) !== file && isWritable(path.dirname(file));
  }
}

/** The flag of setpriv for groups. --init-groups works only for a user who has a name. */
function groups(): string {
  try {
    os.userInfo();
    return '--init-groups';
  } catch {
    return '--clear-groups';
  }
}
