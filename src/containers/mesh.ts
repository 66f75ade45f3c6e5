/**
 * What attaching has to know of the mesh. The daemon leaves it in its run directory, where it stays when the
 * daemon stops: containers come and go without it.
 */
import { lstatSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { errorCode } from '../errors.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import { readOwn, removeOwn, replaceOwn } from '../linux/own-file.ts';
import { hasAddress } from '../machine/underlay.ts';
import { type Address, formatAddress, parseAddress, parsePrefix } from '../mesh/address.ts';
import { Mapping, mappingsWith, prefixesOf } from '../mesh/mapping.ts';
import { ContainerError } from './reasons.ts';

/** That a daemon locks as long as it runs (daemon/lock.ts). */
export const LOCK_FILE = 'lock';

/** Where a daemon leaves its mesh. */
export function meshFile(runDir: string): string {
  return path.join(runDir, 'mesh.json');
}

/** A VM's place in the mesh. */
export interface Mesh {
  mappings: readonly Mapping[];
  /** The VM's underlay address. */
  local: Address;
  /** Of the containers' devices, in bytes. */
  mtu: number;
  /** Seconds for which nobody gets an address that was given back. */
  coolDown: number;
}

/** Pairs of prefixes in text, as a file or a network configuration of CNI has them. */
export type Prefixes = readonly { overlay: string; underlay: string }[];

/** Leaves the mesh in the run directory. */
export function writeMesh(runDir: string, mesh: Mesh): void {
  replaceOwn(meshFile(runDir), textOf(mesh));
}

/** Whether the run directory has exactly this mesh. */
export function hasMesh(runDir: string, mesh: Mesh): boolean {
  try {
    return readOwn(meshFile(runDir))?.toString() === textOf(mesh);
  } catch {
    return false;
  }
}

export function removeMesh(runDir: string): void {
  removeOwn(meshFile(runDir));
}

function textOf({ mappings, local, mtu, coolDown }: Mesh): string {
  return `${JSON.stringify({ vm: formatAddress(local), mtu, coolDown, mappings: mappings.map(prefixesOf) })}\n`;
}

/** The mesh that a daemon left in its run directory; undefined if none did. Throws ContainerError. */
export function readMesh(runDir: string): Mesh | undefined {
  const file = meshFile(runDir);
  const content = contentOf(file);
  if (!content) return undefined;
  try {
    const { vm, mtu, coolDown, mappings } = JSON.parse(content.toString());
    const local = parseAddress(vm);
    if (!local || ![mtu, coolDown].every(Number.isInteger) || !Array.isArray(mappings))
      throw new Error('a part is missing');
    const mesh = { local, mtu, coolDown, mappings: mappings.map(mappingOf) };
    if (mappingsWith(mesh.mappings, local).length === 0) throw new Error(`${vm} is in no mapping`);
    return mesh;
  } catch (cause) {
    throw new ContainerError('damaged-mesh', `${file} is damaged: ${(cause as Error).message}`, {
      hint: 'restart the daemon, which writes it anew',
      cause,
    });
  }
}

/** The daemon may be another user than whoever attaches: the run directory is then that user's. */
function contentOf(file: string): Buffer | undefined {
  try {
    return readOwn(file, lstatSync(path.dirname(file), { throwIfNoEntry: false })?.uid);
  } catch (cause) {
    if (errorCode(cause) !== 'EACCES') throw cause;
    throw new ContainerError('permission', `no permission to read ${file}`, {
      hint: "run it as root, or as the daemon's user",
      cause,
    });
  }
}

/** The mesh of this run directory; `wanted`, if given, must be its prefixes. Throws ContainerError. */
export function requireMesh(runDir: string, wanted?: Prefixes): Mesh {
  const mesh = readMesh(runDir);
  if (!mesh && isLocked(runDir)) {
    throw new ContainerError('no-underlay', `the daemon of ${runDir} waits for an underlay address`, {
      hint: 'inlay status shows what it waits for',
    });
  }
  if (!mesh) {
    throw new ContainerError('no-mesh', `no daemon has left its mesh in ${runDir}`, {
      hint: 'start inlay up, name its directory with --run-dir, or give --overlay and --underlay',
    });
  }
  requireSame(mesh, runDir, wanted);
  return mesh;
}

/**
 * Throws ContainerError if this machine has not the VM's underlay address now: a daemon may have left the mesh
 * before the address went, or before the machine was started anew.
 */
export function requireLocal(netlink: Netlink, { local }: Pick<Mesh, 'local'>): void {
  if (hasAddress(netlink, local)) return;
  throw new ContainerError('no-underlay', `this machine has no longer the underlay address ${formatAddress(local)}`, {
    hint: 'give the address back, or start inlay up, which then is another VM',
  });
}

/** Whether a daemon has the lock of this run directory (daemon/lock.ts). To try it could keep one from starting. */
function isLocked(runDir: string): boolean {
  try {
    const { dev, ino } = statSync(path.join(runDir, LOCK_FILE));
    return findsLock(readFileSync('/proc/locks', 'utf8'), dev, ino);
  } catch {
    return false;
  }
}

/** Whether the text of /proc/locks (proc_locks(5)) tells that a file is locked: `1: FLOCK ADVISORY WRITE 708 00:1a:21 0 EOF`. */
export function findsLock(text: string, dev: number, ino: number): boolean {
  // How the kernel packs the number of a device (new_encode_dev in <linux/kdev_t.h>).
  const [major, minor] = [(dev >> 8) & 0xfff, (dev & 0xff) | ((dev >> 12) & 0xfff00)];
  const file = [major, minor].map((part) => part.toString(16).padStart(2, '0')).join(':');
  return text.split('\n').some((line) => line.includes(' FLOCK ') && line.includes(` ${file}:${ino} `));
}

/** Throws ContainerError if a mesh has other prefixes than those that are wanted. */
export function requireSame({ mappings }: Mesh, runDir: string, wanted: Prefixes | undefined): void {
  if (!wanted) return;
  const texts = (pairs: Prefixes) => pairs.map(({ overlay, underlay }) => `${overlay} over ${underlay}`);
  const [here, asked] = [texts(mappings.map(prefixesOf)), texts(wanted)];
  // Their order tells which addresses containers get, which the daemon has decided.
  if (String([...here].sort()) === String([...asked].sort())) return;
  const text = `the daemon of ${runDir} is part of ${here.join(', ')}, not of ${asked.join(', ')}`;
  throw new ContainerError('other-mesh', text, {
    hint: 'leave out the prefixes, which the run directory tells, or correct them',
  });
}

function mappingOf({ overlay, underlay }: { overlay: string; underlay: string }): Mapping {
  const [o, u] = [parsePrefix(overlay), parsePrefix(underlay)];
  if (!o || !u) throw new Error(`${overlay} over ${underlay} is no mapping`);
  return new Mapping(o, u);
}
