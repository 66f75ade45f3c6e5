/**
 * Makes the plugin known to runtimes: the executable in their folder of plugins, and a network configuration in
 * theirs of networks. Both files are signed with a hash of themselves: what others made or changed is left as
 * it is.
 */
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  closeSync,
  constants,
  fchmodSync,
  linkSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
} from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { DEFAULT_RUN_DIR } from '../../config/run-dir.ts';
import { errorCode, InlayError } from '../../errors.ts';
import { writeAll } from '../../linux/whole.ts';
import { shimOf } from './shim.ts';

/** The plugin's name: its executable's, and the type in a configuration. */
const PLUGIN = 'inlay-cni';
const CONFLIST = '10-inlay.conflist';
const ENTRY = fileURLToPath(new URL('../../cni.cjs', import.meta.url));

/** The signature's place while the hash is made. */
const UNSIGNED = '-'.repeat(32);
const SIGNATURE = /inlay cni install made this: ([\da-f]{32}|-{32})/;
const signatureOf = (hash: string) => `inlay cni install made this: ${hash}`;

/** Where distributions keep the plugins that a chain has. */
const PLUGIN_FOLDERS = ['/opt/cni/bin', '/usr/lib/cni', '/usr/libexec/cni'];
/** ms. A plugin that takes longer to tell its versions is taken for an old one. */
const PATIENCE = 5000;
/** What a runtime hands on to plugins of a chain only if the configuration says that they take it. */
const CAPABILITIES: Readonly<Record<string, object>> = {
  portmap: { portMappings: true },
  bandwidth: { bandwidth: true },
};

export interface Folders {
  binDir: string;
  confDir: string;
}

export interface InstallOptions extends Folders {
  /** The network's. */
  name: string;
  runDir: string;
  /** Plugins that come after ours. */
  chain: readonly string[];
}

/** What became, or is to become, of a file. */
export interface FileChange {
  file: string;
  state:
    | 'written'
    | 'replaced'
    | 'there already'
    | 'removed'
    | 'left alone, changed since'
    | 'left alone, made by others';
  content: string;
  mode: number;
}

type Owner = 'nobody' | 'ours' | 'changed' | 'others';

/**
 * Writes the files that are not there already; with `dry`, only says so. A network that others have changed, as
 * service meshes put plugins of theirs into it, stays as it is. Throws ERR_FAILED, and writes nothing, if a file
 * is there that Inlay did not make, or the plugin was changed.
 */
export function install(options: InstallOptions, dry: boolean): FileChange[] {
  const changes = filesOf(options).map(({ file, content, mode }): FileChange => {
    const { owner, content: before } = look(file);
    if (owner === 'changed' && path.basename(file) === CONFLIST)
      return { file, content, mode, state: 'left alone, changed since' };
    if (owner === 'others' || owner === 'changed')
      throw new InlayError(
        'ERR_FAILED',
        `${file} is there, and ${owner === 'others' ? 'Inlay did not make it' : 'was changed since Inlay made it'}`,
        {
          hint: 'remove it or rename it, then try again; or name other folders with --bin-dir and --conf-dir',
        },
      );
    return {
      file,
      content,
      mode,
      state: owner === 'nobody' ? 'written' : before === content ? 'there already' : 'replaced',
    };
  });
  // The executable comes first: a runtime uses the configuration as soon as it is there.
  if (!dry) for (const change of changes) write(change);
  return changes;
}

/** Removes the files that `install` wrote. */
export function uninstall(folders: Folders, dry: boolean): FileChange[] {
  const files = [path.join(folders.confDir, CONFLIST), path.join(folders.binDir, PLUGIN)];
  return files.flatMap((file): FileChange[] => {
    const { owner, content } = look(file);
    if (owner === 'nobody') return [];
    const change = { file, content, mode: 0 };
    if (owner === 'others') return [{ ...change, state: 'left alone, made by others' }];
    if (owner === 'changed') return [{ ...change, state: 'left alone, changed since' }];
    if (!dry) rmSync(file);
    return [{ ...change, state: 'removed' }];
  });
}

/** What keeps runtimes from using what was installed. */
export function remarks({ binDir, confDir, chain }: InstallOptions): string[] {
  const missing = chain.filter((name) => !versionsOf(name, binDir));
  const before = namesIn(confDir).filter((name) => name < CONFLIST && /\.(conf|conflist|json)$/.test(name));
  return [
    ...missing.map(
      (name) =>
        `the plugin ${name} is in none of ${foldersOf(binDir).join(', ')}: containers cannot be attached without it`,
    ),
    ...before.map(
      (name) => `${path.join(confDir, name)} comes first: Kubernetes takes the first network of the folder`,
    ),
  ];
}

