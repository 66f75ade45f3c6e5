/** The kinds of things, by their names. */
import { existsSync, mkdirSync, rmdirSync } from 'node:fs';
import { errorCode } from '../../errors.ts';
import type { DirectoryThing, Thing } from '../state.ts';
import { barrierKind } from './barrier.ts';
import { containerFiltersKind } from './container-filters.ts';
import { clsactKind, filterKind } from './filter.ts';
import { fouKind } from './fou.ts';
import { guardKind } from './guard.ts';
import type { Kind } from './kind.ts';
import { linkKind } from './link.ts';
import { neighbourKind } from './neighbour.ts';
import { neighbourParametersKind } from './neighbour-parameters.ts';
import { routeKind } from './route.ts';
import { ruleKind } from './rule.ts';
import { addressesKind, settingsKind, upKind } from './settings.ts';
import { sysctlKind } from './sysctl.ts';

/** Errors with which the directory may stay: others may have put something into it. */
const STAYS = ['ENOTEMPTY', 'ENOENT', 'EACCES', 'EPERM', 'EBUSY'];

const directoryKind: Kind<DirectoryThing> = {
  ensure(thing, context) {
    if (existsSync(thing.path)) return undefined;
    mkdirSync(thing.path, { recursive: true, mode: 0o755 });
    context.note(thing);
    return `directory ${thing.path} is missing`;
  },
  undo({ path }) {
    try {
      rmdirSync(path);
      return true;
    } catch (error) {
      if (STAYS.includes(errorCode(error) ?? '')) return false;
      throw error;
    }
  },
  commands: ({ path }) => [`mkdir -p ${path}`],
  describe: ({ path }) => `directory ${path}`,
};

const kinds: { [K in Thing['kind']]: Kind<Extract<Thing, { kind: K }>> } = {
  link: linkKind,
  'link-settings': settingsKind,
  addresses: addressesKind,
  'neighbour-parameters': neighbourParametersKind,
  'link-up': upKind,
  route: routeKind,
  rule: ruleKind,
  sysctl: sysctlKind,
  fou: fouKind,
  filter: filterKind,
  clsact: clsactKind,
  'container-filters': containerFiltersKind,
  barrier: barrierKind,
  guard: guardKind,
  neighbour: neighbourKind,
  directory: directoryKind,
};

export function kindOf<T extends Thing>(thing: T): Kind<T> {
  return kinds[thing.kind] as unknown as Kind<T>;
}
