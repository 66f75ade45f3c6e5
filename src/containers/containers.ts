/**
 * Attaches and detaches containers: synchronous and without a daemon. All state is the kernel's: a link with
 * an alias, and the route that is the claim on its address.
 */
import { closeSync } from 'node:fs';
import * as native from '../linux/native.ts';
import { makeClsact } from '../linux/netlink/filters.ts';
import { addressBytes } from '../linux/netlink/ipv4.ts';
import type { ReceivedLink } from '../linux/netlink/link.ts';
import { NetlinkError, type Request } from '../linux/netlink/message.ts';
import { Netlink } from '../linux/netlink/netlink.ts';
import { findLink } from '../linux/netlink/rtnetlink.ts';
import { pause } from '../linux/pause.ts';
import { isChainedId } from '../machine/chained.ts';
import { neighbourAt } from '../machine/things/container-neighbour.ts';
import { formatAddress, parseAddress } from '../mesh/address.ts';
import { quote } from '../shell.ts';
import { aliasOf, type ContainerAlias, holderOf, type Identity, macText, namesOf } from './alias.ts';
import type { Attachment, AttachRequest } from './attachment.ts';
import { Claims } from './claim.ts';
import { explain, type Step } from './explain.ts';
import { type Found, foundOf, identityOf, named, type Target } from './found.ts';
import { hasDefaultRoute, type Inside, setUpInside, wrongInside } from './inside.ts';
import { type ContainerStatus, containerDevices, listContainers } from './list.ts';
import { type Mesh, requireLocal } from './mesh.ts';
import { Home, type Namespace, openNamespace } from './namespace.ts';
import { ContainerError } from './reasons.ts';
import { checkRequest } from './request.ts';
import { Slice } from './slice.ts';
import {
  catchAll,
  deleteLink,
  deleteReleased,
  disableIpv6,
  finished,
  hostEnd,
  markDetached,
  markReleased,
  newVeth,
  noNeighbour,
  ownAddress,
  permanentNeighbour,
} from './veth.ts';

/**
 * How often a link that is in the way is looked at, with so many ms between: one that is half made, which
 * somebody may be making, while others delete a thousand links; and one that leads to another namespace,
 * which may have been deleted, and takes a while to go.
 */
const PATIENCE = { halfMade: 100, elsewhere: 10, interval: 20 };
/** How often a link is made where one is in the way that goes. */
const TRIES = 3;

export class Containers {
  readonly claims: Claims;
  readonly slice: Slice;
  readonly netlink: Netlink;
  readonly #mesh: Mesh;
  readonly #home = new Home();
  /** Whether what all containers need was seen to be there. */
  #isPrepared = false;

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
    this.requireVm();
    const namespace = openNamespace(request.netns);
    try {
      if (namespace.inode === this.#home.inode)
        throw new ContainerError('invalid', `${request.netns} is this VM's own network namespace`);
      return this.#attach(request, namespace);
    } finally {
      closeSync(namespace.fd);
    }
  }

  /** Throws ContainerError if this machine is not the VM that the mesh says, any more or yet. */
  requireVm(): void {
    requireLocal(this.netlink, this.#mesh);
  }

  /** Undefined if nothing was attached. What is of another mesh goes, too: it was named. Throws ContainerError. */
  detach(target: Target): Attachment | undefined {
    return this.detachAll([target])[0];
  }

  /** Detaches those that are attached, and deletes their links in one message. Throws ContainerError. */
  detachAll(targets: readonly Target[]): Attachment[] {
    // Whoever is named twice is one.
    const byIndex = new Map(
      targets.flatMap((target) => named(this.netlink, target) ?? []).map((each) => [each.link.index, each]),
    );
    return this.#detach([...byIndex.values()]);
  }

  /** Detaches all containers of this mesh, and what is half made or has lost its route. Throws ContainerError. */
  detachEverything(): Attachment[] {
    const links = containerDevices().flatMap((index) => findLink(this.netlink, index) ?? []);
    return this.#detach(links.flatMap((link) => foundOf(link) ?? []).filter((each) => this.#isHere(each)));
  }

  #detach(found: readonly Found[]): Attachment[] {
    const detached = found.flatMap(({ link, alias, isGoing }) =>
      alias && !isGoing ? this.#attachmentOf(link, alias) : [],
    );
    const each = (mark: (index: number) => Request) => found.map(({ link }) => mark(link.index));
    // First of all: the daemon puts nothing back that is about to go.
    this.#do('detach', each(markDetached), ['ENODEV']);
    for (const { link, alias } of found) if (alias) this.#release(link.index, alias);
    // What others are detaching may not have given its address back yet.
    const deletion = found.length > 1 ? [...each(markReleased), deleteReleased()] : each(deleteLink);
    this.#do('detach', deletion, ['ENODEV']);
    return detached;
  }

