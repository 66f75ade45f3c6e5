/** The configuration: a YAML file and flags, checked against one table of settings. */
import { distance } from 'fastest-levenshtein';
import * as v from 'valibot';
import { InlayError } from '../errors.ts';
import type { Address, Prefix } from '../mesh/address.ts';
import { checkMappings, Mapping } from '../mesh/mapping.ts';
import { type Setting, type SettingName, settings } from './settings.ts';
import { fileSource, flagSource, type Path, printable, type Source } from './source.ts';

export interface Config {
  mappings: Mapping[];
  local: Address | undefined;
  device: string;
  encapsulation: 'gre' | 'gre-udp' | 'vxlan';
  dataplane: 'wasm' | 'kernel';
  key: number | undefined;
  greChecksum: boolean;
  greSequence: boolean;
  ttl: number | 'inherit';
  dscp: number | 'uniform';
  ecn: 'normal' | 'compatibility';
  /** Bytes. */
  underlayMtu: number | undefined;
  pathMtuDiscovery: boolean;
  clampMss: boolean;
  core: 'wasm' | 'typescript';
  engine: 'linux' | 'portable';
  greSegmentation: 'auto' | 'core' | 'kernel';
  queues: number;
  runDir: string;
  /** ms */
  idleTimeout: number;
  /** ms */
  busyPoll: number;
  logLevel: 'debug' | 'info' | 'warn' | 'error';
}

/** Flags as the command line brings them; those not given are absent. */
export type Flags = Partial<Record<SettingName, string>>;

type Schemas = { -readonly [N in SettingName]: (typeof settings)[N]['schema'] };
const schemas = Object.fromEntries(Object.entries(settings).map(([name, s]) => [name, s.schema])) as Schemas;
const KEYS = 'expected keys and values such as overlay: 10.0.0.0/8';
const schema = v.pipe(
  v.custom<object>((value) => !Array.isArray(value), KEYS),
  v.partial(v.strictObject(schemas, KEYS)),
);
type Values = v.InferOutput<typeof schema>;
type WithDefaults = Values & {
  [N in Exclude<SettingName, 'local' | 'key' | 'mappings' | 'underlay-mtu'>]-?: NonNullable<Values[N]>;
};

const defaults = Object.fromEntries(
  Object.entries<Setting>(settings).flatMap(([name, s]) => (s.default === undefined ? [] : [[name, s.default]])),
);

/** Characters of a bad value that an error shows. */
const MAX_VALUE = 80;

/** Reads the file, if any; flags override it, and defaults fill the rest. Throws ERR_CONFIG with the place, the value and what was expected. */
export function loadConfig(flags: Flags, file?: string): Config {
  const source = file === undefined ? undefined : fileSource(file);
  const fromFile = source ? check(source) : {};
  const fromFlags = check(flagSource(flags));
  const values = { ...check(flagSource(defaults)), ...fromFile, ...fromFlags } as WithDefaults;
  checkDataPlane(values);
  checkEngine(values);
  checkOptions(values);
  const pair = Boolean(fromFlags.overlay ?? fromFlags.underlay);
  return {
    mappings: mappingsOf(pair ? { ...values, mappings: undefined } : values, pair ? undefined : source),
    local: values.local,
    device: values.device,
    encapsulation: values.encapsulation,
    dataplane: values.dataplane,
    key: values.key,
    greChecksum: values['gre-checksum'],
    greSequence: values['gre-sequence'],
    ttl: values.ttl,
    dscp: values.dscp,
    ecn: values.ecn,
    underlayMtu: values['underlay-mtu'],
    pathMtuDiscovery: values['path-mtu-discovery'],
    clampMss: values['clamp-mss'],
    core: values.core,
    engine: values.engine,
    greSegmentation: values['gre-segmentation'],
    queues: values.queues,
    runDir: values['run-dir'],
    idleTimeout: values['idle-timeout'],
    busyPoll: values['busy-poll'],
    logLevel: values['log-level'],
  };
}

/** Largest VXLAN network identifier (RFC 7348 §5). */
const MAX_VNI = 0xffffff;

/** Throws ERR_CONFIG for what only one of the data planes can do. */
function checkDataPlane(values: WithDefaults): void {
  const { dataplane, encapsulation } = values;
  if (dataplane === 'wasm') {
    if (encapsulation === 'vxlan')
      throw new InlayError('ERR_CONFIG', 'encapsulation vxlan: expected dataplane kernel with it');
    return;
  }
  const { ecn, dscp, queues, key = 0 } = values;
  const wasmOnly = {
    'engine portable': values.engine === 'portable',
    'core typescript': values.core === 'typescript',
    [`queues ${queues}`]: queues > 1,
    'busy-poll': values['busy-poll'] > 0,
    'gre-segmentation kernel': values['gre-segmentation'] === 'kernel',
    'clamp-mss on': values['clamp-mss'],
    'gre-sequence on': values['gre-sequence'], // A multipoint device has one number for all VMs.
    'ecn compatibility': ecn === 'compatibility',
    'dscp uniform': dscp === 'uniform',
  };
  const wrong = Object.entries(wasmOnly).find(([, isSet]) => isSet)?.[0];
  if (wrong) throw new InlayError('ERR_CONFIG', `${wrong}: expected dataplane wasm with it`);
  if (encapsulation !== 'vxlan') return;
  if (values['gre-checksum'])
    throw new InlayError('ERR_CONFIG', 'encapsulation vxlan: expected no gre-checksum with it');
  if (key > MAX_VNI)
    throw new InlayError('ERR_CONFIG', `key ${key}: expected at most ${MAX_VNI} with encapsulation vxlan`);
}

