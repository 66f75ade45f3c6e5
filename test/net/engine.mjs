/**
 * One engine, `linux` or `portable` (argv[2]), with argv[3] queues: packets go out, the MTU changes, then the device is deleted. Prints what it counted, as JSON.
 * To be run in a network namespace of its own with 192.168.16.32/16 on a device: argv[4] names the one that it may not be (readlink /proc/self/ns/net).
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { readlinkSync, writeFileSync } from 'node:fs';
import { startEngine } from '../../dist/dataplane/wasm/engines.js';

const [, , name, queues, outside] = process.argv;
if (readlinkSync('/proc/self/ns/net') === outside) throw new Error('not in a namespace of its own');

// So that the kernel sends nothing of its own through the device.
writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1');
const failures = [];
let failed;
const failure = new Promise((resolve) => {
  failed = resolve;
});
const options = {
  device: 'inlay0',
  core: 'wasm',
  coreConfig: {
    local: 0xc0a81020,
    mtu: 1476,
    mappings: [{ overlay: 0x0a000000, overlayLength: 8, underlay: 0xc0a80000, underlayLength: 16 }],
  },
  greSegmentation: 'core',
  queues: Number(queues),
  idleTimeout: 60_000,
  busyPoll: 0,
  log: { info: () => {}, warn: () => {} },
  onTunnels: () => {},
  onLearnt: () => {},
  onDropped: () => {},
  onFailure: (error) => {
    failures.push(error.message);
    failed();
  },
};
const engine = await startEngine(name, options);
const setup = [
  'link set inlay0 mtu 1476 up',
  'address add 10.16.32.1/24 dev inlay0',
  'route add 10.0.0.0/8 dev inlay0',
];
execFileSync('ip', ['-batch', '-'], { input: `${setup.join('\n')}\n` });
engine.deviceIsUp();

/** Sends one packet of 1,228 bytes that must not be fragmented to a VM's container, and waits until it is counted. */
async function send(vm) {
  const before = (await engine.counters()).outbound.received;
  spawnSync('ping', ['-c', '1', '-W', '0.1', '-M', 'do', '-s', '1200', `10.16.${vm}.5`]);
  while ((await engine.counters()).outbound.received === before)
    await new Promise((resolve) => setTimeout(resolve, 10));
}
await send(33);
await send(34);
engine.setMtu(1000);
await send(33);
engine.setMtu(1476);
await send(35);

const before = { ...(await engine.counters()), list: (await engine.tunnels()).tunnels.length };
execFileSync('ip', ['link', 'delete', 'inlay0']);
// While it ends, too.
const during = (await engine.counters()).outbound;
await failure;
const after = { ...(await engine.counters()), list: (await engine.tunnels()).tunnels.length };
engine.setMtu(1000);
await engine.close();
await engine.close();
const closed = (await engine.counters()).outbound;
console.log(JSON.stringify({ failures, before, during, after, closed }));
