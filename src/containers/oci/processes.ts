/** Processes of a network namespace. */
import { readdirSync, readlinkSync } from 'node:fs';
import { errorCode } from '../../errors.ts';

/** Whether a process is in the network namespace with this inode, beside this one. */
export function hasProcess(netns: number, except: number): boolean {
  return readdirSync('/proc').some((pid) => /^\d+$/.test(pid) && Number(pid) !== except && isIn(pid, netns));
}

function isIn(pid: string, netns: number): boolean {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`) === `net:[${netns}]`;
  } catch (error) {
    // One that may not be looked at may be in it. The others have gone.
    const code = errorCode(error);
    return code === 'EACCES' || code === 'EPERM';
  }
}
