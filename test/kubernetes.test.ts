/** packaging/kubernetes: manifests that the published schemas take, whose parts fit together, and what the image's script does on a node. */
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import os from 'node:os';
import path from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { loadConfig } from '../src/config/config.ts';
import { contains, formatPrefix, overlaps, type Prefix, parseAddress, parsePrefix } from '../src/mesh/address.ts';
import { read } from './documents.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const FOLDER = 'packaging/kubernetes';
const require = createRequire(import.meta.url);
const SCHEMAS = path.join(path.dirname(require.resolve('kubernetes-models')), '_schemas');
const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-kubernetes-'));
afterAll(() => rmSync(folder, { recursive: true }));

// biome-ignore lint/suspicious/noExplicitAny: whatever a manifest has.
type Manifest = any;

function manifests(file: string): Manifest[] {
  return parseAllDocuments(read(`${FOLDER}/${file}`)).map((document) => {
    expect(document.errors).toEqual([]);
    return document.toJS();
  });
}

/** What the schema of its kind says of a manifest, and what in it the schema does not know. */
async function problems(manifest: Manifest): Promise<string[]> {
  const validate = await schemaOf(manifest);
  const read = new Set<string>();
  if (!validate(noting(manifest, '', read)))
    return (validate.errors ?? []).map(({ instancePath, message, params }) => {
      return `${instancePath} ${message ?? JSON.stringify(params)}`;
    });
  return keysOf(manifest).filter((key) => !read.has(key));
}

/** A schema as ajv compiles it: it looks at what it knows. */
interface Schema {
  (value: unknown): boolean;
  errors?: { instancePath: string; message?: string; params: object }[] | null;
}

/** In names, apps/v1 is AppsV1, and v1 is CoreV1. The package has no other way to a schema without its model. */
async function schemaOf({ apiVersion, kind }: Manifest): Promise<Schema> {
  const words = apiVersion.includes('/') ? apiVersion.split('/') : ['core', apiVersion];
  const version = words.map((word: string) => `${word.charAt(0).toUpperCase()}${word.slice(1)}`).join('');
  return require(`${SCHEMAS}/IoK8sApi${version}${kind}.js`).validate;
}

/** The same value, which notes the paths of the keys that are looked at. */
function noting<T>(value: T, at: string, read: Set<string>): T {
  if (typeof value !== 'object' || value === null) return value;
  return new Proxy(value, {
    get(target, key, receiver) {
      const found = Reflect.get(target, key, receiver);
      if (typeof key === 'symbol' || !Object.hasOwn(target, key)) return found;
      read.add(`${at}/${key}`);
      return noting(found, `${at}/${key}`, read);
    },
  }) as T;
}

function keysOf(value: unknown, at = ''): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, each]) => [`${at}/${key}`, ...keysOf(each, `${at}/${key}`)]);
}

const all = manifests('inlay.yaml');
const [serviceAccount, configMap, daemonSet] = all;
const pod = daemonSet.spec.template.spec;
const containers = [...pod.initContainers, ...pod.containers];
const config = () => {
  const file = path.join(folder, 'inlay.yaml');
  writeFileSync(file, configMap.data['inlay.yaml']);
  return loadConfig({}, file);
};
const prefix = (text: string) => parsePrefix(text) as Prefix;

