/**
 * Attaches and detaches containers: synchronous and without a daemon. All state is the kernel's: a link with
 * an alias, and the route that is the claim on its address.
 */
import { closeSync } from 'node:fs';
import * as native from '../linux/native.ts';
import { addressBytes } from '../linux/netlink/ipv4.ts';
import type { ReceivedLink } from '../linux/netlink/link.ts';
import { NetlinkError, type Request } from '../linux/netlink/message.ts';
import { Netlink } from '../linux/netlink/netlink.ts';
import { findLink } from '../linux/netlink/rtnetlink.ts';
import { pause } from '../linux/pause.ts';
import { neighbourAt } from '../machine/things/container-neighbour.ts';
import { formatAddress } from '../mesh/address.ts';
import {
  aliasOf,
  CONTAINER_GROUP,
  type ContainerAlias,
  containerOf,
  DETACHED_GROUP,
  holderOf,
  type Identity,
  isAliasOf,
  macText,
  namesOf,
} from './alias.ts';
import { Claims } from './claim.ts';
import { explain, type Step } from './explain.ts';
import { type Inside, setUpInside, wrongInside } from './inside.ts';
import { type ContainerStatus, listContainers } from './list.ts';
import type { Mesh } from './mesh.ts';
import { Home, type Namespace, openNamespace } from './namespace.ts';
import { ContainerError } from './reasons.ts';
import { checkRequest } from './request.ts';
import { Slice } from './slice.ts';
import {
  deleteLink,
  deleteMarked,
  disableIpv6,
  hostEnd,
  markForDeletion,
  newVeth,
  noNeighbour,
  ownAddress,
  permanentNeighbour,
} from './veth.ts';

export const DEFAULT_IFNAME = 'eth0';
/**
 * How often a link that is in the way is looked at, with so many ms between: one that is half made, which
 * somebody may be making, while others delete a thousand links; and one that leads to another namespace,
 * which may have been deleted, and takes a while to go.
 */
const PATIENCE = { halfMade: 100, elsewhere: 10, interval: 20 };
/** How often a link is made where one is in the way that goes. */
const TRIES = 3;

/** What to attach. */
export interface AttachRequest {
  /** Name (of `ip netns`), path or process id. */
  netns: string;
  /** Interface in the container; eth0 unless given. */
  ifname?: string;
  /** 1 to 256 printable characters; unless given, the namespace's own number. */
  id?: string;
  /** Number of the container; unless given, the next free one. */
  container?: number;
  /** Link-layer address of the interface, 6 bytes; unless given, it follows from id and ifname. */
  mac?: Uint8Array;
}

/** Which container's interface is meant. */
export interface Target {
  id: string;
  /** eth0 unless given. */
  ifname?: string;
  /** The host's end, if it is known: an id that is too long for an alias does not tell it. */
  hostInterface?: string;
}

/** A container on the mesh. */
export interface Attachment {
  /** Number: the index of its address less one. */
  container: number;
  /** Overlay address, such as 10.16.32.91. */
  address: string;
  /** The VM's own overlay address. */
  gateway: string;
  id: string;
  ifname: string;
  /** The host's end of the veth. */
  hostInterface: string;
  /** Link-layer addresses, such as 02:0a:... */
  mac: string;
  hostMac: string;
  /** Bytes. */
  mtu: number;
  /** Inode of the network namespace. */
  netns: number;
  /** Seconds since 1970. */
  since: number;
}

/** A link of ours, with what its alias says; without an alias, it was never finished. */
interface Found {
  link: ReceivedLink;
  alias: ContainerAlias | undefined;
}

export class Containers {
  readonly claims: Claims;
  readonly slice: Slice;
  readonly netlink: Netlink;
  readonly #mesh: Mesh;
  readonly #home = new Home();
  /** Whether the VM's own address was seen to be there. */
  #hasOwnAddress = false;

