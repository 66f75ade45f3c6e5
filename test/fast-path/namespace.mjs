/** A network namespace of the calling thread, and links in it: programs are run as if packets came in there. */
import { execFileSync } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import os from 'node:os';
import * as native from '../../dist/linux/native.js';

/** unshare(2), by architecture (<asm/unistd.h>). */
const UNSHARE = { x64: 272, arm64: 97 }[os.arch()];
/** Interface index of the device that leads to other VMs. */
export const UPLINK = 100;
/** Those of the host's ends of veths, one for each container; another one has no container. */
export const LINKS = [101, 102, 103, 104, 105];
export const STRANGER = 109;
/** The least MTU that IPv4 allows: that of the last link. */
const LEAST_MTU = 68;

/** The Ethernet address of a link, and of the other end of its veth. */
export const macOf = (ifindex) => [2, 0, 0, 0, 0, ifindex];
export const peerMacOf = (ifindex) => [2, 0, 0, 0, 1, ifindex];
export const mtuOf = (ifindex) => (ifindex === LINKS.at(-1) ? LEAST_MTU : 1500);

const text = (mac) => mac.map((byte) => byte.toString(16).padStart(2, '0')).join(':');

/**
 * Puts the calling thread into a new namespace with these links. What is returned puts it back; the kernel removes the
 * namespace then, or when the thread ends.
 */
export function enterNamespace() {
  const before = openSync('/proc/thread-self/ns/net');
  try {
    native.must(native.syscall(UNSHARE, native.CLONE_NEWNET, new Uint8Array(8), 0), 'unshare', 'of the network');
  } catch (error) {
    closeSync(before);
    throw error;
  }
  const leave = () => {
    // A thread that stays in the wrong namespace would go on there.
    if (native.setns(before, native.CLONE_NEWNET) < 0) process.abort();
    closeSync(before);
  };
  try {
    const links = [UPLINK, ...LINKS, STRANGER].map(
      (ifindex) =>
        `link add v${ifindex} index ${ifindex} address ${text(macOf(ifindex))} mtu ${mtuOf(ifindex)} type veth ` +
        `peer name p${ifindex} address ${text(peerMacOf(ifindex))}\n`,
    );
    execFileSync('ip', ['-batch', '-'], { input: links.join('') });
  } catch (error) {
    leave();
    throw error;
  }
  return leave;
}