describe('manifests', () => {
  test.each(all.map((each) => [each.kind, each]))('%s is as its schema has it', async (_, manifest) => {
    expect(await problems(manifest)).toEqual([]);
  });

  test.each<[string, (spec: Manifest) => void, string]>([
    ['a part that is missing', (spec) => delete spec.selector, 'selector'],
    [
      'a value of another type',
      (spec) => {
        spec.template.spec.hostNetwork = 'yes';
      },
      'hostNetwork',
    ],
    [
      'a key that is misspelt',
      (spec) => {
        spec.template.spec.containers[0].volumeMount = [];
      },
      '/spec/template/spec/containers/0/volumeMount',
    ],
  ])('%s is found', async (_, spoil, expected) => {
    const copy = structuredClone(daemonSet);
    spoil(copy.spec);
    expect((await problems(copy)).join(' ')).toContain(expected);
  });

  test('fit together', () => {
    expect(pod.serviceAccountName).toBe(serviceAccount.metadata.name);
    expect(pod.volumes.find(({ name }: Manifest) => name === 'config').configMap.name).toBe(configMap.metadata.name);
    expect(daemonSet.spec.selector.matchLabels).toEqual(daemonSet.spec.template.metadata.labels);
    const volumes = pod.volumes.map(({ name }: Manifest) => name);
    const mounted = containers.flatMap(({ volumeMounts }) => volumeMounts.map(({ name }: Manifest) => name));
    expect([...new Set(mounted)].sort()).toEqual([...volumes].sort());
    expect(new Set(containers.map(({ image }) => image)).size).toBe(1);
    expect(containers.flatMap(({ command }) => command).join(' ')).toContain(
      `/usr/share/inlay/${FOLDER}/install.sh --run-dir ${config().runDir}`,
    );
  });

  test('give no more rights than are used', () => {
    const rights = containers.map(({ name, securityContext: { capabilities } }) => [name, capabilities.add ?? []]);
    expect(Object.fromEntries(rights)).toEqual({
      plugin: [],
      masquerade: ['NET_ADMIN'],
      daemon: ['NET_ADMIN', 'BPF', 'SYS_ADMIN'],
    });
    for (const { securityContext } of containers)
      expect(securityContext).toMatchObject({
        ...{ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true },
        capabilities: { drop: ['ALL'] },
      });
    expect([serviceAccount, pod].map((each) => each.automountServiceAccountToken)).toEqual([false, false]);
  });

  test('the configuration is one, and both files have its overlay', () => {
    const { attach, mappings } = config();
    expect(attach).toBe(true);
    const overlay = formatPrefix(mappings[0]?.overlay as Prefix);
    expect(configMap.data['masquerade.nft']).toContain(`ip saddr ${overlay} ip daddr != ${overlay} masquerade`);
  });

  test('the cluster of the example has this overlay, and services beside it', () => {
    const byKind = Object.fromEntries(manifests('kubeadm.yaml').map((each) => [each.kind, each]));
    const { InitConfiguration, ClusterConfiguration, KubeletConfiguration, KubeProxyConfiguration } = byKind;
    const [mapping] = config().mappings;
    const { overlay, underlay } = mapping as NonNullable<typeof mapping>;
    const services = prefix(ClusterConfiguration.networking.serviceSubnet);
    expect([overlay, underlay].some((each) => overlaps(each, services))).toBe(false);
    expect(KubeProxyConfiguration.clusterCIDR).toBe(formatPrefix(overlay));
    expect(contains(services, parseAddress(KubeletConfiguration.clusterDNS[0]) as never)).toBe(true);
    expect(KubeletConfiguration.maxPods).toBeLessThan(Number(mapping?.containersPerVm));
    const node = InitConfiguration.localAPIEndpoint.advertiseAddress;
    expect(contains(underlay, parseAddress(node) as never)).toBe(true);
    expect(InitConfiguration.nodeRegistration.kubeletExtraArgs).toContainEqual({ name: 'node-ip', value: node });
  });
});

