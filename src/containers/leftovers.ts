/** What attaching leaves on a machine, for whoever cleans up after a daemon. It is not the daemon's. */
import { address, type Address as Found, RTM_DELADDR } from '../linux/netlink/address.ts';
import { addressBytes, addressOf } from '../linux/netlink/ipv4.ts';
import { LOOPBACK } from '../linux/netlink/link.ts';
import { request } from '../linux/netlink/message.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import {
  type Route,
  RT_SCOPE_LINK,
  RT_SCOPE_NOWHERE,
  RT_TABLE_MAIN,
  RTM_DELROUTE,
  RTN_UNREACHABLE,
  route,
} from '../linux/netlink/route.ts';
import { AF_INET, addresses } from '../linux/netlink/rtnetlink.ts';
import { CONTAINER_PROTOCOL } from '../machine/state.ts';
import { formatAddress } from '../mesh/address.ts';
import { covering } from '../mesh/mapping.ts';
import type { Mesh } from './mesh.ts';
import { claimsIn, tombstonesIn } from './routes.ts';
import { Slice } from './slice.ts';

/** How many containers are attached: those of this mesh, or all. Those that it had as another VM are among them. */
export function attachedCount(netlink: Netlink, mesh?: Mesh): number {
  return claimsIn(netlink).filter((each) => !mesh || isOf(mesh, each)).length;
}

function isOf({ mappings }: Mesh, { dst }: Route): boolean {
  const to = addressOf(dst);
  return to !== undefined && covering(mappings, to) !== undefined;
}

/**
 * The addresses that attaching added to the loopback device and that no container's route has as its source: it
 * goes with its address. Those of VMs that this machine was before are among them.
 */
export function unusedAddresses(netlink: Netlink, mesh?: Mesh): Found[] {
  const gateway = mesh && String(addressBytes(new Slice(mesh).gateway));
  const live = claimsIn(netlink);
  // Where lo was down, routes tell no source.
  if (live.some(({ prefsrc }) => !prefsrc)) return [];
  const used = new Set(live.map(({ prefsrc }) => String(prefsrc)));
  return addresses(netlink, LOOPBACK).filter(({ index, scope, protocol, local }) => {
    // Before Linux 5.18 an address does not tell who made it.
    const isOurs = protocol === CONTAINER_PROTOCOL || (protocol === undefined && gateway === String(local));
    return index === LOOPBACK && scope === RT_SCOPE_LINK && isOurs && !used.has(String(local));
  });
}

/** Removes such an address; returns what was removed, in words. */
export function removeOwnAddress(netlink: Netlink, { prefixLength, local }: Found): string[] {
  const at = addressOf(local);
  if (!local || !at) return [];
  const what = `address ${formatAddress(at)} of lo`;
  const body = { family: AF_INET, index: LOOPBACK, prefixLength, local, address: local };
  const [error] = netlink.tryAll([request(RTM_DELADDR, 0, what, address, body)]);
  if (error && error.code !== 'EADDRNOTAVAIL') throw error;
  return error ? [] : [what];
}

/**
 * The tombstones (claim.ts) of a mesh that has no container any more; of all meshes where there is none at all.
 * As long as containers come and go, addresses cool down.
 */
export function tombstones(netlink: Netlink, mesh?: Mesh): Route[] {
  const found = tombstonesIn(netlink);
  if (found.length === 0 || attachedCount(netlink) === 0) return found;
  if (!mesh || attachedCount(netlink, mesh) > 0) return [];
  return found.filter((each) => isOf(mesh, each));
}

/** Removes them; returns what was removed, in words. */
export function removeTombstones(netlink: Netlink, found: readonly Route[]): string[] {
  const requests = found.map(({ dst, dstLength }) =>
    request(RTM_DELROUTE, 0, () => `unreachable route to ${dst?.join('.')}`, route, {
      ...{ family: AF_INET, dstLength, table: RT_TABLE_MAIN, protocol: CONTAINER_PROTOCOL },
      ...{ type: RTN_UNREACHABLE, scope: RT_SCOPE_NOWHERE, ...(dst && { dst }) },
    }),
  );
  const errors = netlink.tryAll(requests).filter((error) => error !== undefined);
  const failed = errors.find(({ code }) => code !== 'ESRCH');
  if (failed) throw failed;
  const count = found.length - errors.length;
  return count === 0 ? [] : [`unreachable routes to addresses of detached containers: ${count}`];
}
