/** The library as the executable uses it: the mesh is the one that a daemon left in its run directory. */
import { Containers } from '../containers.ts';
import { requireMesh } from '../mesh.ts';
import type { CniLibrary } from './plugin.ts';

export const library: CniLibrary = {
  open: ({ runDir, prefixes, coolDown }) =>
    Containers.open(requireMesh(runDir, prefixes), coolDown === undefined ? {} : { coolDown }),
};