/** Throws ERR_CONFIG for what only the linux engine can do. */
function checkEngine(values: WithDefaults): void {
  const { engine, encapsulation, queues } = values;
  if (engine === 'portable' && queues > 1) {
    throw new InlayError('ERR_CONFIG', `queues ${queues}: expected 1 with engine portable, which has one thread`);
  }
  if (engine === 'portable' && values['busy-poll'] > 0) {
    throw new InlayError('ERR_CONFIG', 'busy-poll: expected none with engine portable, whose event loop sleeps');
  }
  if (values['gre-segmentation'] === 'kernel' && (engine !== 'linux' || encapsulation !== 'gre')) {
    throw new InlayError('ERR_CONFIG', 'gre-segmentation kernel: expected engine linux and encapsulation gre with it');
  }
}

/** Throws ERR_CONFIG for what does not go together on the wire. */
function checkOptions(values: WithDefaults): void {
  const { engine, encapsulation, queues, ttl, dscp } = values;
  const mayFragment = !values['path-mtu-discovery'];
  if (values['gre-sequence'] && queues > 1) {
    throw new InlayError(
      'ERR_CONFIG',
      `gre-sequence: expected 1 queue with it, not ${queues}, so that packets stay in order`,
    );
  }
  if (values['gre-segmentation'] === 'kernel' && (values['gre-checksum'] || values['gre-sequence'])) {
    throw new InlayError(
      'ERR_CONFIG',
      'gre-segmentation kernel: expected neither gre-checksum nor gre-sequence with it',
    );
  }
  if (mayFragment && encapsulation === 'gre' && queues > 1) {
    throw new InlayError(
      'ERR_CONFIG',
      `path-mtu-discovery off: expected 1 queue with it, not ${queues}, so that identifications are unique`,
    );
  }
  if (engine !== 'portable') return;
  if (dscp === 'uniform') {
    throw new InlayError('ERR_CONFIG', 'dscp uniform: expected engine linux with it, which sees the DSCP of gre-udp');
  }
  if (encapsulation === 'gre-udp' && (ttl === 'inherit' || dscp !== 0 || mayFragment)) {
    const name = ttl === 'inherit' ? 'ttl inherit' : dscp !== 0 ? `dscp ${dscp}` : 'path-mtu-discovery off';
    throw new InlayError('ERR_CONFIG', `${name}: expected engine linux with it, or encapsulation gre`);
  }
}

/** `source` is the file that the prefixes come from, for the place of an error; undefined if flags gave one. */
function mappingsOf(
  { overlay, underlay, mappings }: Pick<Values, 'overlay' | 'underlay' | 'mappings'>,
  source: Source | undefined,
): Mapping[] {
  if (mappings) {
    const list = mappings.map((pair, i) =>
      placed(source, ['mappings', i], () => new Mapping(pair.overlay, pair.underlay)),
    );
    return placed(source, ['mappings'], () => {
      if (overlay || underlay)
        throw new InlayError('ERR_CONFIG', 'mappings and overlay or underlay exclude each other: expected one of them');
      checkMappings(list);
      return list;
    });
  }
  return placed(source, ['overlay'], () => [mappingOf(overlay, underlay)]);
}

function mappingOf(overlay: Prefix | undefined, underlay: Prefix | undefined): Mapping {
  for (const [name, value] of Object.entries({ overlay, underlay })) {
    if (!value) {
      throw new InlayError('ERR_CONFIG', `no ${name} prefix: two prefixes are needed`, {
        hint: '--overlay 10.0.0.0/8 --underlay 192.168.0.0/16, or the same keys in a file for --config',
      });
    }
  }
  return new Mapping(overlay as Prefix, underlay as Prefix);
}

/** Runs `make`; its errors get the place of `path` in front, if there is a file. */
function placed<T>(source: Source | undefined, path: Path, make: () => T): T {
  try {
    return make();
  } catch (error) {
    if (!source || !(error instanceof InlayError)) throw error;
    const { code, message, hint } = error;
    throw new InlayError(code, `${source.where(path, 'key')} ${message}`, { ...(hint ? { hint } : {}), cause: error });
  }
}

function check(source: Source): Values {
  const result = v.safeParse(schema, source.value);
  if (result.success) return result.output;
  const issue = result.issues[0];
  const path = (issue.path ?? []).map((item) => item.key as string | number);
  if (issue.expected === 'never') throw unknownKey(source, path);
  // A missing key is an error of the pair that lacks it. The issue's own input may be transformed already.
  if (valueAt(source, path) === undefined) path.pop();
  const value = valueAt(source, path);
  const text = typeof value === 'number' ? String(value) : json(value);
  throw new InlayError('ERR_CONFIG', `${source.where(path, 'value')} ${printable(text, MAX_VALUE)}: ${issue.message}`);
}

function json(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch {
    return 'a value that holds itself'; // By an alias of YAML.
  }
}

function valueAt(source: Source, path: Path): unknown {
  return path.reduce((value, key) => (value as Record<string | number, unknown> | undefined)?.[key], source.value);
}

function unknownKey(source: Source, path: Path): InlayError {
  const key = String(path.at(-1));
  const known = path.length === 1 ? Object.keys(settings) : ['overlay', 'underlay'];
  const nearest = known.reduce((a, b) => (distance(key, b) < distance(key, a) ? b : a));
  return new InlayError(
    'ERR_CONFIG',
    `${source.where(path, 'key')} unknown key "${printable(key, MAX_VALUE)}": did you mean "${nearest}"?`,
  );
}
