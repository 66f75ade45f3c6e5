/**
 * The CNI plugin (CNI specification 1.1.0): pure over the library, so that the executable and the daemon share
 * it. A call is variables and a configuration, its answer an exit code and JSON. CHECK, DEL, GC and STATUS
 * answer nothing if all is well.
 */
import type { Attachment, AttachRequest } from '../attachment.ts';
import { isObject } from '../json.ts';
import { ContainerError } from '../reasons.ts';
import { readArguments } from './arguments.ts';
import { type Addresses, checkCapabilities, containerOf, macOf } from './asked.ts';
import { type Call, type CniEnvironment, readCall } from './environment.ts';
import { CniError, CODE, errorText, quoted } from './error.ts';
import { idOf, prefixOf } from './id.ts';
import { checkKeys, configuration, type MeshRequest, meshOf, type Network, readNetwork, versionOf } from './network.ts';
import { differenceOf, dnsOf, previousResult, resultOf } from './result.ts';
import { isSince, isSpoken, NEWEST, VERSIONS, type Version } from './versions.ts';

/** What the plugin does with containers. */
export interface CniContainers {
  readonly slice: Addresses;
  requireVm(): void;
  attach(request: AttachRequest): Attachment;
  detach(target: { id: string; ifname: string }): unknown;
  detachAll(targets: readonly { id: string; ifname: string }[]): unknown;
  check(target: { id: string; ifname: string; netns: string }): Attachment;
  list(): readonly { id: string; ifname: string }[];
  usage(): { capacity: number; inUse: number; coolingDown: number };
  close(): void;
}

/** How the plugin gets at them. */
export interface CniLibrary {
  /** Throws ContainerError; `Elsewhere` if the caller has to ask another. The plugin closes what it opens. */
  open(request: MeshRequest): CniContainers;
}

export interface CniAnswer {
  /** Exit code: 0 or 1. */
  code: number;
  stdout: string;
}

/** Thrown by a daemon's library, and passed on, if a call is about another daemon's containers. */
export class Elsewhere extends Error {}

/** Answers one call. Throws nothing but Elsewhere. */
export function runCni(env: CniEnvironment, config: string | Uint8Array, library: CniLibrary): CniAnswer {
  let version: Version | undefined;
  try {
    const call = readCall(env);
    if (call.command === 'VERSION')
      return answer({ cniVersion: versionOf(config) ?? NEWEST, supportedVersions: VERSIONS });
    const network = readNetwork(config);
    version = network.version;
    requireCommand(call, version);
    return answer(COMMANDS[call.command](call, network, library));
  } catch (error) {
    if (error instanceof Elsewhere) throw error;
    const asked = version ?? versionOf(config);
    return { code: 1, stdout: errorText(error, asked !== undefined && isSpoken(asked) ? asked : NEWEST) };
  }
}

function answer(value: unknown): CniAnswer {
  return { code: 0, stdout: value === undefined ? '' : `${JSON.stringify(value)}\n` };
}

/** Since which version there are the commands that were not there from the beginning. */
const SINCE: Readonly<Record<string, Version>> = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' };

function requireCommand({ command }: Call, version: Version): void {
  const since = SINCE[command];
  if (since !== undefined && !isSince(version, since))
    throw new CniError(
      CODE.incompatibleVersion,
      `version ${version} of the configuration has no ${command}`,
      `it is there since ${since}`,
    );
}

const COMMANDS = { ADD: add, DEL: del, CHECK: check, GC: collect, STATUS: status };

function add(call: Call, network: Network, library: CniLibrary): unknown {
  const args = readArguments(call.args);
  checkKeys(network);
  checkCapabilities(network);
  // Whatever can fail does so before anything is attached.
  const [previous, dns, mac] = [previousResult(network), dnsOf(network), macOf(network, args)];
  const { netns, ifname } = call;
  return using(library, meshOf(network), (containers) => {
    const container = containerOf(network, args, containers.slice);
    const attachment = containers.attach({
      ...{ netns, ifname, id: idOf(network.name, call.id) },
      ...(container !== undefined && { container }),
      ...(mac && { mac }),
    });
    return resultOf(attachment, { version: network.version, netns, dns, previous });
  });
}

/** What a DEL detaches, and of which mesh. */
export interface Deletion {
  mesh: MeshRequest;
  target: { id: string; ifname: string };
}

