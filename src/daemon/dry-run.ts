/** `up --dry-run`: the commands that do the same as the daemon, and the programs that no command can load. */
import type { Config } from '../config/config.ts';
import { hasFastPath } from '../dataplane/fast-path/kind.ts';
import { type Listings, listings } from '../dataplane/fast-path/listing.ts';
import { Netlink } from '../linux/netlink/netlink.ts';
import { barrierThing, withBarrier } from '../machine/barrier/barrier.ts';
import { Uplinks } from '../machine/barrier/uplinks.ts';
import { catchAllThings } from '../machine/state.ts';
import { guardComments } from '../machine/things/guard.ts';
import { kindOf } from '../machine/things/kinds.ts';
import { dataPlaneOf } from './data-planes.ts';
import { barrierSettings, planNetwork } from './network.ts';

/** The programs of the fast path, as this machine would load them; none without a fast path. */
export async function programsOf(config: Config): Promise<Partial<Listings>> {
  if (!hasFastPath(config)) return {};
  const kind = await dataPlaneOf(config);
  const netlink = Netlink.open();
  try {
    return listings(config, planNetwork(config, kind.overhead(config), netlink).plan);
  } finally {
    netlink.close();
  }
}

/** Lines for a shell. What no command can do is a comment. */
export async function dryRun(config: Config): Promise<string[]> {
  const kind = await dataPlaneOf(config);
  const netlink = Netlink.open();
  try {
    const { plan } = planNetwork(config, kind.overhead(config), netlink);
    const barrier = barrierThing(plan, barrierSettings(config), new Uplinks(netlink));
    const things = [...catchAllThings(config.mappings), ...withBarrier(kind.things(config, plan), barrier)];
    return [
      ...things.flatMap((thing) => kindOf(thing).commands(thing)),
      ...kind.remarks(config, plan),
      ...guardComments(plan),
    ];
  } finally {
    netlink.close();
  }
}
