/** Which link is whose: its name is a hash of the container's id and interface, and its alias says the rest. */
import type { ReceivedLink } from '../linux/netlink/link.ts';
import type { Netlink } from '../linux/netlink/netlink.ts';
import { findLink } from '../linux/netlink/rtnetlink.ts';
import {
  CONTAINER_GROUP,
  type ContainerAlias,
  containerOf,
  type Identity,
  isAliasOf,
  isGoingGroup,
  namesOf,
} from './alias.ts';
import { ContainerError } from './reasons.ts';
import { checkRequest } from './request.ts';

export const DEFAULT_IFNAME = 'eth0';

/** Which container's interface is meant. */
export interface Target {
  id: string;
  /** eth0 unless given. */
  ifname?: string;
  /** The host's end, if it is known: an id that is too long for an alias does not tell it. */
  hostInterface?: string;
}

/** A link of ours. */
export interface Found {
  link: ReceivedLink;
  /** Undefined if the link was never finished. */
  alias: ContainerAlias | undefined;
  /** Whether somebody has begun to detach it, who may have been killed. */
  isGoing: boolean;
}

/** The link of that name, if it is ours. Throws ContainerError if it is another's. */
export function named(netlink: Netlink, target: Target): Found | undefined {
  const identity = identityOf(target);
  checkRequest(identity);
  const { hostInterface = namesOf(identity).hostInterface } = target;
  const link = findLink(netlink, hostInterface);
  if (!link) return undefined;
  const found = foundOf(link);
  if (!found || (found.alias && !isAliasOf(found.alias, identity))) {
    throw new ContainerError('not-ours', `link ${hostInterface} is not one that Inlay made for ${identity.id}`, {
      hint: 'choose another id, or remove the link',
    });
  }
  return found;
}

/** Undefined if the link is another's. */
export function foundOf(link: ReceivedLink): Found | undefined {
  const alias = containerOf(link.alias);
  const isGoing = isGoingGroup(link.group);
  const isUnfinished = link.alias === undefined && (isGoing || link.group === CONTAINER_GROUP);
  return link.info?.kind === 'veth' && (alias || isUnfinished) ? { link, alias, isGoing } : undefined;
}

export function identityOf({ id, ifname = DEFAULT_IFNAME }: Target): Identity {
  return { id, ifname };
}
