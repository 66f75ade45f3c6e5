/** What the texts of the state mean, by the same rules and in the same words as on the command line. */
import * as v from 'valibot';
import { settings } from '../src/config/settings.ts';
import { InlayError } from '../src/errors.ts';
import { type Address, formatAddress, network, parsePrefix } from '../src/mesh/address.ts';
import { Mapping } from '../src/mesh/mapping.ts';
import { overlaysBeside, propose } from '../src/mesh/propose.ts';
import type { State } from './state.ts';

/** An answer, or why there is none and what may help. */
export type Answer<T> = { value: T } | { error: string; hint?: string };

/** Asks. What Inlay refuses becomes an answer; anything else is a fault of this page. */
export function answer<T>(ask: () => T): Answer<T> {
  try {
    return { value: ask() };
  } catch (error) {
    if (!(error instanceof InlayError)) throw error;
    return { error: error.message, ...(error.hint !== undefined && { hint: error.hint }) };
  }
}

type TextSetting = 'overlay' | 'underlay' | 'local' | 'key' | 'underlay-mtu';

/** The value of a setting that was typed, as the flag of that name takes it. Throws ERR_CONFIG if it is none. */
export function read<N extends TextSetting>(name: N, text: string): v.InferOutput<(typeof settings)[N]['schema']> {
  const { schema } = settings[name];
  const result = v.safeParse(schema as v.GenericSchema<unknown, v.InferOutput<typeof schema>>, text.trim());
  if (result.success) return result.output;
  throw new InlayError('ERR_CONFIG', `${name} "${text.trim()}": ${result.issues[0].message}`);
}

/** The mesh of two prefixes. */
export function meshOf({ overlay, underlay }: Pick<State, 'overlay' | 'underlay'>): Answer<Mapping> {
  return answer(() => new Mapping(read('overlay', overlay), read('underlay', underlay)));
}

/** The VM that this one is. */
export function vmOf(mapping: Mapping, local: string): Answer<Address> {
  return answer(() => {
    const vm = read('local', local);
    mapping.checkVm(vm);
    return vm;
  });
}

/** Pairs of prefixes with this underlay and an overlay beside it, if it is a prefix. */
export function alternatives(underlay: string): Mapping[] {
  const prefix = parsePrefix(underlay.trim());
  const found = prefix && answer(() => overlaysBeside(network(prefix, prefix.length)));
  return found && 'value' in found ? found.value : [];
}

/** Pairs of prefixes with room for so many. */
export function proposals(containers: number, vms: number): Answer<Mapping[]> {
  return answer(() => propose({ containers, vms }));
}

/** VM number `n` of a mesh, counted from the lowest address that one can have. */
export function nthVm(mapping: Mapping, n: number): Address {
  const first = mapping.canBeVm(mapping.underlay) ? 0n : 1n;
  return { width: mapping.underlay.width, bits: mapping.underlay.bits | (first + (BigInt(n) % BigInt(mapping.vms))) };
}

/** The u32 number of an IPv4 address. */
export function numberOf(address: Address): number {
  return Number(address.bits);
}

/** The prefix of `length` bits that holds the address of a prefix in text; undefined if the text is none. */
export function withLength(text: string, length: number): string | undefined {
  const prefix = parsePrefix(text.trim());
  return prefix && `${formatAddress(network(prefix, length))}/${length}`;
}
