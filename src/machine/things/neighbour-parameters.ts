/** How the kernel asks for the neighbours of a device (arp(7)). */
import { readFileSync } from 'node:fs';
import { request } from '../../linux/netlink/message.ts';
import { neighbourTable, RTM_SETNEIGHTBL } from '../../linux/netlink/neighbour.ts';
import { AF_INET } from '../../linux/netlink/rtnetlink.ts';
import type { NeighbourParametersThing } from '../state.ts';
import { indexOf, type Kind } from './kind.ts';

const MS = 1000;

export const neighbourParametersKind: Kind<NeighbourParametersThing> = {
  ensure({ device, parameters }, context) {
    const wrong = Object.entries(parameters).filter(([name, value]) => read(device, name) !== value);
    if (wrong.length === 0) return undefined;
    // Values are written by netlink, which works where /proc/sys is read-only. They are read from /proc/sys,
    // because netlink answers with the tables of all devices.
    const { app_solicit, mcast_solicit, ucast_solicit, unres_qlen_bytes, delay_first_probe_time = 0 } = parameters;
    const parms = {
      ifindex: indexOf(context, device),
      ...{ appProbes: app_solicit, mcastProbes: mcast_solicit, ucastProbes: ucast_solicit },
      delayProbeTime: delay_first_probe_time * MS,
      queueLenbytes: unres_qlen_bytes,
    };
    const body = { family: AF_INET, name: 'arp_cache', parms };
    const what = `neighbour parameters of ${device}`;
    context.netlink.do(request(RTM_SETNEIGHTBL, 0, what, neighbourTable, body));
    return `${what}: ${wrong.map(([name]) => name).join(', ')}`;
  },

  commands: ({ device, parameters }) =>
    Object.entries(parameters).map(([name, value]) => `sysctl -qw net/ipv4/neigh/${device}/${name}=${value}`),
  describe: ({ device }) => `neighbour parameters of ${device}`,
};

function read(device: string, name: string): number {
  return Number(readFileSync(`/proc/sys/net/ipv4/neigh/${device}/${name}`, 'utf8'));
}
