/**
 * The locks of devices: a daemon listens at an abstract name as long as it has its device. Any process of the
 * network namespace can take such a name, but the kernel says who took it: a name counts if a daemon could
 * have it. Where somebody else has the first name of a device, a daemon takes the next.
 */
import { readFileSync } from 'node:fs';
import { listenerOf, type Peer } from '../linux/abstract-socket.ts';
import { pause } from '../linux/pause.ts';
import { ofProcess } from '../linux/proc.ts';

/** The abstract sockets of this network namespace among others (unix(7)). */
const SOCKETS = '/proc/net/unix';
/** Bytes of the longest abstract name (sun_path in <linux/un.h>, without the first zero). */
const MAX_NAME = 107;
/** CAP_NET_ADMIN in <linux/capability.h>. */
const NET_ADMIN = 12n;
/** ms that all busy listeners together are waited for, and one of them. */
const PATIENCE = 3000;
const PATIENCE_EACH = 300;
/** A daemon has its name a moment before it listens: how often to look again, and ms in between. */
const TRIES = 5;
const PAUSE = 10;

/** Characters of the longest name of a device (IFNAMSIZ in <linux/if.h>, without the final zero). */
const MAX_DEVICE = 15;

/** Whether a daemon has a device of this name now. */
export type IsHeld = (device: string) => boolean;

interface LockName {
  /** Without @ at the end. */
  device: string;
  number: number;
}

/**
 * The abstract name of the socket that a daemon holds as long as it has its device; the first has number 0.
 * Node 20 fills every name with zeros, Node 22 does not: with zeros, the name is the same in both.
 */
export function lockName(device: string, number: number): string {
  return `\0inlay/${device}${number === 0 ? '' : `/${number}`}`.padEnd(1 + MAX_NAME, '\0');
}

/** The kernel shows a zero as @, which may be a part of a device's name, too. */
export function bare(device: string): string {
  return device.replace(/@+$/, '');
}

/** The names that are taken, by whomever. */
export function lockNames(): LockName[] {
  const found = [...readFileSync(SOCKETS, 'utf8').matchAll(/ @(inlay\/([^\s/]+?)(?:\/([1-9]\d{0,8}))?@*)$/gm)];
  // Connections that were not accepted yet have the name of their listener.
  const names = new Map(found.filter(([, whole]) => whole?.length === MAX_NAME).map((each) => [each[1], each]));
  return [...names.values()].map(([, , device = '', number = '0']) => ({ device, number: Number(number) }));
}

export type Holder = 'daemon' | 'nobody' | 'stranger';

/** Tells who holds a name. All questions together take no longer than is bearable, whoever keeps them waiting. */
export function patient(): (name: string, tries?: number) => Holder {
  let left = PATIENCE;
  return (name, tries = TRIES) => {
    for (let i = 1; ; i++) {
      const before = performance.now();
      const found = listenerOf(name, Math.max(1, Math.min(left, PATIENCE_EACH)));
      if (found !== undefined || i >= tries || left <= 0) {
        left -= performance.now() - before;
        return found === undefined ? 'nobody' : found !== 'busy' && isDaemon(found) ? 'daemon' : 'stranger';
      }
      pause(PAUSE);
      left -= performance.now() - before;
    }
  };
}

/** Reads which devices daemons have. */
export function heldDevices(): IsHeld & { count: number } {
  const holderOf = patient();
  const isHeld = (device: string, number: number) => holderOf(lockName(device, number), 1) === 'daemon';
  const names = lockNames();
  const held = names.flatMap(({ device, number }) => {
    // How many of the @ at its end are the device's cannot be seen.
    const devices = Array.from({ length: MAX_DEVICE - device.length + 1 }, (_, i) =>
      device.padEnd(device.length + i, '@'),
    );
    return devices.find((each) => isHeld(each, number)) ?? [];
  });
  return Object.assign((device: string) => held.includes(device), { count: new Set(held).size });
}

/**
 * Whether it may be a daemon: root, this user, or a process that may administer this network. A process that
 * is root in a user namespace of its own may not, and its numbers of users are mapped otherwise.
 */
function isDaemon({ pid, uid }: Peer): boolean {
  if (uid === 0 || uid === process.geteuid?.()) return true;
  const status = ofProcess(pid, 'status');
  const [, is] = /^Uid:\s+\d+\s+(\d+)/m.exec(status) ?? [];
  const [, effective = '0'] = /^CapEff:\s+([0-9a-f]+)/m.exec(status) ?? [];
  return (
    Number(is) === uid &&
    ((BigInt(`0x${effective}`) >> NET_ADMIN) & 1n) === 1n &&
    ofProcess(pid, 'uid_map') === ofProcess('self', 'uid_map')
  );
}
