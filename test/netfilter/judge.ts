/** What the look-out says of captured rule sets, for the VM that rule-sets.ts tells of. */
import { legacyChains } from '../../src/linux/netfilter/iptables-legacy.ts';
import { Nftables } from '../../src/linux/netfilter/nft.ts';
import { Netlink } from '../../src/linux/netlink/netlink.ts';
import type { Transport } from '../../src/linux/netlink/transport.ts';
import { HOOKS, judgeAll, LEGACY_HOOKS } from '../../src/machine/remarks/firewall.ts';
import type { Remark, Vantage } from '../../src/machine/remarks/remark.ts';
import { type Prefix, parseAddress, parsePrefix } from '../../src/mesh/address.ts';
import { Mapping } from '../../src/mesh/mapping.ts';
import type { RuleSet } from './rule-sets.ts';

/** As capture.mjs prints it. */
export interface Captured {
  replies: Record<string, string[]>;
  legacy: Record<string, { info: string; entries: string }>;
}

const SEQUENCE = 8;

/** Answers as the kernel did. */
class Replay implements Transport {
  readonly port = 1;
  readonly #replies: Captured['replies'];
  #next: Uint8Array[] = [];

  constructor(replies: Captured['replies']) {
    this.#replies = replies;
  }

  send(datagram: Uint8Array): void {
    const sequence = datagram.slice(SEQUENCE, SEQUENCE + 4);
    const asked = Buffer.from(datagram)
      .fill(0, SEQUENCE, SEQUENCE + 4)
      .toString('hex');
    const replies = this.#replies[asked];
    if (!replies) throw new Error(`not captured: ${asked}`);
    this.#next = replies.map((reply) => withSequence(Buffer.from(reply, 'hex'), sequence));
  }

  receive(): Uint8Array | undefined {
    return this.#next.shift();
  }

  wait(): void {}
  close(): void {}
}

/** All messages of an answer have the sequence number of the question. */
function withSequence(datagram: Buffer, sequence: Uint8Array): Uint8Array {
  for (let at = 0; at < datagram.length; at += (datagram.readUInt32LE(at) + 3) & ~3)
    datagram.set(sequence, at + SEQUENCE);
  return datagram;
}

const address = (text: string) => parseAddress(text) as NonNullable<ReturnType<typeof parseAddress>>;
const mappings = [new Mapping(parsePrefix('10.0.0.0/8') as Prefix, parsePrefix('192.168.0.0/16') as Prefix)];

function vantageOf({ isSecondary = false, outer }: RuleSet): Vantage {
  return {
    plan: { device: 'inlay0', runDir: '/run/inlay', local: address('192.168.16.32'), mappings, mtu: 1476 },
    outer: outer ? { protocol: 17, port: 4754 } : { protocol: 47 },
    overlay: { name: 'inlay0', index: 7 },
    container: { name: 'veth90', index: 8 },
    underlay: {
      device: { name: 'eth0', index: 2 },
      masquerade: address(isSecondary ? '192.168.16.99' : '192.168.16.32'),
    },
  };
}

export async function judged({ replies, legacy }: Captured, set: RuleSet): Promise<Remark[]> {
  const bytes = (hex: string) => Uint8Array.from(Buffer.from(hex, 'hex'));
  const chains = [
    ...(await new Nftables(() => new Netlink(new Replay(replies))).baseChains(HOOKS)),
    ...Object.entries(legacy).flatMap(([table, { info, entries }]) =>
      legacyChains(table, { info: bytes(info), entries: bytes(entries) }, LEGACY_HOOKS[table] ?? {}),
    ),
  ];
  return judgeAll(chains, vantageOf(set));
}