  /** Undefined if it is not attached. Throws ContainerError. */
  find(target: Target): Attachment | undefined {
    const { link, alias, isGoing } = this.#find(target) ?? {};
    return link && alias && !isGoing ? this.#attachmentOf(link, alias) : undefined;
  }

  /** Throws ContainerError that says what is not as it was made. */
  check({ netns, ...target }: Target & { netns?: string }): Attachment {
    const { link, alias, isGoing } = this.#find(target) ?? {};
    const { id, ifname } = identityOf(target);
    const missing = (what: string) => new ContainerError('not-attached', `container ${id}: ${what}`);
    if (!link || !alias || isGoing) throw missing(`no interface ${ifname} is attached`);
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
    if (link === 0) throw gone(ifname, namespace);
    try {
      disableIpv6(hostInterface);
      const container = this.#claim(request.container, link, names.mac, identity);
      const route = this.#setUpInside(namespace, ifname, container, names.hostMac);
      const address = formatAddress(this.slice.addressOf(container));
      const alias = { ...identity, address, netns: namespace.inode, since: Math.floor(Date.now() / 1000) };
      this.netlink.do(finished(link, aliasOf(alias)));
      return { ...this.#attachment(container, alias, names, mtu), route };
    } catch (error) {
      // Whatever became of the namespace meanwhile, nothing stays.
      this.netlink.tryAll([deleteLink(link)]);
      throw explain(error, 'host', identity, namespace);
    }
  }

  /** Claims a number and sets up the host's end; all in one message where the first number that is tried is free. */
  #claim(wanted: number | undefined, link: number, mac: Uint8Array, identity: Identity): number {
    const first = wanted ?? this.claims.candidate(link);
    const neighbourOf = (container: number) => permanentNeighbour(link, this.slice.addressOf(container), mac);
    // The discipline for the fast path's program, while the device is down: on one that is up, packets would be lost
    // meanwhile (dev_deactivate in net/sched/sch_generic.c). Where the kernel has none, there is no fast path.
    const ingress = isChainedId(identity.id) ? [] : [makeClsact(link, `clsact of link ${link}`)];
    const attempt = () =>
      this.netlink
        .tryAll([...ingress, hostEnd(link), neighbourOf(first), this.claims.request(first, link)])
        .slice(ingress.length);
    if (!this.#isPrepared) this.prepare();
    this.claims.hasSource = true;
    let [end, entry, claim] = attempt();
    for (let i = 0; claim?.code === 'EINVAL' && i < 2; i++) {
      // Somebody took the preferred source away; or it cannot be there, because lo is down.
      if (i === 0) this.prepare();
      else this.claims.hasSource = false;
      [end, entry, claim] = attempt();
    }
    const error = end ?? entry ?? (claim?.code === 'EEXIST' ? undefined : claim);
    if (error) throw error;
    if (!claim) return first;
    if (wanted !== undefined) {
      this.claims.demand(wanted, link, holderOf(identity));
      return wanted;
    }
    const container = this.claims.next(first, link);
    this.netlink.do(noNeighbour(link, this.slice.addressOf(first)));
    this.netlink.do(neighbourOf(container));
    return container;
  }

  /** Answers what the gateway is the way to. */
  #setUpInside(namespace: Namespace, ifname: string, container: number, gatewayMac: Uint8Array): string {
    const inside = { ...this.#inside(ifname, container), gatewayMac };
    try {
      return this.#within(namespace, ifname, (netlink, link) => {
        const hasOther = hasDefaultRoute(netlink);
        if (hasOther === undefined) return setUpInside(netlink, { ...inside, link, isWayOut: true });
        return this.#within(namespace, ifname, (fresh) => setUpInside(fresh, { ...inside, link, isWayOut: !hasOther }));
      });
    } catch (error) {
      throw explain(error, 'inside', { ifname }, namespace);
    }
  }

  /** Adds what all containers of the VM need, whether a daemon has run or not, if it is not there. */
  prepare(): void {
    const overlays = this.#mesh.mappings.map(({ overlay }) => catchAll(overlay));
    this.netlink.tryAll([ownAddress(this.slice.gateway), ...overlays]);
    this.#isPrepared = true;
  }

  /**
   * Makes room for a link whose name is taken. Throws ContainerError if the container is attached, or the
   * link is another's. What was half made by a process that was killed goes.
   */
  #clear(identity: Identity, namespace: Namespace): void {
    for (let i = 0; ; i++) {
      const { link, alias, isGoing } = this.#find(identity) ?? {};
      if (!link) return;
      const isWhole = alias !== undefined && !isGoing;
      if (isWhole && (alias.netns === namespace.inode || i === PATIENCE.elsewhere))
        throw attached(identity, alias, namespace);
      if (!isWhole && i === PATIENCE.halfMade) {
        if (alias) this.#release(link.index, alias);
        this.#do('host', [deleteLink(link.index)], ['ENODEV']);
        return;
      }
      pause(PATIENCE.interval);
    }
  }

  #release(link: number, alias: ContainerAlias): void {
    const container = this.slice.numberOf(alias.address);
    // The address of the VM that this one was before is not this one's to give back.
    if (container === undefined || !this.slice.has(alias.address)) return;
    try {
      this.claims.release(container, link, holderOf(alias));
    } catch (error) {
      throw explain(error, 'detach');
    }
  }

  /** What of a container is not as it was made; of its inside if the namespace is given. */
  #wrong(link: ReceivedLink, alias: ContainerAlias, namespace: Namespace | undefined): string | undefined {
    const { address, ifname } = alias;
    const container = this.slice.numberOf(address);
    if (container === undefined || !this.slice.has(address)) return `this VM is another now: ${address} is not its own`;
    if (!this.claims.isClaimed(container, link.index)) return `the route to its address does not lead to ${link.name}`;
    if (!namespace) return undefined;
    if (namespace.inode !== alias.netns) return 'it is attached to another namespace';
    try {
      return this.#within(namespace, ifname, (netlink, index) =>
        wrongInside(netlink, { ...this.#inside(ifname, container), link: index }),
      );
    } catch (error) {
      if (error instanceof ContainerError && error.reason === 'namespace-gone') return error.message;
      throw error;
    }
  }

  #inside(ifname: string, container: number): Omit<Inside, 'link'> {
    const { gateway, overlay } = this.slice;
    return { ifname, own: this.slice.addressOf(container), gateway, overlay };
  }

  #within<T>(namespace: Namespace, ifname: string, work: (netlink: Netlink, link: number) => T): T {
    const { netlink, link } = this.#home.within(namespace, () => ({
      netlink: Netlink.open(),
      link: native.ifNameToIndex(ifname),
    }));
    try {
      if (link === 0) throw gone(ifname, namespace);
      return work(netlink, link);
    } catch (error) {
      throw error instanceof NetlinkError && error.code === 'ENODEV' ? gone(ifname, namespace, error) : error;
    } finally {
      netlink.close();
    }
  }

  /** What is attached to this mesh by that name. Throws ContainerError if it is another's. */
  #find(target: Target): Found | undefined {
    const found = named(this.netlink, target);
    if (!found || this.#isHere(found)) return found;
    throw new ContainerError('other-mesh', `container ${target.id} has ${found.alias?.address}, of another mesh`, {
      hint: 'name the run directory of its daemon with --run-dir, or choose another id',
    });
  }

  /** What was never finished tells no mesh. */
  #isHere({ alias }: Found): boolean {
    return !alias || this.slice.numberOf(alias.address) !== undefined;
  }

  #attachmentOf(link: ReceivedLink, alias: ContainerAlias): Attachment {
    const address = parseAddress(alias.address);
    const entry = address && neighbourAt(this.netlink, link.index, addressBytes(address));
    const names = { hostInterface: link.name ?? '', hostMac: link.address ?? new Uint8Array() };
    const container = this.slice.numberOf(alias.address) ?? 0;
    return this.#attachment(container, alias, { ...names, mac: entry?.lladdr ?? new Uint8Array() }, link.mtu ?? 0);
  }

  #attachment(
    container: number,
    { address, id, ifname, netns, since }: ContainerAlias,
    { hostInterface, mac, hostMac }: { hostInterface: string; mac: Uint8Array; hostMac: Uint8Array },
    mtu: number,
  ): Attachment {
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

/** Throws ContainerError, and what `work` throws. */
export function withContainers<T>(mesh: Mesh, work: (containers: Containers) => T): T {
  const containers = Containers.open(mesh);
  try {
    return work(containers);
  } finally {
    containers.close();
  }
}

function gone(ifname: string, { name }: Namespace, cause?: unknown): ContainerError {
  return new ContainerError('namespace-gone', `interface ${ifname} has gone from namespace ${name}`, { cause });
}

function attached({ id, ifname }: Identity, alias: ContainerAlias, namespace: Namespace): ContainerError {
  const where = alias.netns === namespace.inode ? '' : ', in another namespace';
  return new ContainerError('attached', `container ${id} is attached as ${ifname}${where}`, {
    hint: `inlay detach --id ${quote(id)} --ifname ${ifname}`,
  });
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
