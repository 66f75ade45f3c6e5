/** The kernel's receiver of GRE in UDP: a port of its FOU module (ip-fou(8), RFC 8086). */
import { InlayError } from '../../errors.ts';
import {
  CTRL_CMD_GETFAMILY,
  FOU_CMD_ADD,
  FOU_CMD_DEL,
  FOU_CMD_GET,
  FOU_ENCAP_DIRECT,
  family,
  fou,
  GENL_ID_CTRL,
} from '../../linux/netlink/generic.ts';
import { NetlinkError, request } from '../../linux/netlink/message.ts';
import { Netlink } from '../../linux/netlink/netlink.ts';
import { AF_INET } from '../../linux/netlink/rtnetlink.ts';
import { NETLINK_GENERIC } from '../../linux/netlink/transport.ts';
import { IPPROTO_GRE } from '../../linux/protocols.ts';
import type { FouThing } from '../state.ts';
import type { Kind } from './kind.ts';

export const fouKind: Kind<FouThing> = {
  ensure(thing, context) {
    const { port } = thing;
    if (hasFou(port)) return undefined; // Whoever opened the port, it does what we need.
    return withFou((netlink, type) => {
      context.note(thing);
      try {
        netlink.do(request(type, 0, `FOU port ${port}`, fou, { command: FOU_CMD_ADD, version: 1, ...body(port) }));
      } catch (cause) {
        context.forget(thing);
        if (!(cause instanceof NetlinkError) || cause.code !== 'EADDRINUSE') throw cause;
        throw new InlayError('ERR_FAILED', `UDP port ${port} is taken`, {
          hint: `look who has it: ss -lunp sport = ${port}`,
          cause,
        });
      }
      return `FOU port ${port} is missing`;
    });
  },

  undo({ port }) {
    try {
      if (!hasFou(port)) return false;
      return withFou((netlink, type) => {
        netlink.do(request(type, 0, `FOU port ${port}`, fou, { command: FOU_CMD_DEL, version: 1, ...body(port) }));
        return true;
      });
    } catch (error) {
      if (error instanceof InlayError || (error instanceof NetlinkError && ['EINVAL', 'ENOENT'].includes(error.code)))
        return false;
      throw error;
    }
  },

  commands: ({ port }) => [`ip fou add port ${port} ipproto 47`],
  describe: ({ port }) => `FOU port ${port}`,
};

/** Whether the port is open, for GRE. */
function hasFou(port: number): boolean {
  try {
    return withFou((netlink, type) => {
      const body = { command: FOU_CMD_GET, version: 1, port, family: AF_INET };
      return netlink.get(request(type, 0, `FOU port ${port}`, fou, body), fou).protocol === IPPROTO_GRE;
    });
  } catch (error) {
    if (error instanceof NetlinkError) return false;
    throw error;
  }
}

function body(port: number) {
  return { port, family: AF_INET, protocol: IPPROTO_GRE, type: FOU_ENCAP_DIRECT };
}

function withFou<T>(work: (netlink: Netlink, type: number) => T): T {
  const netlink = Netlink.open(NETLINK_GENERIC);
  try {
    const query = request(GENL_ID_CTRL, 0, 'family fou', family, {
      command: CTRL_CMD_GETFAMILY,
      version: 1,
      name: 'fou',
    });
    const type = netlink.get(query, family).id;
    if (type === undefined) throw new Error('family fou has no number');
    return work(netlink, type);
  } catch (cause) {
    if (!(cause instanceof NetlinkError) || cause.code !== 'ENOENT') throw cause;
    throw new InlayError('ERR_FAILED', 'this kernel cannot receive GRE in UDP: it has no FOU', {
      hint: 'modprobe fou; or on all VMs --encapsulation gre or vxlan, or --dataplane wasm',
      cause,
    });
  } finally {
    netlink.close();
  }
}
