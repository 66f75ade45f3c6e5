/** Takes back what apply.ts did and the journal noted. */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { IFF_UP } from '../linux/netlink/link.ts';
import { NetlinkError, request } from '../linux/netlink/message.ts';
import { Netlink } from '../linux/netlink/netlink.ts';
import { RTM_DELROUTE, route } from '../linux/netlink/route.ts';
import { findLink } from '../linux/netlink/rtnetlink.ts';
import { routeBody, setLink } from './apply.ts';
import { removeClsact, removeFilter } from './filter.ts';
import { deleteFou } from './fou.ts';
import type { Change } from './journal.ts';
import { deleteLink } from './make-link.ts';
import type { OverlayRoute } from './steps.ts';
import { routeWords } from './words.ts';

/** Takes one change back; false if it was gone already. */
export function undo(change: Change): boolean {
  switch (change.kind) {
    case 'directory':
      return true; // It holds the journal itself, so it goes last.
    case 'fou':
      return deleteFou(change.port);
    case 'sysctl':
      if (!existsSync(change.file) || readFileSync(change.file, 'utf8').trim() === change.before) return false;
      writeFileSync(change.file, change.before);
      return true;
    default:
      return withNetlink((netlink) => undoLink(netlink, change));
  }
}

function undoLink(netlink: Netlink, change: Exclude<Change, { kind: 'directory' | 'fou' | 'sysctl' }>): boolean {
  switch (change.kind) {
    case 'link':
      return deleteLink(netlink, change.device);
    case 'route':
      return deleteRoute(netlink, change.route);
    case 'filter':
      return removeFilter(netlink, change.device, 'ingress');
    case 'clsact':
      return removeClsact(netlink, change.device);
    case 'link-up':
      if (!findLink(netlink, change.name)) return false;
      setLink(netlink, change.name, { flags: 0, change: IFF_UP });
      return true;
  }
}

function deleteRoute(netlink: Netlink, which: OverlayRoute): boolean {
  const index = which.device === undefined ? undefined : findLink(netlink, which.device)?.index;
  if (which.device !== undefined && index === undefined) return false; // It went with its device.
  const body = routeBody(which, index);
  try {
    netlink.do(request(RTM_DELROUTE, 0, `route ${routeWords(which)}`, route, body));
    return true;
  } catch (error) {
    if (error instanceof NetlinkError && ['ESRCH', 'ENOENT', 'ENODEV'].includes(error.code)) return false;
    throw error;
  }
}

function withNetlink<T>(work: (netlink: Netlink) => T): T {
  const netlink = Netlink.open();
  try {
    return work(netlink);
  } finally {
    netlink.close();
  }
}
