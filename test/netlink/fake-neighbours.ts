/** Neighbours of the fake kernel (net/core/neighbour.c), and entries of forwarding databases (rtnl_fdb_add in net/core/rtnetlink.c). */
import os from 'node:os';
import { isDeepStrictEqual } from 'node:util';
import { type Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE } from '../../src/linux/netlink/message.ts';
import {
  type Neighbour,
  NTF_SELF,
  NUD_FAILED,
  neighbour,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
  RTNLGRP_NEIGH,
} from '../../src/linux/netlink/neighbour.ts';
import { RTN_UNICAST } from '../../src/linux/netlink/route.ts';
import { hex, type Rules, refuse, type Table } from './fake-table.ts';

const { EAFNOSUPPORT, EEXIST, EINVAL, ENOENT, EOPNOTSUPP } = os.constants.errno;
const AF_INET = 2;
const AF_BRIDGE = 7;
/** The states in which the link-layer address is known. */
const NUD_VALID = 0xde;

/** `linkOf` refuses links that are not there, with these words. */
export function neighbourRules(
  linkOf: (index: number, words?: string) => { address?: Uint8Array | undefined },
  table: () => Table<Neighbour>,
): Rules<Neighbour> {
  return {
    ...{ type: RTM_NEWNEIGH, group: RTNLGRP_NEIGH, codec: neighbour },
    keyOf: ({ family, ifindex, dst, lladdr }) => [family, ifindex, hex(family === AF_BRIDGE ? lladdr : dst)].join(),
    put: putNeighbour,
    find: (given, { type }) => findNeighbour(given, type === RTM_GETNEIGH),
    remove: removeNeighbour,
    checkDump: ({ family, ifindex }) => {
      if (ifindex && family !== AF_BRIDGE) refuse(EINVAL, 'Invalid values in header for neighbor dump request');
    },
    isWanted: ({ family, ifindex, filterIfindex = ifindex }, each) =>
      (family || AF_INET) === each.family && (!filterIfindex || filterIfindex === each.ifindex),
  };

  /** A neighbour as it is asked for, if that makes sense. */
  function checked(given: Neighbour): Neighbour {
    if (given.family === AF_BRIDGE) {
      linkOf(given.ifindex || refuse(EINVAL, 'invalid ifindex'), 'unknown ifindex');
      if (given.lladdr?.length !== 6) refuse(EINVAL, 'invalid address');
      return given.flags & NTF_SELF ? given : refuse(EOPNOTSUPP);
    }
    if (given.family !== AF_INET) refuse(EAFNOSUPPORT);
    if (!given.dst) refuse(EINVAL, 'Network address not specified');
    if (given.dst.length < 4) refuse(EINVAL, 'Invalid network address');
    const own = linkOf(given.ifindex).address?.length ?? 0;
    return given.lladdr && given.lladdr.length < own ? refuse(EINVAL, 'Invalid link address') : given;
  }

  function findNeighbour(given: Neighbour, isAsked: boolean): Neighbour {
    if (isAsked) linkOf(given.ifindex, 'Unknown device ifindex');
    const words = isAsked ? 'Neighbour entry not found' : undefined;
    return table().like(checked(given)) ?? refuse(ENOENT, words);
  }

  function putNeighbour(given: Neighbour, { flags, port }: Message): void {
    const known = table().like(checked(given));
    if (known && flags & NLM_F_EXCL) refuse(EEXIST);
    if (!known && !(flags & NLM_F_CREATE)) refuse(ENOENT);
    if (given.family === AF_BRIDGE) {
      if (!known || flags & NLM_F_REPLACE) table().set(given);
      return;
    }
    if (given.state & NUD_VALID && !given.lladdr && !known?.lladdr) refuse(EINVAL, 'No link layer address given');
    const isOther = known?.lladdr && given.lladdr && hex(known.lladdr) !== hex(given.lladdr);
    if (isOther && !(flags & NLM_F_REPLACE)) return; // The old one stays, without a word.
    const entry = entryOf({ ...known, ...given });
    if (!known || !isDeepStrictEqual(known, entry)) table().set(entry, port);
  }

  /** First it fails, on behalf of who asked for it, then it is gone. */
  function removeNeighbour(found: Neighbour, port: number): void {
    const gone = found.family === AF_INET ? entryOf({ ...found, state: NUD_FAILED, flags: 0 }) : found;
    if (found.state !== gone.state) table().tell(gone, port);
    table().delete(gone);
  }
}

/** A neighbour as Linux shows it. */
export function entryOf({ lladdr, ...given }: Neighbour): Neighbour {
  const shown = {
    ...given,
    type: RTN_UNICAST,
    probes: 0,
    cacheInfo: { confirmed: 0, used: 0, updated: 0, references: 0 },
  };
  return given.state & NUD_VALID && lladdr ? { ...shown, lladdr } : shown;
}
