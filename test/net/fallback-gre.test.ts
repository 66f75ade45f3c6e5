/** The module ip_gre, loaded while the daemon runs, brings the device gre0, which would answer the overlay's packets: it is made quiet, and left as it was found. */
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { missing, skip } from './require.ts';
import { PATIENCE, Vms } from './vms.ts';

describe.skipIf(skip('fallback GRE', await missing('ping')))('gre0 that comes later', () => {
  let vms: Vms;
  beforeAll(async () => {
    vms = await Vms.of('wasm', 'a', 'b');
  });
  afterEach(async () => {
    await vms.reset('a');
    await vms.lab.run('a', ['ip', 'link', 'del', 'gre0']);
  });
  afterAll(() => vms?.close());

  const CONF = '/proc/sys/net/ipv4/conf/gre0';
  const state = async () => {
    const script = `cat ${CONF}/rp_filter ${CONF}/forwarding /proc/sys/net/ipv6/conf/gre0/disable_ipv6; ip -o link show gre0`;
    const [rpFilter, forwarding, noIpv6, link = ''] = (await vms.lab.must('a', ['sh', '-c', script])).split('\n');
    return { rpFilter, forwarding, noIpv6, isUp: /<[^>]*\bUP\b/.test(link) };
  };
  /** What the module makes, as far as this kernel can: a device with this name, down, and with these settings from its first moment on. */
  const load = (before: string) =>
    vms.lab.must('a', [
      'sh',
      '-ec',
      `cd /proc/sys/net/ipv4/conf/default; filter=$(cat rp_filter); forward=$(cat forwarding)
      echo ${before} >rp_filter; echo 1 >forwarding; ip link add gre0 type veth peer name peer0
      echo $filter >rp_filter; echo $forward >forwarding`,
    ]);
  const quiet = { rpFilter: '1', forwarding: '0', noIpv6: '1', isUp: true };

  test('it goes up, forwards nothing and believes nothing; later it is as it was', async () => {
    const daemon = await vms.up('a');
    await load('2');
    const before = { rpFilter: '2', forwarding: '1', noIpv6: '0', isUp: false };
    await expect.poll(state, PATIENCE).toEqual(quiet);
    expect(await vms.status('a')).toMatchObject({ state: 'running', troubles: [] });
    expect(await vms.end('TERM', daemon)).toBe(0);
    expect(await state()).toEqual(before);
  });

  test('what somebody else has set meanwhile stays', async () => {
    const daemon = await vms.up('a');
    await load('0');
    await expect.poll(state, PATIENCE).toEqual(quiet);
    await vms.end('KILL', daemon);
    await vms.lab.must('a', ['sh', '-c', `echo 2 >${CONF}/rp_filter`]);
    expect(await vms.inlay('a', 'down')).toMatchObject({ code: 0, stderr: '' });
    expect(await state()).toEqual({ rpFilter: '2', forwarding: '1', noIpv6: '0', isUp: false });
  });
});
