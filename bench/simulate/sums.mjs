/** What has to be equal in the end: what the VMs' cores counted, what the network saw, and how packets ended. */
import { abi } from 'inlay/core';
import { ENDS, REPLIES, SUMS } from './failures.mjs';
import { INBOUND, INCOMPLETE, LOCALLY, OUTBOUND, REASSEMBLED } from './ledger.mjs';

const sum = (numbers) => numbers.reduce((total, n) => total + n, 0);

export function checkSums({ ledger, network, audit, containers, judge, failures }) {
  const { packets, icmp } = network;
  const [outbound, inbound, learnt] = audit.totals;
  const { ends } = ledger;
  const expect = (what, found, right) => failures.expect(SUMS, what, found, right);

  failures.expect(ENDS, 'packets have come to no end', ledger.unaccounted, 0);
  failures.expect(ENDS, 'there are not as many ends as packets and copies', sum(ends), ledger.sent + ledger.copies);
  const inFragments = ends[REASSEMBLED] + ends[INCOMPLETE];
  failures.expect(ENDS, 'there are not as many ends of packets in fragments', inFragments, ledger.fragmented);

  const { put, copied, forged, arrived } = packets;
  const gone = packets.lost + packets.tooLong + packets.nobody + packets.vanished;
  expect('the network lost track of packets', gone + arrived, put + copied + forged);
  expect('the network lost track of ICMP messages', icmp.lost + icmp.vanished + icmp.arrived, icmp.made + icmp.forged);
  expect('cores forwarded to the network other than it got', outbound.forwarded, put);
  expect('cores received from the network other than arrived', inbound.received, arrived);
  expect('cores received ICMP messages other than arrived', learnt.received, icmp.arrived);
  expect('cores forwarded to containers other than these got', inbound.forwarded, containers.compared);
  const handed = ledger.sent - ends[LOCALLY] + ledger.pieces - ledger.fragmented;
  expect('cores received from containers other than these sent', outbound.received, handed);
  for (let reason = 1; reason < abi.VERDICTS; reason++) {
    expect(`packets dropped outbound, verdict -${reason}`, outbound.drops[reason], ends[OUTBOUND + reason]);
    const due = ends[INBOUND + reason] + judge.forged[reason];
    expect(`packets dropped inbound, verdict -${reason}`, inbound.drops[reason], due);
  }
  failures.expect(REPLIES, 'containers got other than the replies made', containers.replies, audit.replies);
}
