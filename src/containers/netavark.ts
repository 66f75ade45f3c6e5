/**
 * The network plugin of netavark, which is podman's from 4.5 on (netavark/plugin-API.md): a command as
 * argument, JSON on standard input and output. The driver is called what the plugin's file is called.
 */
import { DEFAULT_RUN_DIR } from '../config/run-dir.ts';
import { type Containers, withContainers } from './containers.ts';
import type { Target } from './found.ts';
import { isObject, type JsonObject } from './json.ts';
import { readMesh, requireMesh } from './mesh.ts';
import { ContainerError } from './reasons.ts';
import { parseMac } from './request.ts';

const API_VERSION = '1.0.0';
/** The only option of `podman network create --opt`. */
const RUN_DIR = 'run-dir';

/** The answer to `info`, which has no input. */
export function info(version: string): object {
  return { version, api_version: API_VERSION };
}

/** The answer to any other command; undefined where there is none. Throws ContainerError. */
export function runNetavark([command, netns]: readonly string[], asked: JsonObject): object | undefined {
  switch (command) {
    case 'create':
      return create(asked);
    case 'setup':
      return withContainers(requireMesh(runDirOf(asked)), (containers) => setup(asked, required(netns), containers));
    case 'teardown':
      return teardown(asked);
    default:
      throw invalid(`command ${JSON.stringify(command)}: expected info, create, setup or teardown`);
  }
}

/** A network's configuration as podman is to keep it. */
function create(network: JsonObject): JsonObject {
  const { subnets, ipv6_enabled, internal, ipam_options } = network;
  // podman would choose the addresses itself.
  if (Array.isArray(subnets) && subnets.length > 0)
    throw invalid('addresses come from the slice of the VM', 'leave out --subnet');
  if (isObject(ipam_options) && typeof ipam_options['driver'] === 'string')
    throw invalid('addresses come from the mesh', 'leave out --ipam-driver');
  if (ipv6_enabled === true) throw invalid('a mesh has no IPv6 addresses', 'leave out --ipv6');
  if (internal === true) throw invalid('a mesh cannot be --internal', 'leave it out');
  const unknown = Object.keys(optionsOf(network)).find((name) => name !== RUN_DIR);
  if (unknown !== undefined) throw invalid(`option ${unknown}: expected ${RUN_DIR}`);
  // netavark's name server listens at the gateway of a bridge.
  return { ...network, dns_enabled: false };
}

function setup(asked: JsonObject, netns: string, containers: Containers): object {
  const { static_ips, static_mac } = networkOptionsOf(asked);
  const addresses = Array.isArray(static_ips) ? static_ips : [];
  if (addresses.length > 1) throw invalid('a container has one address on the mesh', 'give --ip once');
  const [address] = addresses;
  const {
    ifname,
    mac,
    address: own,
    gateway,
  } = containers.attach({
    ...targetOf(asked),
    netns,
    ...(address !== undefined && { container: containers.slice.requireContainerAt(String(address)) }),
    ...(typeof static_mac === 'string' && { mac: parseMac(static_mac) }),
  });
  const subnets = [{ ipnet: `${own}/32`, gateway }];
  return { dns_search_domains: [], dns_server_ips: [], interfaces: { [ifname]: { mac_address: mac, subnets } } };
}

function teardown(asked: JsonObject): undefined {
  const target = targetOf(asked);
  const mesh = readMesh(runDirOf(asked));
  // Where there is no mesh, nothing can be attached to it.
  if (mesh) withContainers(mesh, (containers) => containers.detach(target));
}

function runDirOf({ network }: JsonObject): string {
  const runDir = isObject(network) ? optionsOf(network)[RUN_DIR] : undefined;
  return typeof runDir === 'string' ? runDir : DEFAULT_RUN_DIR;
}

function targetOf(asked: JsonObject): Required<Pick<Target, 'id' | 'ifname'>> {
  const { container_id } = asked;
  const { interface_name } = networkOptionsOf(asked);
  if (typeof container_id !== 'string' || typeof interface_name !== 'string')
    throw invalid('the request has no container_id, or no interface_name');
  return { id: container_id, ifname: interface_name };
}

function networkOptionsOf({ network_options }: JsonObject): JsonObject {
  return isObject(network_options) ? network_options : {};
}

/** podman writes null where there are none. */
function optionsOf({ options }: JsonObject): JsonObject {
  return isObject(options) ? options : {};
}

function required(netns: string | undefined): string {
  // A name would be one of ip(8).
  if (netns?.startsWith('/')) return netns;
  throw invalid(`network namespace ${JSON.stringify(netns)}: expected a path`);
}

function invalid(message: string, hint?: string): ContainerError {
  return new ContainerError('invalid', message, hint === undefined ? {} : { hint });
}
