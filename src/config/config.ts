/** The configuration: a YAML file and flags, checked against one table of settings. */
import { distance } from 'fastest-levenshtein';
import * as v from 'valibot';
import type { Address } from '../address.ts';
import { InlayError } from '../errors.ts';
import { checkMappings, Mapping } from '../mapping.ts';
import { type Setting, type SettingName, settings } from './settings.ts';
import { fileSource, flagSource, type Source } from './source.ts';

export interface Config {
  mappings: Mapping[];
  local: Address | undefined;
  device: string;
  encapsulation: 'gre';
  key: number | undefined;
  core: 'wasm' | 'typescript';
  engine: 'linux' | 'portable';
  runDir: string;
  /** ms */
  idleTimeout: number;
  logLevel: 'debug' | 'info' | 'warn' | 'error';
}

/** Flags as the command line brings them; those not given are absent. */
export type Flags = Partial<Record<SettingName, string>>;

type Schemas = { -readonly [N in SettingName]: (typeof settings)[N]['schema'] };
const schemas = Object.fromEntries(Object.entries(settings).map(([name, s]) => [name, s.schema])) as Schemas;
const schema = v.partial(v.strictObject(schemas, 'expected keys and values such as overlay: 10.0.0.0/8'));
type Values = v.InferOutput<typeof schema>;
type WithDefaults = Values & { [N in Exclude<SettingName, 'local' | 'key' | 'mappings'>]-?: NonNullable<Values[N]> };

const defaults = Object.fromEntries(
  Object.entries<Setting>(settings).flatMap(([name, s]) => (s.default === undefined ? [] : [[name, s.default]])),
);

/** Reads the file, if any; flags override it, and defaults fill the rest. Throws ERR_CONFIG with the place, the value and what was expected. */
export function loadConfig(flags: Flags, file?: string): Config {
  const fromFile = file === undefined ? {} : check(fileSource(file));
  const fromFlags = check(flagSource(flags));
  const values = { ...check(flagSource(defaults)), ...fromFile, ...fromFlags } as WithDefaults;
  const pair = Boolean(fromFlags.overlay ?? fromFlags.underlay);
  return {
    mappings: mappingsOf(pair ? { ...values, mappings: undefined } : values),
    local: values.local,
    device: values.device,
    encapsulation: values.encapsulation,
    key: values.key,
    core: values.core,
    engine: values.engine,
    runDir: values['run-dir'],
    idleTimeout: values['idle-timeout'],
    logLevel: values['log-level'],
  };
}

function mappingsOf({ overlay, underlay, mappings }: Pick<Values, 'overlay' | 'underlay' | 'mappings'>): Mapping[] {
  if (mappings) {
    if (overlay || underlay)
      throw new InlayError('ERR_CONFIG', 'mappings and overlay or underlay exclude each other: expected one of them');
    const list = mappings.map((pair) => new Mapping(pair.overlay, pair.underlay));
    checkMappings(list);
    return list;
  }
  for (const [name, value] of Object.entries({ overlay, underlay })) {
    if (!value) {
      throw new InlayError('ERR_CONFIG', `no ${name} prefix: two prefixes are needed`, {
        hint: '--overlay 10.0.0.0/8 --underlay 192.168.0.0/16, or the same keys in a file for --config',
      });
    }
  }
  return [new Mapping(overlay as NonNullable<typeof overlay>, underlay as NonNullable<typeof underlay>)];
}

function check(source: Source): Values {
  const result = v.safeParse(schema, source.value);
  if (result.success) return result.output;
  const issue = result.issues[0];
  const path = (issue.path ?? []).map((item) => item.key as string | number);
  if (issue.expected === 'never') throw unknownKey(source, path);
  throw new InlayError('ERR_CONFIG', `${source.where(path, 'value')} ${JSON.stringify(issue.input)}: ${issue.message}`);
}

function unknownKey(source: Source, path: (string | number)[]): InlayError {
  const key = String(path.at(-1));
  const known = path.length === 1 ? Object.keys(settings) : ['overlay', 'underlay'];
  const nearest = known.reduce((a, b) => (distance(key, b) < distance(key, a) ? b : a));
  return new InlayError('ERR_CONFIG', `${source.where(path, 'key')} unknown key "${key}": did you mean "${nearest}"?`);
}
