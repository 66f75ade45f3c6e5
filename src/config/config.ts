/** The configuration: a YAML file and flags, checked against one table of settings. */
import * as v from 'valibot';
import { InlayError } from '../errors.ts';
import { formatAccess, isInside } from '../mesh/access.ts';
import { formatPrefix, overlaps, type Prefix } from '../mesh/address.ts';
import { checkMappings, Mapping } from '../mesh/mapping.ts';
import { isClassE } from '../mesh/plan.ts';
import { overlaysBeside } from '../mesh/propose.ts';
import { nearest } from './nearest.ts';
import { checkRules } from './rules.ts';
import { camelCase, type Setting, type SettingName, settings, type Values, valueNames } from './settings.ts';
import { fileSource, flagSource, type Path, printable, type Source } from './source.ts';

/** The configuration of one VM: every setting by its name in code, and mappings for the pairs of prefixes. */
export interface Config extends Values {
  mappings: Mapping[];
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
/** What a file, the flags or the defaults give, checked. */
type Given = v.InferOutput<typeof schema>;

const defaults = Object.fromEntries(
  Object.entries<Setting>(settings).flatMap(([name, s]) => (s.default === undefined ? [] : [[name, s.default]])),
);

/** Characters of a bad value that an error shows. */
const MAX_VALUE = 80;

/**
 * Reads the file, if any; flags override it, and defaults fill the rest. Throws ERR_CONFIG with the place,
 * the value and what was expected.
 */
export function loadConfig(flags: Flags, file?: string): Config {
  const source = file === undefined ? undefined : fileSource(file);
  const fromFile = source ? check(source) : {};
  const fromFlags = check(flagSource(flags));
  const given = { ...check(flagSource(defaults)), ...fromFile, ...fromFlags };
  const values = valuesOf(given);
  checkRules(values);
  const pair = Boolean(fromFlags.overlay ?? fromFlags.underlay);
  const mappings = mappingsOf(pair ? { ...given, mappings: undefined } : given, pair ? undefined : source);
  checkAccess(values, mappings, fromFlags['container-access'] ? undefined : source);
  return { mappings, ...values };
}

/** What is outside the underlay is no VM's: containers reach it as they do the rest of the world. */
function checkAccess({ containerAccess = [] }: Values, mappings: readonly Mapping[], source: Source | undefined): void {
  const underlays = mappings.map(({ underlay }) => underlay);
  const outside = containerAccess.find((access) => !isInside(access, underlays));
  if (!outside) return;
  const prefixes = underlays.map(formatPrefix).join(', ');
  const what = `container-access ${formatAccess(outside)}: expected an address inside the underlay ${prefixes}`;
  throw new InlayError('ERR_CONFIG', source ? `${source.where(['container-access'], 'key')} ${what}` : what);
}

/**
 * The prefixes that the flags, or else the file, give, if any: they need not make a pair. Throws ERR_CONFIG
 * as `loadConfig` does.
 */
export function loadPrefixes(flags: Flags, file?: string): Partial<Record<'overlay' | 'underlay', Prefix>> {
  const { overlay, underlay } = { ...(file === undefined ? {} : check(fileSource(file))), ...check(flagSource(flags)) };
  return { ...(overlay && { overlay }), ...(underlay && { underlay }) };
}

/** The cool-down that the flags give, if any, in seconds. Throws ERR_CONFIG as `loadConfig` does. */
export function loadCoolDown(flags: Flags): number | undefined {
  const coolDown = check(flagSource(flags))['address-cool-down'];
  return coolDown === undefined ? undefined : Math.ceil(coolDown / 1000);
}

/** The values by their names in code. `given` has at least those that have a default. */
function valuesOf(given: Given): Values {
  return Object.fromEntries(valueNames.map((name) => [camelCase(name), given[name]])) as Values;
}

/**
 * `source` is the file that the prefixes come from, for the place of an error; undefined if flags gave one.
 */
function mappingsOf(
  { overlay, underlay, mappings }: Pick<Given, 'overlay' | 'underlay' | 'mappings'>,
  source: Source | undefined,
): Mapping[] {
  if (mappings) {
    const list = mappings.map((pair, i) =>
      placed(source, ['mappings', i], () => mappingOf(pair.overlay, pair.underlay)),
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
  return separate(overlay as Prefix, underlay as Prefix);
}

/** A mapping; where its prefixes overlap, the error tells which overlays would do. */
function separate(overlay: Prefix, underlay: Prefix): Mapping {
  if (!overlaps(overlay, underlay)) return new Mapping(overlay, underlay);
  const others = overlaysBeside(underlay).map((mapping) => {
    const note = isClassE(mapping.overlay) ? '; class E: Linux forwards it, some clouds and routers do not' : '';
    return `${formatPrefix(mapping.overlay)} (${mapping.containersPerVm} containers per VM${note})`;
  });
  const [what, which] = [formatPrefix(overlay), formatPrefix(underlay)];
  throw new InlayError('ERR_CONFIG', `overlay ${what} and underlay ${which} overlap: expected two separate prefixes`, {
    ...(others.length > 0 && { hint: `keep the underlay, and take one of these overlays: ${others.join(', ')}` }),
  });
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

function check(source: Source): Given {
  const result = v.safeParse(schema, source.value);
  if (result.success) return result.output;
  const issue = result.issues[0];
  const path = (issue.path ?? []).map((item) => item.key as string | number);
  if (issue.expected === 'never') throw unknownKey(source, path);
  // A missing key is an error of the pair that lacks it. The value is read from the source, because valibot
  // may have transformed its own copy.
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
  const meant = nearest(key, known) as SettingName;
  return new InlayError(
    'ERR_CONFIG',
    `${source.where(path, 'key')} unknown key "${printable(key, MAX_VALUE)}": did you mean "${meant}"?`,
    { hint: `${meant}: ${settings[meant].description}` },
  );
}