function filesOf(options: InstallOptions): { file: string; content: string; mode: number }[] {
  const { binDir, confDir, runDir } = options;
  return [
    {
      file: path.join(binDir, PLUGIN),
      content: signed((signature) => shimOf({ runDir, node: process.execPath, plugin: ENTRY }, signature)),
      mode: 0o755,
    },
    { file: path.join(confDir, CONFLIST), content: signed((signature) => conflistOf(options, signature)), mode: 0o644 },
  ];
}

/**
 * Runtimes take the highest version of the configuration, whatever the plugins speak. So the newest is only
 * offered if all of a chain speak it. As `cniVersion` it would be one that many runtimes do not know.
 */
function conflistOf({ name, runDir, chain, binDir }: InstallOptions, signature: string): string {
  const isNewest = chain.every((plugin) => versionsOf(plugin, binDir)?.includes('1.1.0'));
  const content = {
    cniVersion: '1.0.0',
    cniVersions: ['1.0.0', ...(isNewest ? ['1.1.0'] : [])],
    name,
    plugins: [
      { type: PLUGIN, capabilities: { ips: true, mac: true }, ...(runDir !== DEFAULT_RUN_DIR && { runDir }) },
      ...chain.map((type) => ({ type, ...(CAPABILITIES[type] && { capabilities: CAPABILITIES[type] }) })),
    ],
    signature,
  };
  return `${JSON.stringify(content, undefined, 2)}\n`;
}

/** Which versions a plugin says it speaks; undefined if there is no such plugin. */
function versionsOf(plugin: string, binDir: string): string[] | undefined {
  for (const folder of foldersOf(binDir)) {
    const { stdout, error } = spawnSync(path.join(folder, plugin), {
      ...{
        env: { ...process.env, CNI_COMMAND: 'VERSION' },
        input: '{"cniVersion":"1.0.0"}',
        timeout: PATIENCE,
        encoding: 'utf8',
      },
    });
    if (errorCode(error) === 'ENOENT') continue;
    try {
      const { supportedVersions } = JSON.parse(stdout);
      return Array.isArray(supportedVersions) ? supportedVersions : [];
    } catch {
      return [];
    }
  }
  return undefined;
}

function foldersOf(binDir: string): string[] {
  return [...new Set([binDir, ...PLUGIN_FOLDERS])];
}

function signed(write: (signature: string) => string): string {
  return write(signatureOf(hashOf(write(signatureOf(UNSIGNED)))));
}

function hashOf(content: string): string {
  return createHash('sha256').update(content).digest('hex').slice(0, UNSIGNED.length);
}

function look(file: string): { owner: Owner; content: string } {
  let content: string;
  try {
    // A link could lead to a file of anybody.
    const fd = openSync(file, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    try {
      content = readFileSync(fd, 'utf8');
    } finally {
      closeSync(fd);
    }
  } catch (cause) {
    const code = errorCode(cause);
    if (code === 'ENOENT' || code === 'ENOTDIR') return { owner: 'nobody', content: '' };
    if (code === 'ELOOP' || code === 'EISDIR') return { owner: 'others', content: '' };
    throw problem(`${file} cannot be read`, cause);
  }
  const hash = SIGNATURE.exec(content)?.[1];
  if (hash === undefined) return { owner: 'others', content };
  const isWhole = hashOf(content.replace(SIGNATURE, signatureOf(UNSIGNED))) === hash;
  return { owner: isWhole ? 'ours' : 'changed', content };
}

function write({ file, content, mode, state }: FileChange): void {
  if (state !== 'written' && state !== 'replaced') return;
  const fresh = path.join(path.dirname(file), `.${path.basename(file)}.new`);
  try {
    mkdirSync(path.dirname(file), { recursive: true });
    rmSync(fresh, { force: true });
    const fd = openSync(fresh, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW, mode);
    try {
      writeAll(fd, content);
      fchmodSync(fd, mode);
      // In one step; and, if nothing was there, without taking the place of what is there now.
      if (state === 'replaced') renameSync(fresh, file);
      else linkSync(fresh, file);
    } finally {
      closeSync(fd);
      rmSync(fresh, { force: true });
    }
  } catch (cause) {
    throw problem(`${file} cannot be written`, cause);
  }
}

function namesIn(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return []; // It is made when the first file is written.
  }
}

function problem(what: string, cause: unknown): InlayError {
  const code = errorCode(cause);
  const isDenied = code === 'EACCES' || code === 'EPERM';
  return new InlayError(isDenied ? 'ERR_PERMISSION' : 'ERR_FAILED', `${what}: ${code ?? (cause as Error).message}`, {
    hint: isDenied
      ? 'run it as root, or name folders of yours with --bin-dir and --conf-dir'
      : 'name other folders with --bin-dir and --conf-dir',
    cause,
  });
}
