/**
 * The library in a process of its own: container-library.mjs MESH, where MESH is JSON such as {"overlay":"10.0.0.0/8","underlay":"192.168.0.0/16","local":"192.168.16.32"}.
 * Each line on standard input is a call, as JSON: [METHOD, ARGUMENT]. Each answer is a line, too: {"value": ...} or {"error": ...}.
 */
import { readdirSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Containers } from '../../dist/containers/containers.js';
import { parseAddress, parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';

const { overlay, underlay, local, mtu = 1476, coolDown = 60 } = JSON.parse(process.argv[2]);
const mappings = [new Mapping(parsePrefix(overlay), parsePrefix(underlay))];
const containers = Containers.open({ mappings, local: parseAddress(local), mtu, coolDown });

/** Of CLOCK_MONOTONIC, which is the same for all processes. */
const seconds = () => Number(process.hrtime.bigint()) / 1e9;

const more = {
  /**
   * Attaches and detaches one container `count` times. Answers, for each time, its number, the second from which it was certainly attached, and that until which it
   * certainly was.
   */
  churn({ netns, id = netns, count }) {
    const intervals = [];
    while (intervals.length < count) {
      try {
        const { container } = containers.attach({ netns, id });
        intervals.push([container, seconds(), 0]);
      } catch (error) {
        if (error.reason === 'full') continue;
        throw error;
      }
      intervals.at(-1)[2] = seconds();
      containers.detach({ id });
    }
    return intervals;
  },

  /** What this process has: open descriptors, and bytes of memory that are not garbage. */
  resources() {
    setFlagsFromString('--expose-gc');
    runInNewContext('gc')();
    const { heapUsed, external } = process.memoryUsage();
    return { descriptors: readdirSync('/proc/self/fd').length, memory: heapUsed + external };
  },
};

function answer(line) {
  try {
    const [method, argument] = JSON.parse(line);
    const value = method in more ? more[method](argument) : containers[method](argument);
    return { value: value ?? null };
  } catch (error) {
    const { reason, message, hint, exitCode, code } = error;
    return { error: { reason, message, hint, exitCode, code } };
  }
}

for await (const line of createInterface({ input: process.stdin }))
  process.stdout.write(`${JSON.stringify(answer(line))}\n`);
containers.close();