/** For those who do several at once. Throws CniError, as the call itself would. */
export function deletion(env: CniEnvironment, config: string | Uint8Array): Deletion {
  return deletionOf(readCall(env), readNetwork(config));
}

function deletionOf({ id, ifname }: Call, network: Network): Deletion {
  return { mesh: anyMeshOf(network), target: { id: idOf(network.name, id), ifname } };
}

/**
 * Whatever is or is not there any more: the runtime comes again and again until this is done. The link is
 * found by id and interface alone, so that neither namespace nor earlier result is needed.
 */
function del(call: Call, network: Network, library: CniLibrary): undefined {
  const { mesh, target } = deletionOf(call, network);
  detaching(library, mesh, (containers) => containers.detach(target));
}

function check(call: Call, network: Network, library: CniLibrary): undefined {
  const { netns, ifname } = call;
  readArguments(call.args);
  checkKeys(network);
  const previous = previousResult(network);
  if (!previous) throw configuration('prevResult is missing, which CHECK needs');
  using(library, meshOf(network), (containers) => {
    const attachment = containers.check({ id: idOf(network.name, call.id), ifname, netns });
    const difference = differenceOf(attachment, previous, netns);
    if (difference !== undefined)
      throw new ContainerError('not-attached', `prevResult is not what is attached: ${difference}`);
  });
}

/** Detaches what the runtime does not know any more: of this network only, and nothing that others attached. */
function collect(_: Call, network: Network, library: CniLibrary): undefined {
  const valid = validAttachments(network);
  const prefix = prefixOf(network.name);
  detaching(library, anyMeshOf(network), (containers) => {
    const ours = containers.list().filter(({ id }) => id.startsWith(prefix));
    const stale = ours.filter(({ id, ifname }) => !valid.has(`${id} ${ifname}`));
    if (stale.length > 0) containers.detachAll(stale.map(({ id, ifname }) => ({ id, ifname })));
  });
}

/**
 * The runtime's list. It has a second name because of an error in the specification, which its library writes,
 * too. Where the runtime has no list, nothing is valid any more: so the specification's library means it.
 */
function validAttachments({ name, keys }: Network): Set<string> {
  const key = 'cni.dev/valid-attachments' in keys ? 'cni.dev/valid-attachments' : 'cni.dev/attachments';
  const list = keys[key] ?? [];
  if (!Array.isArray(list)) throw configuration(`${key} ${quoted(list)}: expected a list`);
  return new Set(
    list.map((each) => {
      const { containerID, ifname } = isObject(each) ? each : {};
      if (typeof containerID !== 'string' || typeof ifname !== 'string')
        throw configuration(`${key} has ${quoted(each)}: expected containerID and ifname`);
      return `${idOf(name, containerID)} ${ifname}`;
    }),
  );
}

/** Whether ADD would work now. */
function status(_: Call, network: Network, library: CniLibrary): undefined {
  checkKeys(network);
  try {
    using(library, meshOf(network), (containers) => {
      containers.requireVm();
      const { capacity, inUse, coolingDown } = containers.usage();
      if (inUse + coolingDown >= capacity)
        throw new ContainerError(
          'full',
          `all ${capacity} addresses of this VM are taken: ${inUse} in use, ${coolingDown} cooling down`,
        );
    });
  } catch (error) {
    if (!(error instanceof ContainerError)) throw error;
    // Without the VM's address, nobody reaches the containers that are there either.
    const code = error.reason === 'no-underlay' ? CODE.limitedConnectivity : CODE.notAvailable;
    throw new CniError(code, error.message, error.hint);
  }
}

function using<T>(library: CniLibrary, mesh: MeshRequest, work: (containers: CniContainers) => T): T {
  const containers = library.open(mesh);
  try {
    return work(containers);
  } finally {
    containers.close();
  }
}

/** To detach, it does not matter which mesh the configuration means now. */
function anyMeshOf(network: Network): MeshRequest {
  return meshOf({
    ...network,
    keys: { ...network.keys, overlay: undefined, underlay: undefined, mappings: undefined },
  });
}

/** Why there is nothing to detach. */
const NOTHING: readonly string[] = ['no-mesh', 'no-underlay', 'not-ours'];

function detaching(library: CniLibrary, mesh: MeshRequest, work: (containers: CniContainers) => unknown): void {
  try {
    using(library, mesh, work);
  } catch (error) {
    if (!(error instanceof ContainerError && NOTHING.includes(error.reason))) throw error;
  }
}
