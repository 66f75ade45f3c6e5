/** All look-outs of a daemon, and what they need to know of it. */
import type { Config } from '../config/config.ts';
import { otherVmRemarks } from '../containers/other-vm.ts';
import { DROP_FOREIGN_DESTINATION, DROP_FOREIGN_UNDERLAY, DROP_SPOOFED_SOURCE } from '../core/abi.ts';
import type { DirectionCounters } from '../core/counters.ts';
import { verdictName } from '../core/verdict.ts';
import type { DataPlane } from '../dataplane/dataplane.ts';
import { OUTER } from '../dataplane/wire-format.ts';
import { addressOf } from '../linux/netlink/ipv4.ts';
import { findLink } from '../linux/netlink/rtnetlink.ts';
import type { Log } from '../log.ts';
import type { Barrier } from '../machine/barrier/barrier.ts';
import type { GuardedDevice } from '../machine/guard.ts';
import type { Machine } from '../machine/machine.ts';
import { containerRemarks, settingsForAll } from '../machine/remarks/containers.ts';
import { FirewallLookOut } from '../machine/remarks/firewall.ts';
import { ForwardingLookOut } from '../machine/remarks/forwarding.ts';
import { LookOut } from '../machine/remarks/look-out.ts';
import { NeighbourTableLookOut } from '../machine/remarks/neighbour-table.ts';
import { PrefixLookOut, type Signs } from '../machine/remarks/prefix.ts';
import type { Remark, Vantage, Way } from '../machine/remarks/remark.ts';
import type { NetworkPlan } from '../machine/state.ts';
import { masqueradeSource, wayToOthers } from '../machine/underlay.ts';

/** Why packets are dropped that VMs with other prefixes send. */
const FOREIGN = [DROP_SPOOFED_SOURCE, DROP_FOREIGN_UNDERLAY, DROP_FOREIGN_DESTINATION];

export interface RemarksOptions {
  config: Config;
  plan: () => NetworkPlan;
  /** Containers' devices, as the guard has found them. */
  guarded: () => Iterable<GuardedDevice>;
  machine: Machine;
  dataPlane: DataPlane;
  barrier: Barrier;
  log: Log;
}

/** Looks until it is closed. */
export function lookOut({ config, plan, guarded, machine, dataPlane, barrier, log }: RemarksOptions): LookOut {
  const { netlink, table, links } = machine;
  const forwarding = new ForwardingLookOut(netlink, table);
  const prefix = new PrefixLookOut(netlink);
  const neighbours = new NeighbourTableLookOut();
  const firewall = new FirewallLookOut();
  const outer = OUTER[config.encapsulation];
  const last = new Map<string, readonly Remark[]>();
  return new LookOut({ log, look });

  async function look(): Promise<readonly Remark[]> {
    const index = links.get(config.device);
    if (index === undefined) return [];
    const off = await attempt('forwarding', () => forwarding.look(index));
    const vantage: Vantage = {
      ...{ plan: plan(), outer, overlay: { name: config.device, index } },
      ...{ container: forwarding.container, underlay: underlay(plan()) },
    };
    const rules = await attempt('firewall', () => firewall.look(vantage));
    const narrow = await attempt('prefix', async () => {
      const { inbound } = await dataPlane.counters();
      return prefix.look(vantage, signsIn(inbound), performance.now());
    });
    const closed = await attempt('barrier', () => barrier.remarks(performance.now()));
    const open = await attempt('containers', () => containerRemarks(guarded(), settingsForAll()));
    const full = await attempt('neighbours', () => neighbours.look(performance.now()));
    const other = await attempt('another VM', () => otherVmRemarks(aliasesOf(guarded()), plan()));
    return [...off, ...rules, ...narrow, ...closed, ...open, ...other, ...full];
  }

  /** Where a look fails, as when rules change meanwhile, what the one before has found stays. */
  async function attempt(name: string, work: () => readonly Remark[] | Promise<readonly Remark[]>) {
    try {
      last.set(name, await work());
    } catch (error) {
      log.debug({ error: String(error) }, `a look at what others do failed: ${name}`);
    }
    return last.get(name) ?? [];
  }

  function underlay({ mappings, local }: NetworkPlan): Way | undefined {
    const route = wayToOthers(netlink, mappings, local);
    const nextHop = addressOf(route?.gateway) ?? addressOf(route?.dst);
    const device = route?.oif === undefined ? undefined : findLink(netlink, route.oif);
    if (!nextHop || !device) return undefined;
    const { name = '', index } = device;
    return { device: { name, index }, masquerade: masqueradeSource(netlink, index, nextHop) };
  }
}

function aliasesOf(devices: Iterable<GuardedDevice>): (string | undefined)[] {
  return [...devices].map(({ found }) => found.alias);
}

function signsIn({ drops }: DirectionCounters): Signs {
  const packets = FOREIGN.reduce((sum, reason) => sum + (drops[-reason] ?? 0), 0);
  return { packets, reasons: FOREIGN.map(verdictName).join(', ') };
}
