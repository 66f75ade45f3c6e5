/** Links that are not ready drop what they are to send: the kernel says where, and a lab waits until they are. */
import { existsSync } from 'node:fs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Lab } from '../../src/demo/lab.ts';
import { Drops } from './kernel-drops.ts';
import { notRoot, skip } from './require.ts';

const unknown = existsSync('/sys/kernel/btf/vmlinux') ? undefined : 'this kernel does not tell its types';
/** Who has 172.30.0.2? Tell 172.30.0.1: hardware and protocol types and lengths, the operation; addresses at offsets 14 and 24 (RFC 826). */
const ARP_REQUEST = /^0001080006040001.{12}ac1e0001.{12}ac1e0002/;

describe.skipIf(skip('drops', notRoot ?? unknown))('a veth', () => {
  let lab: Lab;
  let drops: Drops;
  beforeAll(async () => {
    lab = await Lab.open();
    drops = new Drops();
    await lab.ip(undefined, ['netns add a', 'netns add b', 'link add end-a netns a type veth peer name end-b netns b']);
    await lab.ip('a', ['address add 172.30.0.1/30 dev end-a', 'link set end-a up']);
    await lab.ip('b', ['address add 172.30.0.2/30 dev end-b']);
    drops.watch(lab, 'a');
  });
  afterAll(async () => {
    drops?.close();
    await lab?.close();
  });

  const ping = async () =>
    / 1 received/.test((await lab.run('a', ['ping', '-n', '-c', '1', '-W', '1', '172.30.0.2'])).stdout);
  const requests = () => drops.take().filter(({ packet }) => ARP_REQUEST.test(packet));

  test('with one end up drops ARP requests, which no lab takes for ready', async () => {
    expect(await ping()).toBe(false);
    expect(requests()).toContainEqual(
      expect.objectContaining({
        namespace: 'a',
        reason: 'QDISC_DROP',
        location: expect.stringContaining('__dev_queue_xmit+'),
      }),
    );
    await expect(lab.linksUp('a', ['end-a'])).rejects.toThrow('links are not up: end-a');
  });

  test('drops none when the lab has waited for it', async () => {
    await lab.ip('b', ['link set end-b up']);
    await lab.linksUp('a', ['end-a']);
    drops.take();
    expect(await ping()).toBe(true);
    expect(requests()).toEqual([]);
  });
});
