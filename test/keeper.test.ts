/** What the keeper logs of what it has put right. */
import { expect, test } from 'vitest';
import { kindOfRepair } from '../src/daemon/keeper.ts';

test('what is wrong with containers’ devices is told by its kind, whichever device it is', () => {
  const device = (wrong: string) => kindOfRepair(`a container's device has ${wrong}`);
  const route = device('no route to 10.16.32.91, the address of container web');
  const filter = device('net.ipv4.conf.inlabc.rp_filter 0, not 1');
  expect(device('no route to 10.16.32.92, the address of container has 2 (3 devices)')).toBe(route);
  expect(device('net.ipv4.conf.veth1.5.rp_filter 2, not 1, net.ipv4.conf.veth1.5.forwarding 0, not 1')).toBe(filter);
  const kinds = [route, filter, device('no lasting neighbour entry of 10.16.32.91')];
  kinds.push(device('net.ipv4.conf.inlabc.forwarding 0, not 1'));
  expect(new Set(kinds).size).toBe(4);
});

test('values are no part of the kind of other repairs', () => {
  expect(kindOfRepair('device inlay0 has MTU 1400, not 1476')).toBe(
    kindOfRepair('device inlay0 has MTU 9000, not 1476'),
  );
});
