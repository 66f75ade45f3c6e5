/**
 * Keeps what attaching made for as long as a container is attached. Its route is the claim on its address: if
 * others flush it, another container could get the address while the first one still uses it.
 */
import { InlayError } from '../errors.ts';
import { changeDevice, type DeviceSettings } from '../linux/netlink/device-settings.ts';
import { addressBytes } from '../linux/netlink/ipv4.ts';
import { LOOPBACK, link, RTM_GETLINK } from '../linux/netlink/link.ts';
import { NetlinkError, request } from '../linux/netlink/message.ts';
import { NUD_PERMANENT } from '../linux/netlink/neighbour.ts';
import { Netlink } from '../linux/netlink/netlink.ts';
import { addresses, findLink } from '../linux/netlink/rtnetlink.ts';
import type { Attachments } from '../machine/attachments.ts';
import { neighbourAt } from '../machine/things/container-neighbour.ts';
import { type Address, formatAddress } from '../mesh/address.ts';
import { quote } from '../shell.ts';
import { type ContainerAlias, containerOf, isGoingGroup } from './alias.ts';
import { Claims } from './claim.ts';
import { containerDevices } from './list.ts';
import type { Mesh } from './mesh.ts';
import { Slice } from './slice.ts';
import { ownAddress, permanentNeighbour } from './veth.ts';

/** A device of an attached container. */
interface Attached {
  index: number;
  alias: ContainerAlias;
  container: number;
  address: Address;
}

export class AttachmentKeeper implements Attachments {
  readonly #netlink: Netlink;
  readonly #slice: Slice;
  readonly #claims: Claims;
  readonly #coolDown: number;

  /** With a socket of its own, so that the watch of the machine hears what is put right. */
  static open(mesh: Mesh): AttachmentKeeper {
    return new AttachmentKeeper(Netlink.open(), mesh);
  }

  private constructor(netlink: Netlink, mesh: Mesh) {
    this.#netlink = netlink;
    this.#slice = new Slice(mesh);
    this.#claims = new Claims(netlink, this.#slice, mesh.coolDown);
    this.#coolDown = mesh.coolDown;
  }

  close(): void {
    this.#netlink.close();
  }

  find(): number[] {
    return containerDevices();
  }

  keepSource(): string | undefined {
    const { gateway } = this.#slice;
    const local = String(addressBytes(gateway));
    if (addresses(this.#netlink, LOOPBACK).some((each) => String(each.local) === local)) return undefined;
    const [error] = this.#netlink.tryAll([ownAddress(gateway)]);
    if (error) throw error;
    return `lo has not ${formatAddress(gateway)}, which the routes to containers need`;
  }

  keepRoutes(found: readonly DeviceSettings[]): Map<number, string> {
    const repaired = new Map<number, string>();
    // Without a cool-down, nothing that was heard of a route tells whether the container is being detached.
    if (this.#coolDown === 0) return repaired;
    const wanted = found.flatMap((each) => this.#attached(each) ?? []);
    this.#claims.hasSource = true;
    const errors = this.#netlink.tryAll(wanted.map(({ container, index }) => this.#claims.request(container, index)));
    for (const [i, { index, alias }] of wanted.entries()) if (!errors[i]) repaired.set(index, lostRoute(alias));
    return repaired;
  }

  keep(found: DeviceSettings): string | undefined {
    const attached = this.#attached(found);
    if (!attached) return undefined;
    if (!found.isUp) this.#netlink.tryAll([changeDevice(found.index, { isUp: true })]);
    else if (this.#claims.isClaimed(attached.container, found.index)) return this.#keepNeighbour(attached);
    return this.#restore(attached);
  }

  /** What is attached by this device to this mesh; undefined if nothing is, or it is about to go. */
  #attached({ index, alias: text, group }: DeviceSettings): Attached | undefined {
    const alias = containerOf(text);
    if (!alias || isGoingGroup(group) || !this.#slice.has(alias.address)) return undefined;
    const container = this.#slice.numberOf(alias.address) as number;
    return { index, alias, container, address: this.#slice.addressOf(container) };
  }

  #restore(attached: Attached): string | undefined {
    const { index, container, alias } = attached;
    this.#claims.hasSource = true;
    // The address comes first: with that of the overlay's device alone, the route would go with the device.
    let [, error] = this.#netlink.tryAll([ownAddress(this.#slice.gateway), this.#claims.request(container, index)]);
    if (error?.code === 'EINVAL') {
      this.#claims.hasSource = false; // The loopback device is down.
      [error] = this.#netlink.tryAll([this.#claims.request(container, index)]);
    }
    if (error?.code === 'ENODEV') return undefined;
    if (error && error.code !== 'EEXIST') throw error;
    if (error) return this.#lost(attached);
    this.#keepNeighbour(attached);
    return lostRoute(alias);
  }

  /** There is another route to the address: what is left of detaching the container, or that of another one. */
  #lost({ index, container, alias: { id, ifname, address } }: Attached): undefined {
    const holder = this.#claims.holder(container);
    if (holder === undefined || holder === index) return undefined;
    const name = findLink(this.#netlink, holder)?.name ?? `link ${holder}`;
    throw new InlayError('ERR_FAILED', `container ${id} has lost its address ${address} to ${name}`, {
      hint: `inlay detach --id ${quote(id)} --ifname ${ifname}, then attach it again`,
    });
  }

  #keepNeighbour({ index, address }: Attached): string | undefined {
    const entry = neighbourAt(this.#netlink, index, addressBytes(address));
    if (entry && entry.state & NUD_PERMANENT) return undefined;
    const mac = this.#peerMac(index);
    if (!mac) return undefined;
    const [error] = this.#netlink.tryAll([permanentNeighbour(index, address, mac)]);
    return error ? undefined : `no lasting neighbour entry of ${formatAddress(address)}`;
  }

  /** The link-layer address of the container's end; undefined if it cannot be told. */
  #peerMac(index: number): Uint8Array | undefined {
    const { link: peer, linkNetNsId } = findLink(this.#netlink, index) ?? {};
    if (peer === undefined || linkNetNsId === undefined) return undefined;
    const body = { index: peer, targetNetNsId: linkNetNsId };
    try {
      return this.#netlink.get(request(RTM_GETLINK, 0, `peer of link ${index}`, link, body), link).address;
    } catch (error) {
      if (error instanceof NetlinkError) return undefined;
      throw error;
    }
  }
}

function lostRoute({ id, address }: ContainerAlias): string {
  return `no route to ${address}, the address of container ${id}`;
}
