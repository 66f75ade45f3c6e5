/** What an operator types to let our packets pass a chain, in the words of whoever made it. */
import type { BaseChain } from '../../linux/netfilter/fate.ts';
import { IPPROTO_UDP } from '../../linux/protocols.ts';

/** What a rule is to match. */
export interface Match {
  in?: string;
  out?: string;
  source?: string;
  protocol?: number;
  port?: number | undefined;
}

/** Where docker wants rules of others: it does not touch them there. */
const DOCKER_USER = 'DOCKER-USER';
/** Chains that ufw makes in the table filter. */
const UFW = 'ufw-user-input';
const FIREWALLD = 'firewalld';

/** The chain, such as `iptables FORWARD` or `nftables chain inet filter forward`. */
export function nameOf({ tool, family, table, name }: BaseChain): string {
  if (tool === 'nft') return `the chain ${family} ${table} ${name} of nftables`;
  return `the chain ${name} of ${tool}${table === 'filter' ? '' : ` (table ${table})`}`;
}

/** Whether docker has rules in its table. */
export function isDockers(chain: BaseChain): boolean {
  return chain.hasChain(DOCKER_USER);
}

/** Commands that accept what matches any of these. `ufw` are the words for ufw. */
export function accept(chain: BaseChain, matches: readonly Match[], ufw: readonly string[] = []): string {
  if (ufw.length > 0 && chain.hasChain(UFW)) return ufw.map((words) => `ufw ${words}`).join('; ');
  if (chain.table === FIREWALLD) return firewalld(matches);
  return matches.map((match) => command(chain, match)).join('; ');
}

function command(chain: BaseChain, match: Match): string {
  const { tool, family, table, name } = chain;
  if (tool === 'nft') return `nft insert rule ${family} ${table} ${name} ${nftWords(match)} accept`;
  const at = name === 'FORWARD' && isDockers(chain) ? DOCKER_USER : name;
  return `${tool} ${table === 'filter' ? '' : `-t ${table} `}-I ${at} ${iptablesWords(match)} -j ACCEPT`;
}

function iptablesWords({ in: input, out, source, protocol, port }: Match): string {
  return [
    ...(input ? [`-i ${input}`] : []),
    ...(out ? [`-o ${out}`] : []),
    ...(source ? [`-s ${source}`] : []),
    ...(protocol === undefined ? [] : [`-p ${protocol === IPPROTO_UDP ? `udp --dport ${port}` : protocol}`]),
  ].join(' ');
}

function nftWords({ in: input, out, source, protocol, port }: Match): string {
  return [
    ...(input ? [`iifname ${input}`] : []),
    ...(out ? [`oifname ${out}`] : []),
    ...(source ? [`ip saddr ${source}`] : []),
    ...(protocol === undefined ? [] : [protocol === IPPROTO_UDP ? `udp dport ${port}` : `ip protocol ${protocol}`]),
  ].join(' ');
}

/** firewalld makes its tables anew whenever it likes: a rule that is put there does not last. */
function firewalld(matches: readonly Match[]): string {
  const device = matches.flatMap(({ in: input, out }) => input ?? out ?? [])[0];
  if (device) return `firewall-cmd --zone=trusted --add-interface=${device}, and the same for the containers' devices`;
  const [match] = matches;
  if (match?.port !== undefined) return `firewall-cmd --add-port=${match.port}/udp`;
  return 'firewall-cmd --add-protocol=gre';
}
