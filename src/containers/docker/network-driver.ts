/**
 * The network driver: endpoints, which are containers' interfaces (libnetwork/docs/remote.md of docker's
 * sources). A failure is an `Err`.
 */
import * as v from 'valibot';
import { ANY_POOL } from './ipam-driver.ts';
import { constant, type Method, method, options, refuse, word } from './method.ts';

const INTERNAL = 'com.docker.network.internal';
const GENERIC = 'com.docker.network.generic';
const PORTS = 'com.docker.network.portmap';
/** docker gives the interface this name, and a number. */
const INTERFACE_PREFIX = 'eth';
/** Of a static route: the destination is behind another address, or on the link. */
const NEXT_HOP = 0;
const CONNECTED = 1;

const pools = v.optional(v.nullable(v.array(v.object({ Pool: word })), []), []);
const networkRequest = v.object({ Options: options, IPv4Data: pools, IPv6Data: pools });
const endpointRequest = v.object({ EndpointID: v.pipe(v.string(), v.minLength(1), v.maxLength(256)) });
const creation = v.object({
  ...endpointRequest.entries,
  Interface: v.optional(v.nullable(v.object({ Address: word, MacAddress: word }))),
});
const exposure = v.object({ Options: options });

export const networkDriver: Record<string, Method> = {
  GetCapabilities: constant('Err', { Scope: 'local', ConnectivityScope: 'global' }),

  CreateNetwork: method('Err', networkRequest, ({ Options, IPv4Data, IPv6Data }, { pool }) => {
    if (IPv6Data.length > 0) refuse('a mesh has no IPv6 addresses', 'leave out --ipv6');
    if (IPv4Data.length !== 1 || ![pool, ANY_POOL].includes(IPv4Data[0]?.Pool ?? ''))
      refuse(`a network of this driver has the addresses of the VM, ${pool}`, 'add --ipam-driver inlay');
    if (Options[INTERNAL] === true) refuse('a mesh cannot be --internal', 'leave it out');
    const [unknown] = Object.keys((Options[GENERIC] ?? {}) as object);
    if (unknown !== undefined) refuse(`unknown option ${unknown}`, 'leave out --opt');
    return {};
  }),
  DeleteNetwork: constant('Err', {}),

  CreateEndpoint: method('Err', creation, ({ EndpointID, Interface }, store) => {
    if (!Interface?.Address) refuse('the endpoint has no address', 'create the network with --ipam-driver inlay');
    const [address = ''] = Interface.Address.split('/');
    const mac = store.create(EndpointID, address, Interface.MacAddress || undefined);
    // docker takes back nothing that it gave itself.
    return { Interface: Interface.MacAddress ? {} : { MacAddress: mac } };
  }),
  EndpointOperInfo: constant('Err', { Value: {} }),
  DeleteEndpoint: method('Err', endpointRequest, ({ EndpointID }, store) => {
    store.remove(EndpointID);
    return {};
  }),

  Join: method('Err', endpointRequest, ({ EndpointID }, store) => ({
    InterfaceName: { SrcName: store.deviceOf(EndpointID), DstPrefix: INTERFACE_PREFIX },
    Gateway: store.gateway,
    StaticRoutes: [
      { Destination: `${store.gateway}/32`, RouteType: CONNECTED },
      // Where another of the container's networks has the default route.
      { Destination: store.overlay, RouteType: NEXT_HOP, NextHop: store.gateway },
    ],
  })),
  // The device comes back from the container, and may join again.
  Leave: constant('Err', {}),

  ProgramExternalConnectivity: method('Err', exposure, ({ Options }) => {
    const ports = Options[PORTS];
    if (Array.isArray(ports) && ports.length > 0)
      refuse('a mesh publishes no ports: the container can be reached at its own address', 'leave out --publish');
    return {};
  }),
  RevokeExternalConnectivity: constant('Err', {}),
  DiscoverNew: constant('Err', {}),
  DiscoverDelete: constant('Err', {}),
};
