/**
 * Chains that drop what Inlay carries. Docker sets the policy of FORWARD to DROP, and ufw and firewalld come
 * with one that drops at INPUT and FORWARD.
 *
 * It is said only of what is certain: a rule that is not understood, or that applies to some packets only,
 * may let ours pass, and then nothing is said. Where only one side may begin a connection, that is somebody's
 * policy, but for docker's: it does so for each of its networks, and a slice may be one.
 */
import { type BaseChain, fates } from '../../linux/netfilter/fate.ts';
import type { Packet } from '../../linux/netfilter/packet.ts';
import { NF_INET_FORWARD, NF_INET_LOCAL_IN } from '../../linux/netlink/nf-tables.ts';
import { formatPrefix } from '../../mesh/address.ts';
import { accept, isDockers, nameOf } from './commands.ts';
import { fromContainer, fromVm, ownMapping, toContainer } from './packets.ts';
import type { Remark, Vantage } from './remark.ts';

/** What it drops, in words. */
const ALL = 'packets between containers and other VMs';
const OUT = 'connections that containers begin to other VMs';
const IN = 'connections that other VMs begin to containers';

export function dropRemarks(chain: BaseChain, vantage: Vantage): Remark[] {
  if (chain.hook === NF_INET_FORWARD) return forward(chain, vantage);
  return chain.hook === NF_INET_LOCAL_IN ? input(chain, vantage) : [];
}

function areDropped(chain: BaseChain, packets: readonly Packet[]): boolean {
  return packets.length > 0 && packets.flatMap((packet) => fates(chain, packet)).every(({ kind }) => kind === 'drop');
}

function forward(chain: BaseChain, vantage: Vantage): Remark[] {
  const dropped = (of: typeof fromContainer, state: Packet['state']) => areDropped(chain, of(vantage, state));
  const newOut = dropped(fromContainer, 'new');
  const newIn = dropped(toContainer, 'new');
  const laterOut = dropped(fromContainer, 'established');
  const laterIn = dropped(toContainer, 'established');
  // A connection needs its first packet, and the answers.
  const [noneOut, noneIn] = [newOut || laterIn, newIn || laterOut];
  if (!(isDockers(chain) ? noneOut || noneIn : noneOut && noneIn)) return [];
  const { name } = vantage.overlay;
  const rules = [...(newIn || laterIn ? [{ in: name }] : []), ...(newOut || laterOut ? [{ out: name }] : [])];
  return [
    {
      key: `forward ${nameOf(chain)}`,
      what: `${nameOf(chain)} drops ${noneOut && noneIn ? ALL : noneOut ? OUT : IN}${policyOf(chain)}`,
      hint: accept(chain, rules, [`route allow in on ${name}`, `route allow out on ${name}`]),
    },
  ];
}

function input(chain: BaseChain, vantage: Vantage): Remark[] {
  if (!areDropped(chain, fromVm(vantage))) return [];
  const mapping = ownMapping(vantage);
  const underlay = mapping ? formatPrefix(mapping.underlay) : '';
  const { protocol, port } = vantage.outer;
  const ufw = port === undefined ? `proto gre from ${underlay}` : `proto udp from ${underlay} to any port ${port}`;
  return [
    {
      key: `input ${nameOf(chain)}`,
      what: `${nameOf(chain)} drops packets of other VMs to which this VM has not sent yet${policyOf(chain)}`,
      hint: accept(chain, [{ source: underlay, protocol, port }], [`allow ${ufw}`]),
    },
  ];
}

function policyOf({ policy }: BaseChain): string {
  return policy === 'drop' ? ': its policy is DROP, and no rule accepts them' : '';
}
