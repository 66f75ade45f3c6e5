/**
 * The library in a process of its own: container-library.mjs MESH, where MESH is JSON such as {"overlay":"10.0.0.0/8","underlay":"192.168.0.0/16","local":"192.168.16.32"}.
 * Each line on standard input is a call, as JSON: [METHOD, ARGUMENT]. Each answer is a line, too: {"value": ...} or {"error": ...}.
 */
import { createInterface } from 'node:readline';
import { Containers } from '../../dist/containers/containers.js';
import { parseAddress, parsePrefix } from '../../dist/mesh/address.js';
import { Mapping } from '../../dist/mesh/mapping.js';

const { overlay, underlay, local, mtu = 1476, coolDown = 60 } = JSON.parse(process.argv[2]);
const mappings = [new Mapping(parsePrefix(overlay), parsePrefix(underlay))];
const containers = Containers.open({ mappings, local: parseAddress(local), mtu, coolDown });

function answer(line) {
  try {
    const [method, argument] = JSON.parse(line);
    return { value: containers[method](argument) ?? null };
  } catch (error) {
    const { reason, message, hint, exitCode, code } = error;
    return { error: { reason, message, hint, exitCode, code } };
  }
}

for await (const line of createInterface({ input: process.stdin }))
  process.stdout.write(`${JSON.stringify(answer(line))}\n`);
containers.close();