  /** `coolDown` in seconds, where it is not to be that of the mesh. Throws ContainerError. */
  static open(mesh: Mesh, { coolDown = mesh.coolDown }: { coolDown?: number } = {}): Containers {
    return new Containers(mesh, coolDown);
  }

  private constructor(mesh: Mesh, coolDown: number) {
    this.#mesh = mesh;
    this.slice = new Slice(mesh);
    this.netlink = Netlink.open();
    this.claims = new Claims(this.netlink, this.slice, coolDown);
  }

  close(): void {
    this.netlink.close();
    this.#home.close();
  }

  /** All or nothing. Throws ContainerError. */
  attach(request: AttachRequest): Attachment {
    checkRequest(request);
    if (request.container !== undefined) this.slice.requireNumber(request.container);
    const namespace = openNamespace(request.netns);
    try {
      if (namespace.inode === this.#home.inode)
        throw new ContainerError('invalid', `${request.netns} is this VM's own network namespace`);
      return this.#attach(request, namespace);
    } finally {
      closeSync(namespace.fd);
    }
  }

  /** Undefined if nothing was attached. Throws ContainerError. */
  detach(target: Target): Attachment | undefined {
    return this.detachAll([target])[0];
  }

  /** Detaches those that are attached, and deletes their links in one message. Throws ContainerError. */
  detachAll(targets: readonly Target[]): Attachment[] {
    // Whoever is named twice is one.
    const byIndex = new Map(
      targets.flatMap((target) => this.#find(target) ?? []).map((each) => [each.link.index, each]),
    );
    const found = [...byIndex.values()];
    const detached = found.flatMap(({ link, alias }) => (alias ? this.#attachmentOf(link, alias) : []));
    try {
      for (const { link, alias } of found) if (alias) this.claims.release(alias.container, link.index, holderOf(alias));
    } catch (error) {
      throw explain(error, 'detach');
    }
    const requests =
      found.length === 1
        ? found.map(({ link }) => deleteLink(link.index))
        : found.length > 1
          ? [...found.map(({ link }) => markForDeletion(link.index)), deleteMarked()]
          : [];
    this.#do('detach', requests, ['ENODEV']);
    return detached;
  }

  /** Undefined if it is not attached. Throws ContainerError. */
  find(target: Target): Attachment | undefined {
    const { link, alias } = this.#find(target) ?? {};
    return link && alias && this.#attachmentOf(link, alias);
  }

  /** Throws ContainerError that says what is not as it was made. */
  check({ netns, ...target }: Target & { netns?: string }): Attachment {
    const { link, alias } = this.#find(target) ?? {};
    const { id, ifname } = identityOf(target);
    const missing = (what: string) => new ContainerError('not-attached', `container ${id}: ${what}`);
    if (!link || !alias) throw missing(`no interface ${ifname} is attached`);
    const namespace = netns === undefined ? undefined : openNamespace(netns);
    try {
      const wrong = this.#wrong(link, alias, namespace);
      if (wrong !== undefined) throw missing(wrong);
      return this.#attachmentOf(link, alias);
    } finally {
      if (namespace) closeSync(namespace.fd);
    }
  }

  /** All containers of this VM, by their numbers. */
  list(): ContainerStatus[] {
    return listContainers(this.netlink, this.slice);
  }

  usage(): { capacity: number; inUse: number; coolingDown: number } {
    return this.claims.usage();
  }

  #attach(request: AttachRequest, namespace: Namespace): Attachment {
    const identity = identityOf({ id: request.id ?? defaultId(namespace), ...request });
    const { ifname } = identity;
    const names = { ...namesOf(identity), ...(request.mac && { mac: request.mac }) };
    const { hostInterface } = names;
    const { mtu } = this.#mesh;
    const made = newVeth(names, { ifname, netNsFd: namespace.fd }, mtu);
    let [error] = this.netlink.tryAll([made]);
    // Others may detach and attach the same container at the same time.
    for (let i = 0; error?.code === 'EEXIST' && i < TRIES; i++) {
      this.#clear(identity, namespace);
      [error] = this.netlink.tryAll([made]);
    }
    if (error) throw explain(error, 'link', identity, namespace);
    const link = native.ifNameToIndex(hostInterface);
    try {
      const since = Math.floor(Date.now() / 1000);
      const alias = { ...identity, netns: namespace.inode, since };
      disableIpv6(hostInterface);
      const container = this.#claim(request.container, link, alias, names.mac);
      this.#within(namespace, ifname, (netlink, index) =>
        setUpInside(netlink, this.#inside(index, ifname, container, names.hostMac)),
      );
      return this.#attachment({ ...alias, container }, names, mtu);
    } catch (error) {
      // Whatever became of the namespace meanwhile, nothing stays.
      this.netlink.tryAll([deleteLink(link)]);
      throw explain(error, 'settings', identity, namespace);
    }
  }

  /** Claims a number and sets up the host's end; all in one message where the first number that is tried is free. */
  #claim(wanted: number | undefined, link: number, alias: Omit<ContainerAlias, 'container'>, mac: Uint8Array): number {
    const first = wanted ?? this.claims.candidate(link);
    const endOf = (container: number) => hostEnd(link, aliasOf({ ...alias, container }));
    const neighbourOf = (container: number) => permanentNeighbour(link, this.slice.addressOf(container), mac);
    const attempt = () => this.netlink.tryAll([endOf(first), this.claims.request(first, link), neighbourOf(first)]);
    if (!this.#hasOwnAddress) this.#addOwnAddress();
    this.claims.hasSource = true;
    let [end, claim, entry] = attempt();
    for (let i = 0; claim?.code === 'EINVAL' && i < 2; i++) {
      // Somebody took the preferred source away; or it cannot be there, because lo is down.
      if (i === 0) this.#addOwnAddress();
      else this.claims.hasSource = false;
      [end, claim, entry] = attempt();
    }
    const error = end ?? (claim?.code === 'EEXIST' ? entry : (claim ?? entry));
    if (error) throw error;
    if (!claim) return first;
    if (wanted !== undefined) {
      this.claims.demand(wanted, link, holderOf(alias));
      return wanted;
    }
    const container = this.claims.next(first, link);
    this.#do('settings', [noNeighbour(link, this.slice.addressOf(first)), endOf(container), neighbourOf(container)]);
    return container;
  }

  #addOwnAddress(): void {
    this.netlink.tryAll([ownAddress(this.slice.gateway)]);
    this.#hasOwnAddress = true;
  }

  /**
   * Makes room for a link whose name is taken. Throws ContainerError if the container is attached, or the
   * link is another's. What was half made by a process that was killed goes.
   */
  #clear(identity: Identity, namespace: Namespace): void {
    for (let i = 0; ; i++) {
      const { link, alias } = this.#find(identity) ?? {};
      if (!link) return;
      const isElsewhere = alias !== undefined && alias.netns !== namespace.inode;
      const isWhole = alias !== undefined && !this.#wrong(link, alias, isElsewhere ? undefined : namespace);
      if (isWhole && (!isElsewhere || i === PATIENCE.elsewhere)) {
        const where = isElsewhere ? ', in another namespace' : '';
        throw new ContainerError('attached', `container ${identity.id} is attached as ${identity.ifname}${where}`, {
          hint: `inlay detach --id ${identity.id} --ifname ${identity.ifname}`,
        });
      }
      if (!isWhole && i === PATIENCE.halfMade) {
        this.#do('settings', [deleteLink(link.index)], ['ENODEV']);
        return;
      }
      pause(PATIENCE.interval);
    }
  }

  /** What of a container is not as it was made; of its inside if the namespace is given. */
  #wrong(link: ReceivedLink, alias: ContainerAlias, namespace: Namespace | undefined): string | undefined {
    const { container, ifname } = alias;
    if (!this.claims.isClaimed(container, link.index)) return `the route to its address does not lead to ${link.name}`;
    if (!namespace) return undefined;
    if (namespace.inode !== alias.netns) return 'it is attached to another namespace';
    try {
      return this.#within(namespace, ifname, (netlink, index) =>
        wrongInside(netlink, this.#inside(index, ifname, container, new Uint8Array())),
      );
    } catch (error) {
      if (error instanceof ContainerError && error.reason === 'namespace-gone') return error.message;
      throw error;
    }
  }

