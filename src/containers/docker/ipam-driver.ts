/**
 * The IPAM driver: addresses for docker, from the VM's slice (libnetwork/docs/ipam.md of docker's sources). A
 * failure is an `Error`.
 */
import * as v from 'valibot';
import type { EndpointStore } from './endpoint-store.ts';
import { constant, type Method, method, options, refuse, word } from './method.ts';

const ADDRESS_TYPE = 'RequestAddressType';
/**
 * docker compares a pool that its user did not name with the routes of the host, and asks again for as long
 * as they overlap (requestPoolHelper in libnetwork/network.go of docker 20.10); those of a mesh always do. It
 * does not compare this one.
 */
export const ANY_POOL = '0.0.0.0/0';
const GATEWAY = 'com.docker.network.gateway';

const poolRequest = v.object({ Pool: word, SubPool: word, V6: v.optional(v.boolean(), false) });
const addressRequest = v.object({ PoolID: word, Address: word, Options: options });
const releaseRequest = v.object({ PoolID: word, Address: word });

export const ipamDriver: Record<string, Method> = {
  GetCapabilities: constant('Error', { RequiresMACAddress: false, RequiresRequestReplay: false }),
  GetDefaultAddressSpaces: constant('Error', { LocalDefaultAddressSpace: 'inlay', GlobalDefaultAddressSpace: 'inlay' }),

  RequestPool: method('Error', poolRequest, ({ Pool, SubPool, V6 }, { pool }) => {
    if (V6) refuse('a mesh has no IPv6 addresses', 'leave out --ipv6');
    if (SubPool) refuse(`--ip-range ${SubPool}: addresses come from all of the slice`, 'leave out --ip-range');
    if (Pool && Pool !== pool) refuse(`--subnet ${Pool}: this VM has ${pool}`, `--subnet ${pool}, or none`);
    return { PoolID: pool, Pool: Pool || ANY_POOL, Data: {} };
  }),
  ReleasePool: constant('Error', {}),

  RequestAddress: method('Error', addressRequest, ({ PoolID, Address, Options }, store) => {
    requirePool(store, PoolID);
    if (Options[ADDRESS_TYPE] !== GATEWAY) return { Address: `${store.reserve(Address || undefined)}/32`, Data: {} };
    if (Address && Address !== store.gateway)
      refuse(`--gateway ${Address}: it is the VM's own overlay address`, `--gateway ${store.gateway}, or none`);
    return { Address: store.gateway + store.pool.slice(store.pool.indexOf('/')), Data: {} };
  }),
  // Of an endpoint that there was, the address cools down.
  ReleaseAddress: method('Error', releaseRequest, ({ Address }, store) => {
    store.release(Address);
    return {};
  }),
};

/** Throws if docker's network is not of this VM: the VM has got another underlay address since, or another mesh. */
function requirePool({ pool }: EndpointStore, asked: string): void {
  if (asked !== pool) {
    const hint = 'docker network rm the network and create it again';
    refuse(`docker's network has ${asked}, but this VM has ${pool} now`, hint);
  }
}
