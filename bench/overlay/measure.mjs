/** One peer's figures: ping(8) and iperf3(1) between the two VMs. */
import { readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { quiet } from '../machine.mjs';

/** Bytes that a UDP packet carries. */
const UDP_PAYLOAD = 64;
/** Offered UDP rates in thousands of packets a second; 0 is as many as the sender can. */
const RATES = [60, 90, 120, 150, 180, 220, 260, 0];
/** A rate of which less than this arrives is past the peak: higher ones are not tried, but for unlimited. */
const SATURATED = 0.6;
const PINGS = 1000;
/** s of TCP before anything is measured: compilers and congestion windows settle. */
const WARM_UP = 1;
/** s that iperf3 may take beyond the time that it sends. */
const GRACE = 10;
/** First TCP port of the servers: each has its own, so that none waits for one that is just ending. */
const PORT = 5201;

/** TCP in Gbit/s, UDP in thousands of packets a second, RTT in us, CPU in seconds of the daemons per GB of one TCP stream. */
export async function measure(lab, vms, seconds) {
  const run = { lab, vms, port: PORT };
  const background = await quiet();
  const rtt = await ping(run);
  await tcp(run, 1, WARM_UP);
  const one = await tcp(run, 1, seconds);
  const four = await tcp(run, 4, seconds);
  const steps = await udpSteps(run, Math.max(1, Math.round(seconds / 2)));
  const udp = Math.max(...steps.map(({ delivered }) => delivered));
  if (!(udp > 0)) throw new Error('no UDP packet was delivered');
  return { tcp1: one.rate, tcp4: four.rate, udp, rtt, cpu: one.cpu, steps, background };
}

async function ping({ lab, vms }) {
  const command = `ping -q -n -i 0.001 -c ${PINGS} -W 1 ${vms.address}`;
  const text = await lab.must(vms.from, command.split(' '));
  const average = /= [\d.]+\/([\d.]+)\//.exec(text);
  if (!average) throw new Error(`ping said: ${text}`);
  return Number(average[1]) * 1000;
}

/** `cpu` is in seconds per GB. */
export async function tcp(run, streams, seconds) {
  const { end, cpu } = await iperf(run, seconds, '-P', String(streams));
  const { bytes, bits_per_second: rate } = end.sum_received;
  if (!(bytes > 0)) throw new Error('TCP got nothing through');
  return { rate: rate / 1e9, cpu: cpu / (bytes / 1e9) };
}

async function udpSteps(run, seconds) {
  const steps = [];
  for (let i = 0; i < RATES.length; i++) {
    const offered = RATES[i];
    const { sent, delivered } = await udp(run, offered, seconds);
    steps.push({ offered, sent, delivered });
    if (offered && delivered < offered * SATURATED) i = Math.max(i, RATES.length - 2);
  }
  return steps;
}

/** Small packets in thousands a second: `offered`, or with 0 as many as the sender can. */
export async function udp(run, offered, seconds) {
  const flags = `-u -l ${UDP_PAYLOAD} -b ${offered * 1000 * UDP_PAYLOAD * 8} -w ${socketBuffer()}`;
  const { end } = await iperf(run, seconds, ...flags.split(' '));
  // What the receiver got; the packets that iperf3 counts as lost are but those that a later one betrayed.
  const rateOf = (sum) => sum.bytes / UDP_PAYLOAD / sum.seconds / 1000;
  return { sent: rateOf(end.sum_sent), delivered: rateOf(end.sum_received) };
}

/** Bytes. iperf3 ends with an error if the kernel grants less than it asks for. */
function socketBuffer() {
  const limit = (name) => Number(readFileSync(`/proc/sys/net/core/${name}`, 'utf8'));
  return Math.min(4 << 20, limit('rmem_max'), limit('wmem_max'));
}

/** Sends for so many seconds; resolves to iperf3's result and the CPU seconds that `vms.cpu` counted meanwhile. Tries twice. */
async function iperf(run, seconds, ...flags) {
  const { lab, vms } = run;
  let failure = '';
  for (let attempt = 0; attempt < 2; attempt++) {
    const port = String(run.port++);
    const limit = String(Math.ceil(seconds + GRACE));
    const server = lab.start(vms.to, ['timeout', limit, 'iperf3', '-s', '-1', '-p', port], { stdio: 'ignore' });
    const ended = new Promise((resolve) => server.once('exit', resolve));
    await sleep(250);
    const words = ['iperf3', '-J', '-c', vms.address, '-p', port, '-t', String(seconds), ...flags];
    const before = vms.cpu();
    const { stdout, stderr } = await lab.run(vms.from, ['timeout', limit, ...words]);
    const cpu = vms.cpu() - before;
    const result = parse(stdout);
    if (result?.end && !result.error) {
      await ended;
      return { end: result.end, cpu };
    }
    failure = result?.error ?? (stderr.trim() || `no result within ${limit} s`);
    await ended; // Nobody may send while the next attempt is measured.
  }
  throw new Error(`iperf3 ${flags.join(' ')}: ${failure}`);
}

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
