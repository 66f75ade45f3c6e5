/** An address, bit by bit: what is copied from the VM's underlay address, and what numbers the container. */
import { type Address, formatAddress, parseAddress } from '../../src/mesh/address.ts';
import { explain } from '../../src/mesh/explain.ts';
import { covering, type Mapping } from '../../src/mesh/mapping.ts';
import { type Answer, answer } from '../mesh.ts';
import type { State } from '../state.ts';
import { byId, complain, h, rove, show } from './dom.ts';

const SVG = 'http://www.w3.org/2000/svg';
/** Between octets, in widths of a bit. style.css has the same. */
const GAP = 0.5;
const WIDTH = 32 + 3 * GAP;
const HEIGHT = 10;

type Kind = 'prefix' | 'vm' | 'container' | 'free';
const MEANING: Record<Kind, string> = {
  prefix: 'prefix',
  vm: 'VM',
  container: 'container',
  free: 'of neither network',
};

export class AddressView {
  readonly #update: (change: Partial<State>) => void;

  constructor(update: (change: Partial<State>) => void) {
    this.#update = update;
    byId('address').addEventListener('input', (event) => update({ address: (event.target as HTMLInputElement).value }));
    rove(byId('overlay-bits'), 'button');
  }

  render(state: State, mesh: Answer<Mapping>): void {
    show(byId<HTMLInputElement>('address'), state.address);
    const address = parseAddress(state.address.trim());
    complain(
      byId('address'),
      byId('address-error'),
      address ? undefined : 'expected an IPv4 address such as 10.16.32.91',
    );
    if (!address) return;
    if ('error' in mesh) {
      this.#draw(address, undefined);
      this.#say('The two prefixes make no mesh: an address means nothing yet.');
      return;
    }
    const mapping = mesh.value;
    const found = answer(() => explain([mapping], address));
    const inMesh = 'value' in found ? this.#pair(mapping, address) : undefined;
    this.#draw(inMesh?.overlay ?? address, inMesh && { mapping, vm: inMesh.vm });
    if ('error' in found) this.#say(found.error);
    else this.#explain(found.value);
  }

  /** An address of either network as an overlay address and the VM that it carries. */
  #pair(mapping: Mapping, address: Address): { overlay: Address; vm: Address } {
    if (covering([mapping], address)) return { overlay: address, vm: mapping.explain(address).vm };
    return { overlay: mapping.addressOf(address, 1n), vm: address };
  }

  #say(text: string): void {
    byId('meaning').textContent = text;
    byId('facts').replaceChildren();
  }

  #explain(found: ReturnType<typeof explain>): void {
    const { address, slice } = found;
    const strong = (text: string) => h('b', {}, text);
    const sentence =
      found.kind === 'underlay'
        ? ['is a VM, whose own overlay address is ', strong(found.overlay)]
        : found.kind === 'container'
          ? ['is container ', strong(String(found.container)), ' on the VM ', strong(found.vm)]
          : found.kind === 'vm'
            ? ['is the VM ', strong(found.vm), ' itself']
            : found.kind === 'slice'
              ? ['is the slice of the VM ', strong(found.vm), ' itself: nobody has this address']
              : ['is the last address of its slice, which is kept free: nobody has it'];
    byId('meaning').replaceChildren(strong(address), ' ', ...sentence, '.');
    const facts = Object.entries(
      found.kind === 'underlay'
        ? { VM: address, slice, overlay: found.overlay }
        : { VM: found.vm, slice, index: found.index },
    );
    byId('facts').replaceChildren(
      ...facts.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, String(value)))),
    );
  }

  #draw(overlay: Address, mesh: { mapping: Mapping; vm: Address } | undefined): void {
    const kindOf = (bit: number): Kind => {
      if (!mesh) return 'free';
      const { overlay: prefix, sliceLength } = mesh.mapping;
      return bit < prefix.length ? 'prefix' : bit < sliceLength ? 'vm' : 'container';
    };
    this.#row('overlay', overlay, kindOf, true);
    byId('address-drawing').classList.toggle('is-alone', mesh === undefined);
    const place = byId('copied');
    if (!mesh) return;
    const { mapping, vm } = mesh;
    const hostBits = mapping.underlay.length;
    this.#row('underlay', vm, (bit) => (bit < hostBits ? 'prefix' : 'vm'), false);
    byId('ribbon').replaceChildren(...ribbon(mapping));
    place.textContent =
      mapping.vmBits === 0
        ? 'one VM: no bits are copied'
        : `${mapping.vmBits} ${mapping.vmBits === 1 ? 'bit' : 'bits'} copied`;
  }

  #row(name: 'overlay' | 'underlay', address: Address, kindOf: (bit: number) => Kind, isPushable: boolean): void {
    const octets = formatAddress(address).split('.');
    byId(`${name}-octets`).replaceChildren(...octets.map((octet) => h('span', {}, octet)));
    const row = byId(`${name}-bits`);
    const focused = Array.from(row.children)
      .filter((child) => child.classList.contains('bit'))
      .indexOf(document.activeElement as Element);
    const cells = Array.from({ length: address.width }, (_, bit) => {
      const value = (address.bits >> BigInt(address.width - 1 - bit)) & 1n;
      const kind = kindOf(bit);
      const edge = bit > 0 && kindOf(bit - 1) !== kind ? ' is-edge' : '';
      const attributes = { class: `bit is-${kind}${edge}` };
      if (!isPushable) return h('span', attributes, String(value));
      const label = `bit ${bit + 1}, ${MEANING[kind]}`;
      const cell = h(
        'button',
        {
          ...attributes,
          type: 'button',
          'aria-pressed': String(value === 1n),
          'aria-label': label,
          tabindex: bit === Math.max(focused, 0) ? 0 : -1,
        },
        String(value),
      );
      cell.addEventListener('click', () => {
        const flipped = { ...address, bits: address.bits ^ (1n << BigInt(address.width - 1 - bit)) };
        this.#update({ address: formatAddress(flipped) });
      });
      return cell;
    });
    // After each octet but the last there is a gap, a column of its own.
    row.replaceChildren(...cells.flatMap((cell, bit) => (bit % 8 === 7 && bit < 31 ? [cell, h('i', {})] : [cell])));
    if (focused >= 0) cells[focused]?.focus();
  }
}

/** What joins the VM bits of the overlay address above with those of the underlay address below. */
function ribbon({ overlay, underlay, vmBits }: Mapping): SVGElement[] {
  if (vmBits === 0) return [];
  const left = (bit: number) => bit + Math.floor(bit / 8) * GAP;
  const middle = (bit: number) => left(bit) + 0.5;
  const [from, to] = [overlay.length, underlay.length];
  const corners = [left(from), left(from + vmBits - 1) + 1, left(to + vmBits - 1) + 1, left(to)];
  const area = svg('polygon', { points: corners.map((x, i) => `${x},${i < 2 ? 0 : HEIGHT}`).join(' ') });
  const lines = Array.from({ length: vmBits }, (_, i) =>
    svg('line', { x1: middle(from + i), y1: 0, x2: middle(to + i), y2: HEIGHT }),
  );
  byId('ribbon').setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
  return [area, ...lines];
}

function svg(tag: string, attributes: Record<string, string | number>): SVGElement {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  return element;
}
