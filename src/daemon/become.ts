/**
 * Root for a moment, then another user with what `down` needs and nothing else. In a directory of that user,
 * what is read and written is theirs: the kernel itself sees to it that this reaches no further than they do.
 */
import os from 'node:os';
import { errorCode, InlayError } from '../errors.ts';
import * as native from '../linux/native.ts';
import { type Capability, capabilitySet, numberOf } from './capabilities.ts';

/** _LINUX_CAPABILITY_VERSION_3 in <linux/capability.h>: two words of 32 capabilities each. */
const VERSION = 0x20080522;
/** User and group that stand for nobody (/proc/sys/fs/overflowgid). */
const NOBODY = 65534;

/**
 * Makes this process one of user `uid`, which keeps these capabilities as far as it has them. There is no way
 * back. Throws ERR_PERMISSION if that is not allowed, as in a container that has no such user.
 */
export function becomeUser(uid: number, keep: readonly Capability[]): void {
  const kept = keep.map(numberOf).reduce((bits, number) => bits | (1n << BigInt(number)), 0n) & capabilitySet('CapPrm');
  const gid = groupOf(uid);
  try {
    // Only this thread keeps them. The others, which do nothing here, lose all.
    native.must(native.prctl(native.PR_SET_KEEPCAPS, 1), 'prctl', 'PR_SET_KEEPCAPS');
    process.setgroups?.([]);
    process.setgid?.(gid);
    process.setuid?.(uid);
    setCapabilities(kept);
  } catch (cause) {
    throw new InlayError('ERR_PERMISSION', `this process cannot become user ${uid}: ${errorCode(cause)}`, {
      hint: 'run it as that user',
      cause,
    });
  }
}

/** The effective and permitted ones; none can be handed on to another program. */
function setCapabilities(bits: bigint): void {
  const [low, high] = [Number(bits & 0xffffffffn), Number(bits >> 32n)];
  const header = new Uint8Array(Uint32Array.of(VERSION, 0).buffer);
  const data = new Uint8Array(Uint32Array.of(low, low, 0, high, high, 0).buffer);
  native.must(native.capset(header, data), 'capset', 'of this process');
}

/** The user's own group, if the user has a name. */
function groupOf(uid: number): number {
  const before = process.geteuid?.() ?? 0;
  try {
    process.seteuid?.(uid);
    return os.userInfo().gid;
  } catch {
    return NOBODY;
  } finally {
    process.seteuid?.(before);
  }
}
