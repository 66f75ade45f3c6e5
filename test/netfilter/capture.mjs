/**
 * Prints what the kernel of the network namespace that it runs in says of its rule sets, as JSON: replies of nftables by the request, without sequence numbers,
 * and the tables of iptables-legacy. Everything is in hexadecimal digits.
 */
import { legacyTables, readLegacyTable } from '../../dist/linux/netfilter/iptables-legacy.js';
import { Nftables } from '../../dist/linux/netfilter/nft.js';
import { request } from '../../dist/linux/netlink/message.js';
import { Netlink } from '../../dist/linux/netlink/netlink.js';
import {
  chain,
  elements,
  NFT_MSG_GETCHAIN,
  NFT_MSG_GETRULE,
  NFT_MSG_GETSETELEM,
  rule,
} from '../../dist/linux/netlink/nf-tables.js';
import { NETLINK_NETFILTER, openTransport } from '../../dist/linux/netlink/transport.js';

const SEQUENCE = 8;
const transport = openTransport(NETLINK_NETFILTER);
const replies = {};
let current = [];

function hex(bytes) {
  return Buffer.from(bytes).toString('hex');
}

function withoutSequence(bytes) {
  const copy = Uint8Array.from(bytes);
  copy.fill(0, SEQUENCE, SEQUENCE + 4);
  return copy;
}

const recorder = {
  port: transport.port,
  send(datagram) {
    current = [];
    replies[hex(withoutSequence(datagram))] = current;
    transport.send(datagram);
  },
  receive() {
    const datagram = transport.receive();
    if (datagram) current.push(hex(datagram));
    return datagram;
  },
};

const netlink = new Netlink(recorder);
const dump = (type, codec, body) => netlink.dump(request(type, 0, 'to be captured', codec, body), codec);
await new Nftables(() => netlink).baseChains([]);
// Any rule and any set may be asked for.
for (const { family, table, name } of dump(NFT_MSG_GETCHAIN, chain, {}))
  for (const { expressions = [] } of dump(NFT_MSG_GETRULE, rule, { family, table, chain: name }))
    for (const { data } of expressions.filter((each) => each.name === 'lookup'))
      dump(NFT_MSG_GETSETELEM, elements, { family, table, set: data.set });

const legacy = legacyTables().map((table) => {
  const { info, entries } = readLegacyTable(table);
  return [table, { info: hex(info), entries: hex(entries) }];
});
process.stdout.write(JSON.stringify({ replies, legacy: Object.fromEntries(legacy) }));
