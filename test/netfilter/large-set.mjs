/**
 * Judges what comes by UDP to INPUT in this network namespace. Prints the fates as JSON, how many sets are
 * asked for, and how many datagrams are read.
 */
import { fates } from '../../dist/linux/netfilter/fate.js';
import { Nftables } from '../../dist/linux/netfilter/nft.js';
import { Netlink } from '../../dist/linux/netlink/netlink.js';
import { NF_INET_LOCAL_IN, NFT_MSG_GETSETELEM } from '../../dist/linux/netlink/nf-tables.js';
import { NETLINK_NETFILTER, openTransport } from '../../dist/linux/netlink/transport.js';

/** Where a message has its type (struct nlmsghdr). */
const TYPE = 4;
let sets = 0;
let datagrams = 0;

function open() {
  const transport = openTransport(NETLINK_NETFILTER);
  return new Netlink({
    port: transport.port,
    send(datagram) {
      if (Buffer.from(datagram).readUInt16LE(TYPE) === NFT_MSG_GETSETELEM) sets++;
      transport.send(datagram);
    },
    receive() {
      datagrams++;
      return transport.receive();
    },
    close: () => transport.close(),
  });
}

const from = { width: 32, bits: 0xc0a80000n, length: 16 };
const packet = { source: from, destination: from, protocol: 17, state: 'new' };
const nftables = new Nftables(open);
const [base] = await nftables.baseChains([NF_INET_LOCAL_IN]);
const found = fates(base, packet).map(({ kind }) => kind);
nftables.close();
process.stdout.write(JSON.stringify({ found, sets, datagrams }));