describe('the plugin on a node', () => {
  const [from, to, binDir, confDir] = ['from', 'opt', 'bin', 'conf'].map((name) => path.join(folder, name)) as [
    ...[string, string, string, string],
  ];
  beforeEach(() => {
    for (const each of [from, to, binDir, confDir]) {
      rmSync(each, { recursive: true, force: true });
      mkdirSync(each);
    }
    cpSync(`${ROOT}package.json`, `${from}/package.json`);
    cpSync(`${ROOT}dist`, `${from}/dist`, { recursive: true });
    mkdirSync(`${from}/node_modules`);
    writeFileSync(`${from}/node_modules/.package-lock.json`, '{}');
    for (const name of readdirSync(`${ROOT}node_modules`).filter((each) => !each.startsWith('.')))
      symlinkSync(`${ROOT}node_modules/${name}`, `${from}/node_modules/${name}`);
  });
  const install = (env: NodeJS.ProcessEnv = {}) =>
    execFileSync(`${ROOT}${FOLDER}/install.sh`, ['--bin-dir', binDir, '--conf-dir', confDir], {
      env: { ...process.env, INLAY_FROM: from, INLAY_TO: to, ...env },
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    });
  const next = () => writeFileSync(`${from}/dist/changed.js`, String(Math.random()));

  test('has all that it needs on the disk of the node, and is there only once', () => {
    install();
    const [version] = readdirSync(to);
    const shim = readFileSync(`${binDir}/inlay-cni`, 'utf8');
    const file = (name: string) => new RegExp(`^${name}='?([^'\n]+)`, 'm').exec(shim)?.[1] ?? '';
    expect([file('node'), file('plugin')]).toEqual([`${to}/${version}/bin/node`, `${to}/${version}/dist/cni.cjs`]);
    const answer = execFileSync(file('node'), [file('plugin')], {
      env: { CNI_COMMAND: 'VERSION' },
      input: '{"cniVersion":"1.0.0"}',
      encoding: 'utf8',
    });
    expect(JSON.parse(answer).supportedVersions).toContain('1.1.0');
    expect(readdirSync(confDir)).toHaveLength(1);
    const before = statSync(`${to}/${version}`).ino;
    install();
    expect([readdirSync(to), statSync(`${to}/${version}`).ino]).toEqual([[version], before]);
  });

  test('a newer version takes its place, and the one before stays for what runs', () => {
    const versions: string[][] = [];
    for (let i = 0; i < 3; i++) {
      install();
      versions.push(readdirSync(to));
      next();
    }
    expect(versions.map(({ length }) => length)).toEqual([1, 2, 2]);
    expect(versions[2]).not.toContain(versions[0]?.[0]);
    const shim = readFileSync(`${binDir}/inlay-cni`, 'utf8');
    const [added] = (versions[2] as string[]).filter((each) => !versions[1]?.includes(each));
    expect(shim).toContain(`${to}/${added}/dist/cni.cjs`);
  });

  test('another Node is another version', () => {
    install();
    const other = `${folder}/other-node`;
    mkdirSync(other);
    const script = `#!/bin/sh\n[ "$1" = --version ] && echo v99.0.0 || exec ${process.execPath} "$@"\n`;
    writeFileSync(`${other}/node`, script, { mode: 0o755 });
    install({ PATH: `${other}:${process.env['PATH']}` });
    expect(readdirSync(to)).toHaveLength(2);
  });

  test('what is not a version stays, and what an installer that was killed left goes', () => {
    const others = ['data', 'abcdef', 'notes.txt', '0123456789abc'];
    for (const name of [...others, '.new-killed']) mkdirSync(`${to}/${name}`);
    for (const name of others) utimesSync(`${to}/${name}`, 1, 1);
    for (let i = 0; i < 3; i++) {
      install();
      next();
    }
    const left = readdirSync(to);
    expect(left.filter((each) => !/^[\da-f]{12}$/.test(each)).sort()).toEqual([...others].sort());
    expect(left).toHaveLength(others.length + 2);
  });

  test('installers run one after another', async () => {
    // Another holds the folder, in which it makes a version.
    const script = 'exec 9<"$0"; flock 9; mkdir "$0/.new-beside"; echo; read -r _; ls -d "$0/.new-beside"';
    const beside = spawn('sh', ['-c', script, to], { stdio: ['pipe', 'pipe', 'inherit'] });
    await once(beside.stdout, 'data');
    const words = ['--bin-dir', binDir, '--conf-dir', confDir];
    const env = { ...process.env, INLAY_FROM: from, INLAY_TO: to };
    const waiting = spawn(`${ROOT}${FOLDER}/install.sh`, words, { env, stdio: 'ignore' });
    // It waits as soon as the kernel has it wait for the lock.
    const [ended, installed] = [once(beside, 'exit'), once(waiting, 'exit')];
    const lock = new RegExp(`-> FLOCK .*:${statSync(to).ino} `);
    while (waiting.exitCode === null && !lock.test(readFileSync('/proc/locks', 'utf8'))) await setImmediate();
    beside.stdin.end('\n');
    expect(await ended).toEqual([0, null]);
    expect(await installed).toEqual([0, null]);
  });
});
