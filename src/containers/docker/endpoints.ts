/**
 * docker's endpoints in the kernel: containers whose interface docker itself moves into their namespace. The
 * id is the endpoint's.
 *
 * An address is reserved when docker asks for it. CreateEndpoint makes the veth, claims the address, and
 * writes the alias last, so that whatever has an alias is whole. Nothing else is remembered.
 */
import * as native from '../../linux/native.ts';
import { findLink } from '../../linux/netlink/rtnetlink.ts';
import { formatAddress, formatPrefix, parseAddress } from '../../mesh/address.ts';
import { aliasOf, DOCKER, DOCKER_IFNAME, type Identity, namesOf } from '../alias.ts';
import type { Attachment } from '../attachment.ts';
import type { Containers } from '../containers.ts';
import { explain } from '../explain.ts';
import type { Mesh } from '../mesh.ts';
import { ContainerError } from '../reasons.ts';
import { parseMac } from '../request.ts';
import { deleteLink, disableIpv6, finished, hostEnd, newVeth, permanentNeighbour } from '../veth.ts';
import type { EndpointStore } from './endpoint-store.ts';

/** Seconds from RequestAddress to CreateEndpoint. docker waits 30 s for a plugin. */
const RESERVATION = 60;
/** What is not known before docker moves the interface. */
const NO_NAMESPACE = 0;

export class Endpoints implements EndpointStore {
  readonly #containers: Containers;
  readonly #mtu: number;

  constructor(containers: Containers, { mtu }: Mesh) {
    this.#containers = containers;
    this.#mtu = mtu;
  }

  get pool(): string {
    return this.#containers.slice.prefix;
  }

  get overlay(): string {
    return formatPrefix(this.#containers.slice.overlay);
  }

  get gateway(): string {
    return formatAddress(this.#containers.slice.gateway);
  }

  reserve(address: string | undefined): string {
    this.#containers.requireVm();
    const { claims, slice } = this.#containers;
    // By its number, docker gives an address to a container with --ip. `docker restart` asks for the one that
    // the same container had a moment ago.
    const wanted = address === undefined ? undefined : slice.requireContainerAt(address);
    return this.#address(claims.reserve(wanted, RESERVATION, DOCKER));
  }

  release(address: string): void {
    const { claims, slice } = this.#containers;
    const asked = parseAddress(address);
    const container = asked && slice.containerAt(asked);
    if (container !== undefined) claims.cancel(container);
  }

  create(endpoint: string, address: string, mac: string | undefined): string {
    const container = this.#containers.slice.requireContainerAt(address);
    const found = this.#find(endpoint);
    if (found?.container === container) return found.mac;
    if (found) throw new ContainerError('attached', `endpoint ${endpoint} has ${found.address}`);
    // What a process that was killed left of it.
    this.remove(endpoint);
    return this.#make(identityOf(endpoint), container, mac);
  }

  deviceOf(endpoint: string): string {
    const device = deviceOf(identityOf(endpoint));
    if (!this.#find(endpoint)) throw new ContainerError('not-attached', `there is no endpoint ${endpoint}`);
    if (findLink(this.#containers.netlink, device)) return device;
    throw new ContainerError('attached', `the device of endpoint ${endpoint} is in a container`);
  }

  remove(endpoint: string): void {
    this.#containers.detach(identityOf(endpoint));
  }

  #address(container: number): string {
    return formatAddress(this.#containers.slice.addressOf(container));
  }

  /** The endpoint, if it is whole. */
  #find(endpoint: string): Attachment | undefined {
    const found = this.#containers.find(identityOf(endpoint));
    if (!found) return undefined;
    const { netlink, claims } = this.#containers;
    const link = findLink(netlink, found.hostInterface);
    return link && claims.isClaimed(found.container, link.index) ? found : undefined;
  }

  /**
   * docker makes no lasting neighbour entry in the container. Without ARP the container needs none: it sends
   * everything to its own link-layer address, and the host's end has the same. So no other setting, such as
   * arp_ignore, silences the gateway, and the entry takes no place in the machine's table of neighbours that
   * the kernel would not give to another (neigh_forced_gc in net/core/neighbour.c).
   */
  #make(identity: Identity, container: number, wanted: string | undefined): string {
    const { claims, netlink, slice } = this.#containers;
    const names = namesOf(identity);
    const mac = wanted === undefined ? names.mac : parseMac(wanted);
    const peer = { ifname: deviceOf(identity), noArp: true };
    const [failure] = netlink.tryAll([newVeth({ ...names, mac, hostMac: mac }, peer, this.#mtu)]);
    if (failure) throw explain(failure, 'link');
    const link = native.ifNameToIndex(names.hostInterface);
    try {
      disableIpv6(names.hostInterface);
      const at = slice.addressOf(container);
      this.#containers.prepare();
      netlink.do(hostEnd(link));
      netlink.do(permanentNeighbour(link, at, mac));
      claims.takeOver(container, link);
      const since = Math.floor(Date.now() / 1000);
      netlink.do(finished(link, aliasOf({ ...identity, address: formatAddress(at), netns: NO_NAMESPACE, since })));
    } catch (error) {
      netlink.tryAll([deleteLink(link)]);
      throw explain(error, 'host', identity);
    }
    return this.#containers.find(identity)?.mac ?? '';
  }
}

function identityOf(endpoint: string): Identity {
  return { id: endpoint, ifname: DOCKER_IFNAME };
}

/** The container's end, until docker moves it: the host's end, but for one letter. */
function deviceOf(identity: Identity): string {
  return namesOf(identity).hostInterface.replace('inl', 'inc');
}
