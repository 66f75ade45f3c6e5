/** Changes neighbours of the device argv[2] argv[3] times, as fast as it can: they are added and deleted again, 32 a datagram, and in the end none is left. */
import { NLM_F_CREATE, NLM_F_REPLACE, request } from '../../dist/linux/netlink/message.js';
import { NUD_PERMANENT, neighbour, RTM_DELNEIGH, RTM_NEWNEIGH } from '../../dist/linux/netlink/neighbour.js';
import { Netlink } from '../../dist/linux/netlink/netlink.js';
import { findLink } from '../../dist/linux/netlink/rtnetlink.js';

const [device, count] = [process.argv[2], Number(process.argv[3])];
const netlink = Netlink.open();
const { index } = findLink(netlink, device);
const AF_INET = 2;
const BATCH = 64;

let done = 0;
while (done < count) {
  const requests = [];
  for (let i = 0; i < BATCH / 2; i++) {
    const body = { family: AF_INET, ifindex: index, dst: Uint8Array.of(198, 18, (done >> 6) & 255, i + 1) };
    const lladdr = Uint8Array.of(6, 0, 0, 0, 0, i);
    requests.push(
      request(RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, 'new', neighbour, { ...body, lladdr, state: NUD_PERMANENT }),
    );
    requests.push(request(RTM_DELNEIGH, 0, 'delete', neighbour, body));
  }
  const rest = requests.slice(0, count - done);
  for (const error of netlink.tryAll(rest)) if (error) throw error;
  done += rest.length;
}
netlink.close();
process.stdout.write(`${done}\n`);
