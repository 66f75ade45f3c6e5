/**
 * CNI_ARGS: pairs KEY=VALUE with ";" between them (CNI conventions, "CNI_ARGS"). As in the project's own
 * plugins, a key that nobody knows is an error, unless IgnoreUnknown=1 is among them.
 */
import { CniError, CODE, quoted } from './error.ts';

/** What CNI_ARGS asks for. */
export interface Arguments {
  /** An address, be it with the length of a prefix. */
  ip?: string;
  mac?: string;
}

const NAMES: Readonly<Record<string, keyof Arguments>> = { IP: 'ip', MAC: 'mac' };
/** What kubelet and Nomad say of their own container. */
const TOLD = /^(K8S|NOMAD)_/;

/** Throws CniError, code 4. */
export function readArguments(text: string): Arguments {
  const known: Arguments = {};
  const unknown: string[] = [];
  let isUnknownIgnored = false;
  for (const pair of text === '' ? [] : text.split(';')) {
    const at = pair.indexOf('=');
    if (at <= 0) throw invalid(`CNI_ARGS: ${quoted(pair)} is no pair KEY=VALUE`);
    const [key, value] = [pair.slice(0, at), pair.slice(at + 1)];
    if (key === 'IgnoreUnknown') isUnknownIgnored = booleanOf(value);
    else if (Object.hasOwn(NAMES, key)) known[NAMES[key] as keyof Arguments] = value;
    else if (!TOLD.test(key)) unknown.push(pair);
  }
  if (unknown.length > 0 && !isUnknownIgnored)
    throw invalid(`CNI_ARGS: unknown arguments ${quoted(unknown)}`, 'IgnoreUnknown=1 among them has them ignored');
  return known;
}

function booleanOf(value: string): boolean {
  const found = { '1': true, true: true, '0': false, false: false }[value.toLowerCase()];
  if (found === undefined) throw invalid(`CNI_ARGS: IgnoreUnknown=${quoted(value)}: expected 1, true, 0 or false`);
  return found;
}

function invalid(message: string, details?: string): CniError {
  return new CniError(CODE.environment, message, details);
}
