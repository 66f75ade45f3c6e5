/** All that the page shows follows from this, and it fits a link. */

export interface State {
  /** Prefixes and addresses, as they were typed: they may be wrong. */
  overlay: string;
  underlay: string;
  address: string;
  /** This VM's underlay address. */
  local: string;
  direction: 'encapsulate' | 'decapsulate';
  encapsulation: 'gre' | 'gre-udp';
  /** The GRE key as it was typed; empty for none. */
  key: string;
  checksum: boolean;
  sequence: boolean;
  /** Bytes of the longest packet that the underlay carries. */
  underlayMtu: string;
  /** The packet, in hexadecimal digits without anything between. */
  packet: string;
}

/** The example of README.md: an empty packet from 10.16.32.91 to 10.16.33.7. */
export const DEFAULTS: Readonly<State> = {
  overlay: '10.0.0.0/8',
  underlay: '192.168.0.0/16',
  address: '10.16.32.91',
  local: '192.168.16.32',
  direction: 'encapsulate',
  encapsulation: 'gre',
  key: '',
  checksum: false,
  sequence: false,
  underlayMtu: '1500',
  packet: '4500001400000000400125680a10205b0a102107',
};

const PREFIX = /^[\d./]{0,18}$/;
const ADDRESS = /^[\d.]{0,15}$/;
const SWITCH = /^[01]$/;

/** What each part is called in a link, and what it may look like there. */
const PARTS: { readonly [key in keyof State]: readonly [name: string, form: RegExp] } = {
  overlay: ['overlay', PREFIX],
  underlay: ['underlay', PREFIX],
  address: ['address', ADDRESS],
  local: ['vm', ADDRESS],
  direction: ['do', /^(encapsulate|decapsulate)$/],
  encapsulation: ['as', /^gre(-udp)?$/],
  key: ['key', /^\d{0,10}$/],
  checksum: ['checksum', SWITCH],
  sequence: ['sequence', SWITCH],
  underlayMtu: ['mtu', /^\d{0,5}$/],
  packet: ['packet', /^([0-9a-f]{2}){0,65535}$/],
};
/** The longest packet, and room for the rest: a link that is longer is none of this page's. */
const MOST_LINK = 2 * 65_535 + 1000;
const KEYS = Object.keys(PARTS) as (keyof State)[];

/** The state as the fragment of a link, without `#`: what is as usual is left out. */
export function toLink(state: State): string {
  const parts = KEYS.filter((key) => state[key] !== DEFAULTS[key]).map((key) => {
    const value = state[key];
    // Dots and slashes mean nothing in a fragment (RFC 3986 §3.5), and people read links.
    return `${PARTS[key][0]}=${typeof value === 'boolean' ? Number(value) : value}`;
  });
  return parts.join('&');
}

/**
 * Reads a link's fragment. Anybody can have written it: each part counts if it has the form that it must have, else the
 * usual value stands. `refused` are the names of those that do not count, or `length` if the link is too long to be read.
 */
export function fromLink(fragment: string): { state: State; refused: string[] } {
  if (fragment.length > MOST_LINK) return { state: { ...DEFAULTS }, refused: ['length'] };
  const given = new Map(fragment.split('&').map((part) => part.split('=', 2) as [string, string | undefined]));
  const state: State = { ...DEFAULTS };
  const refused: string[] = [];
  for (const key of KEYS) {
    const [name, form] = PARTS[key];
    if (!given.has(name)) continue;
    const text = given.get(name) ?? '';
    if (form.test(text)) Object.assign(state, { [key]: form === SWITCH ? text === '1' : text });
    else refused.push(name);
  }
  return { state, refused };
}