  #inside(link: number, ifname: string, container: number, gatewayMac: Uint8Array): Inside {
    const { gateway, overlay } = this.slice;
    return { link, ifname, own: this.slice.addressOf(container), gateway, gatewayMac, overlay };
  }

  #within<T>(namespace: Namespace, ifname: string, work: (netlink: Netlink, link: number) => T): T {
    const { netlink, link } = this.#home.within(namespace, () => ({
      netlink: Netlink.open(),
      link: native.ifNameToIndex(ifname),
    }));
    const gone = (cause?: unknown) =>
      new ContainerError('namespace-gone', `interface ${ifname} has gone from namespace ${namespace.name}`, { cause });
    try {
      if (link === 0) throw gone();
      return work(netlink, link);
    } catch (error) {
      throw error instanceof NetlinkError && error.code === 'ENODEV' ? gone(error) : error;
    } finally {
      netlink.close();
    }
  }

  /** The link of that name, if it is ours. Throws ContainerError if it is another's. */
  #find(target: Target): Found | undefined {
    const identity = identityOf(target);
    checkRequest(identity);
    const { hostInterface = namesOf(identity).hostInterface } = target;
    const link = findLink(this.netlink, hostInterface);
    if (!link) return undefined;
    const alias = containerOf(link.alias);
    const isOurs = alias
      ? isAliasOf(alias, identity)
      : link.alias === undefined && (link.group === CONTAINER_GROUP || link.group === DETACHED_GROUP);
    if (link.info?.kind === 'veth' && isOurs) return { link, alias };
    throw new ContainerError('not-ours', `link ${hostInterface} is not one that Inlay made for ${identity.id}`, {
      hint: 'choose another id, or remove the link',
    });
  }

  #attachmentOf(link: ReceivedLink, alias: ContainerAlias): Attachment {
    const entry = neighbourAt(this.netlink, link.index, addressBytes(this.slice.addressOf(alias.container)));
    const names = { hostInterface: link.name ?? '', hostMac: link.address ?? new Uint8Array() };
    return this.#attachment(alias, { ...names, mac: entry?.lladdr ?? new Uint8Array() }, link.mtu ?? 0);
  }

  #attachment(
    { container, id, ifname, netns, since }: ContainerAlias,
    { hostInterface, mac, hostMac }: { hostInterface: string; mac: Uint8Array; hostMac: Uint8Array },
    mtu: number,
  ): Attachment {
    const address = formatAddress(this.slice.addressOf(container));
    const gateway = formatAddress(this.slice.gateway);
    const macs = { mac: macText(mac), hostMac: macText(hostMac) };
    return { container, address, gateway, id, ifname, hostInterface, ...macs, mtu, netns, since };
  }

  /** Throws the first error whose code is not among these. */
  #do(step: Step, requests: readonly Request[], harmless: readonly string[] = []): void {
    const error = this.netlink.tryAll(requests).find((each) => each && !harmless.includes(each.code));
    if (error) throw explain(error, step);
  }
}

function identityOf({ id, ifname = DEFAULT_IFNAME }: Target): Identity {
  return { id, ifname };
}

/** A network namespace, and the id of a container in it that nobody gave one. */
export interface Identified {
  netns: number;
  id: string;
}

/** Throws ContainerError. */
export function identify(netns: string): Identified {
  const namespace = openNamespace(netns);
  closeSync(namespace.fd);
  return { netns: namespace.inode, id: defaultId(namespace) };
}

function defaultId({ inode }: Namespace): string {
  return `netns-${inode}`;
}
