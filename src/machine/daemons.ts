/**
 * The Inlay daemons of this network namespace, as the kernel tells of them: by the locks they hold and the
 * devices they made.
 */
import { InlayError } from '../errors.ts';
import { Netlink } from '../linux/netlink/netlink.ts';
import { linksOfKind } from '../linux/netlink/rtnetlink.ts';
import { quote } from '../shell.ts';
import { type Maker, makerOf } from './alias.ts';
import { heldDevices, type IsHeld } from './device-locks.ts';

/** The kinds of devices that a daemon may have. */
const KINDS = ['tun', 'gre', 'vxlan'];

/** The daemons that run and have made their device. */
export function findDaemons(): Maker[] {
  const isHeld = heldDevices();
  if (isHeld.count === 0) return [];
  const netlink = Netlink.open();
  try {
    return devicesOf(netlink, isHeld);
  } finally {
    netlink.close();
  }
}

function devicesOf(netlink: Netlink, isHeld: IsHeld): Maker[] {
  return KINDS.flatMap((kind) => linksOfKind(netlink, kind)).flatMap(({ name, alias }) => {
    const maker = makerOf(alias);
    return maker && name !== undefined && isHeld(maker.device) ? [maker] : [];
  });
}

/** A daemon, for people. */
export function daemonText({ vm, device, runDir }: Maker): string {
  return `VM ${vm}, device ${device}${runDir === undefined ? '' : `, run directory ${runDir}`}`;
}

/** The end of a command that is for this daemon. */
export function runDirFlag({ runDir }: Pick<Maker, 'runDir'>): string {
  return runDir === undefined ? '' : ` --run-dir ${quote(runDir)}`;
}

/**
 * The error for a thing in the way, such as a route, that is another daemon's. If that daemon runs, its
 * containers need the thing, so nobody should remove it by hand.
 */
export function ofOtherDaemon(what: string, maker: Maker, cause?: unknown): InlayError {
  const [text, flag] = [daemonText(maker), runDirFlag(maker)];
  return heldDevices()(maker.device)
    ? new InlayError('ERR_FAILED', `${what} belongs to another Inlay daemon, which runs: ${text}`, {
        hint: `look at it with inlay status${flag}, and leave its devices and routes alone; stop it first, or choose another overlay and key for this daemon`,
        cause,
      })
    : new InlayError('ERR_FAILED', `${what} is left of another Inlay daemon, which has stopped: ${text}`, {
        hint: `inlay down${flag} removes what it left`,
        cause,
      });
}
