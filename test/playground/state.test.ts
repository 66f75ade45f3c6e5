/** A link holds the state, and whatever else a link may hold does no harm. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { DEFAULTS, fromLink, type State, toLink } from '../../playground/state.ts';

const states: fc.Arbitrary<State> = fc.record({
  overlay: fc.constantFrom('10.0.0.0/8', '240.0.0.0/4', '10.0.', ''),
  underlay: fc.constantFrom('192.168.0.0/16', '172.16.0.0/12', '1'),
  address: fc.ipV4(),
  local: fc.ipV4(),
  direction: fc.constantFrom('encapsulate', 'decapsulate'),
  encapsulation: fc.constantFrom('gre', 'gre-udp'),
  key: fc.nat().map(String),
  checksum: fc.boolean(),
  sequence: fc.boolean(),
  underlayMtu: fc.nat(99_999).map(String),
  packet: fc.uint8Array({ maxLength: 50 }).map((bytes) => Buffer.from(bytes).toString('hex')),
});

test('every state comes back from its link, and so from its address as a browser writes it', () => {
  fc.assert(
    fc.property(states, (state) => {
      const { hash } = new URL(`http://127.0.0.1/#${toLink(state)}`);
      expect(fromLink(hash.slice(1))).toEqual({ state, refused: [] });
    }),
  );
});

test('the longest packet comes back', () => {
  const state = { ...DEFAULTS, packet: 'ab'.repeat(65_535) };
  expect(fromLink(toLink(state)).state.packet).toBe(state.packet);
});

test('a link longer than any of a packet is not read', () => {
  const longest: State = {
    ...{ overlay: '255.255.255.255/32', underlay: '255.255.255.254/32', address: '255.255.255.255' },
    ...{ local: '255.255.255.255', direction: 'decapsulate', encapsulation: 'gre-udp', key: '4294967295' },
    ...{ checksum: true, sequence: true, underlayMtu: '65535', packet: 'ab'.repeat(65_535) },
  };
  expect(fromLink(toLink(longest))).toEqual({ state: longest, refused: [] });
  for (const part of ['&', 'key=7&', `packet=${longest.packet}00&`]) {
    const link = part.repeat(Math.ceil(200_000 / part.length));
    expect(fromLink(link)).toEqual({ state: DEFAULTS, refused: ['length'] });
  }
  expect(fromLink(`packet=${longest.packet}00`)).toEqual({ state: DEFAULTS, refused: ['packet'] });
});

test('what is as usual needs no words', () => {
  expect(toLink(DEFAULTS)).toBe('');
  expect(toLink({ ...DEFAULTS, key: '7', checksum: true })).toBe('key=7&checksum=1');
});

test.each([
  ['overlay', '<img src=x onerror=alert(1)>'],
  ['address', '10.16.32.91"><script>'],
  ['packet', '450'],
  ['packet', '45gg'],
  ['do', 'constructor'],
  ['as', 'gre-udp-'],
  ['checksum', 'true'],
  ['key', '-1'],
  ['mtu', '999999'],
])('%s with a form that it cannot have is refused', (name, value) => {
  expect(fromLink(`${name}=${value}`)).toEqual({ state: DEFAULTS, refused: [name] });
});

test.each(['__proto__=1', 'constructor=x&toString=y', '=&&==&a', '%', '%ff=%00', 'hasOwnProperty'])(
  '%s changes nothing',
  (link) => {
    expect(fromLink(link)).toEqual({ state: DEFAULTS, refused: [] });
  },
);

test('no text whatever gives a state that a form would not let in', () => {
  const names = ['overlay', 'underlay', 'address', 'vm', 'do', 'as', 'key', 'checksum', 'sequence', 'mtu', 'packet'];
  const part = fc.tuple(fc.constantFrom(...names), fc.string()).map((pair) => pair.join('='));
  fc.assert(
    fc.property(fc.array(fc.oneof(part, fc.string())), (parts) => {
      const { state } = fromLink(parts.join('&'));
      expect(Object.keys(state)).toEqual(Object.keys(DEFAULTS));
      const { direction, encapsulation, checksum, sequence, ...texts } = state;
      expect(['encapsulate', 'decapsulate']).toContain(direction);
      expect(['gre', 'gre-udp']).toContain(encapsulation);
      expect([typeof checksum, typeof sequence]).toEqual(['boolean', 'boolean']);
      expect(Object.values(texts).join('')).toMatch(/^[0-9a-f./]*$/);
    }),
  );
});
