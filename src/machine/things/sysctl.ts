/** Files below /proc/sys. Ours is the value that we wrote. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { errorCode, InlayError } from '../../errors.ts';
import type { SysctlThing } from '../state.ts';
import type { Kind } from './kind.ts';
import { isSysctlName, isSysctlValue } from './sysctl-names.ts';

export const sysctlKind: Kind<SysctlThing> = {
  ensure(thing, context) {
    const { name, value, others, optional } = thing;
    const file = fileOf(thing);
    if (others && !existsSync(file)) return undefined;
    const before = readFileSync(file, 'utf8').trim();
    if (before === value) return undefined;
    // What belongs to a device of ours goes with it.
    const wasNoted = context.isNoted(thing);
    if (others) context.note(thing, before);
    try {
      writeFileSync(file, value);
    } catch (cause) {
      if (!wasNoted) context.forget(thing);
      if (optional) return undefined;
      throw new InlayError(
        'ERR_FAILED',
        `${dotted(name)} is ${before} and cannot be set to ${value}: ${errorCode(cause)}`,
        { hint: 'let /proc/sys be writable; in a container, that is up to what runs it', cause },
      );
    }
    return `${dotted(name)} is ${before}, not ${value}`;
  },

  undo(thing, _, before) {
    const file = fileOf(thing);
    // Another value is somebody else's.
    if (!isSysctlValue(before) || !existsSync(file) || readFileSync(file, 'utf8').trim() !== thing.value) return false;
    writeFileSync(file, before);
    return true;
  },

  commands: ({ name, value, others }) => [`sysctl ${others ? '-e ' : ''}-qw ${name}=${value}`],
  describe: ({ name }) => `sysctl ${dotted(name)}`,
};

function fileOf({ name, device }: SysctlThing): string {
  if (device.includes('/') || !isSysctlName(name, device)) throw new Error(`${name} is no sysctl of ours`);
  return `/proc/sys/${name}`;
}

function dotted(name: string): string {
  return name.replaceAll('/', '.');
}
