/**
 * Keeps what attaching made for as long as a container is attached. Its route is the claim on its address: if
 * others flush it, another container could get the address while the first one still uses it.
 */
import { readdirSync } from 'node:fs';
import { InlayError } from '../errors.ts';
import * as native from '../linux/native.ts';
import { changeDevice, type DeviceSettings } from '../linux/netlink/device-settings.ts';
import { addressBytes } from '../linux/netlink/ipv4.ts';
import { LOOPBACK, link, RTM_GETLINK } from '../linux/netlink/link.ts';
import { NetlinkError, request } from '../linux/netlink/message.ts';
import { NUD_PERMANENT } from '../linux/netlink/neighbour.ts';
import { Netlink } from '../linux/netlink/netlink.ts';
import { addresses, findLink, matchingRoute } from '../linux/netlink/rtnetlink.ts';
import { type Attachments, LATER } from '../machine/attachments.ts';
import { neighbourAt } from '../machine/things/container-neighbour.ts';
import { type Address, formatAddress } from '../mesh/address.ts';
import { type ContainerAlias, containerOf, isContainerName } from './alias.ts';
import { Claims } from './claim.ts';
import type { Mesh } from './mesh.ts';
import { Slice } from './slice.ts';
import { ownAddress, permanentNeighbour } from './veth.ts';

/** A directory that has the name of each device of this network namespace. */
const DEVICES = '/proc/sys/net/ipv4/conf';
/** Seconds that attaching takes at most. Until then a device may not have its claim yet. */
const ATTACHING = 5;

export class AttachmentKeeper implements Attachments {
  readonly #netlink: Netlink;
  readonly #slice: Slice;
  readonly #claims: Claims;
  readonly #coolDown: number;
  /** Interface indexes of the devices that had their claim when they were looked at last. */
  readonly #claimed = new Set<number>();

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
    const names = readdirSync(DEVICES).filter(isContainerName);
    return names.map((name) => native.ifNameToIndex(name)).filter((index) => index !== 0);
  }

  forget(index: number): void {
    this.#claimed.delete(index);
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
    // Without a cool-down these may be about to go.
    if (this.#coolDown === 0) return repaired;
    const wanted = found.flatMap(({ index, alias }) => {
      const { container, id = '' } = containerOf(alias) ?? {};
      return container !== undefined && this.#claimed.has(index) ? [{ index, container, id }] : [];
    });
    this.#claims.hasSource = true;
    const errors = this.#netlink.tryAll(wanted.map(({ container, index }) => this.#claims.request(container, index)));
    for (const [i, { index, container, id }] of wanted.entries())
      if (!errors[i]) repaired.set(index, lostRoute(id, this.#slice.addressOf(container)));
    return repaired;
  }

  keep(found: DeviceSettings): string | typeof LATER | undefined {
    const alias = containerOf(found.alias);
    if (!alias || alias.container < 1 || alias.container > this.#slice.capacity) return undefined;
    const { index } = found;
    const address = this.#slice.addressOf(alias.container);
    const holder = matchingRoute(this.#netlink, address);
    if (found.isUp && holder?.oif === index && holder.dstLength === address.width) {
      this.#claimed.add(index);
      return this.#keepNeighbour(index, address);
    }
    if (this.#isPassing(index, alias)) return LATER;
    return this.#restore(found, alias, address);
  }

  /**
   * Whether the claim may be about to come, or the device to go. Without a cool-down nothing else tells that a
   * container is being detached.
   */
  #isPassing(index: number, { since }: ContainerAlias): boolean {
    const hadClaim = this.#claimed.delete(index);
    if (hadClaim) return this.#coolDown === 0;
    return Date.now() / 1000 < since + ATTACHING && since <= Date.now() / 1000;
  }

  #restore({ index, isUp }: DeviceSettings, alias: ContainerAlias, address: Address): string | undefined {
    const { id, container } = alias;
    if (!isUp) this.#netlink.tryAll([changeDevice(index, { isUp: true })]);
    this.#claims.hasSource = true;
    let [error] = this.#netlink.tryAll([this.#claims.request(container, index)]);
    if (error?.code === 'EINVAL') {
      this.#claims.hasSource = false; // The loopback device is down.
      [error] = this.#netlink.tryAll([this.#claims.request(container, index)]);
    }
    if (error?.code === 'ENODEV') return undefined;
    if (error && error.code !== 'EEXIST') throw error;
    if (error) return this.#lost(index, alias, address);
    this.#claimed.add(index);
    this.#keepNeighbour(index, address);
    return lostRoute(id, address);
  }

  /** There is another route to the address: what is left of detaching the container, or that of another one. */
  #lost(index: number, { id, ifname }: ContainerAlias, address: Address): undefined {
    const holder = matchingRoute(this.#netlink, address);
    if (holder?.oif === undefined || holder.oif === index) return undefined;
    const name = findLink(this.#netlink, holder.oif)?.name ?? `link ${holder.oif}`;
    throw new InlayError('ERR_FAILED', `container ${id} has lost its address ${formatAddress(address)} to ${name}`, {
      hint: `inlay detach --id ${id} --ifname ${ifname}, then attach it again`,
    });
  }

  #keepNeighbour(index: number, address: Address): string | undefined {
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

function lostRoute(id: string, address: Address): string {
  return `no route to ${formatAddress(address)}, the address of container ${id}`;
}
