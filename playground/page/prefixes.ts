/** The two prefixes: what they have room for, and what to beware of. */
import { formatPrefix } from '../../src/mesh/address.ts';
import type { Mapping } from '../../src/mesh/mapping.ts';
import { plan } from '../../src/mesh/plan.ts';
import { type Answer, alternatives, proposals, withLength } from '../mesh.ts';
import type { State } from '../state.ts';
import { button, byId, complain, count, h, show } from './dom.ts';

type Name = 'overlay' | 'underlay';
const NAMES: readonly Name[] = ['overlay', 'underlay'];

export class PrefixesView {
  readonly #update: (change: Partial<State>) => void;
  /** The prefixes as they were typed: a slider that goes there and back loses none of their bits. */
  readonly #typed: Record<Name, string> = { overlay: '', underlay: '' };
  /** What the sliders made of them last. */
  readonly #slid: Record<Name, string> = { overlay: '', underlay: '' };

  constructor(update: (change: Partial<State>) => void) {
    this.#update = update;
    for (const name of NAMES) {
      byId<HTMLInputElement>(name).addEventListener('input', (event) => {
        update({ [name]: (event.target as HTMLInputElement).value });
      });
      byId<HTMLInputElement>(`${name}-length`).addEventListener('input', (event) => {
        const moved = withLength(this.#typed[name], Number((event.target as HTMLInputElement).value));
        if (moved === undefined) return;
        this.#slid[name] = moved;
        update({ [name]: moved });
      });
    }
    for (const id of ['wanted-containers', 'wanted-vms']) byId(id).addEventListener('input', () => this.#propose());
    this.#propose();
  }

  render(state: State, mesh: Answer<Mapping>): void {
    for (const name of NAMES) {
      show(byId<HTMLInputElement>(name), state[name]);
      if (state[name] !== this.#slid[name]) this.#typed[name] = state[name];
      const length = /\/(\d{1,2})\s*$/.exec(state[name])?.[1];
      const slider = byId<HTMLInputElement>(`${name}-length`);
      if (length !== undefined) show(slider, length);
      slider.setAttribute('aria-valuetext', `/${slider.value}`);
    }
    const error = 'error' in mesh ? mesh : undefined;
    const isAbout = (name: Name) => (error?.error.startsWith(`${name} "`) ? error.error : undefined);
    for (const name of NAMES) complain(byId(name), byId(`${name}-error`), isAbout(name));
    if ('value' in mesh) this.#room(mesh.value);
    else this.#noRoom();
    const isElsewhere = error && !NAMES.some(isAbout);
    byId('warnings').replaceChildren(
      ...(isElsewhere ? this.#refusal(error, state) : []),
      ...('value' in mesh
        ? plan(mesh.value).warnings.map((text) => h('p', { class: 'warning' }, h('b', {}, 'Warning '), text))
        : []),
    );
  }

  #room(mapping: Mapping): void {
    const { vms, containersPerVm, vmBits, containerBits, sliceLength } = plan(mapping);
    byId('vms').textContent = count(vms);
    byId('containers').textContent = count(containersPerVm);
    byId('slice-length').textContent = `/${sliceLength}`;
    const { length } = mapping.overlay;
    byId('overlay-split').replaceChildren(...split({ prefix: length, vm: vmBits, container: containerBits }));
    byId('underlay-split').replaceChildren(...split({ prefix: mapping.underlay.length, vm: vmBits }));
  }

  #noRoom(): void {
    for (const id of ['vms', 'containers', 'slice-length']) byId(id).textContent = '–';
    for (const id of ['overlay-split', 'underlay-split']) byId(id).replaceChildren();
  }

  #refusal(error: { error: string; hint?: string }, state: State): HTMLElement[] {
    const others = alternatives(state.underlay);
    return [
      h('p', { class: 'refusal' }, h('b', {}, 'No mesh '), error.error, error.hint !== undefined && ` (${error.hint})`),
      ...(others.length > 0
        ? [h('p', { class: 'chips' }, 'With this underlay there is room beside it in ', ...this.#pairs(others))]
        : []),
    ];
  }

  #pairs(mappings: readonly Mapping[]): HTMLElement[] {
    return mappings.map((mapping) => {
      const { overlay, underlay, vms, containersPerVm } = plan(mapping, 0);
      const title = `${count(vms)} VMs with ${count(containersPerVm)} containers each`;
      return button(formatPrefix(mapping.overlay), () => this.#update({ overlay, underlay }), {
        class: 'chip',
        title,
        'aria-label': `${overlay} over ${underlay}: ${title}`,
      });
    });
  }

  #propose(): void {
    const [containers, vms] = ['wanted-containers', 'wanted-vms'].map((id) => Number(byId<HTMLInputElement>(id).value));
    const isNumber = (n: number | undefined): n is number =>
      n !== undefined && Number.isInteger(n) && n >= 1 && n <= 1e9;
    byId('proposals').replaceChildren(
      ...(isNumber(containers) && isNumber(vms)
        ? this.#proposals(containers, vms)
        : ['Two whole numbers, at least 1.']),
    );
  }

  #proposals(containers: number, vms: number): (HTMLElement | string)[] {
    const found = proposals(containers, vms);
    if ('error' in found) return [reason(found)];
    return found.value.map((mapping) => {
      const { overlay, underlay, ...room } = plan(mapping, 0);
      const made = button(`${overlay} over ${underlay} `, () => this.#update({ overlay, underlay }), { class: 'chip' });
      made.append(h('small', {}, `${count(room.vms)} VMs, ${count(room.containersPerVm)} containers each`));
      return made;
    });
  }
}

function reason({ error, hint }: { error: string; hint?: string }): HTMLElement {
  return h('span', { class: 'refusal' }, error, hint !== undefined && ` (${hint})`);
}

/** The 32 bits of an address, by what they are for. */
function split(bits: { prefix: number; vm: number; container?: number }): HTMLElement[] {
  return Object.entries(bits).flatMap(([kind, number]) => {
    if (number === 0) return [];
    const name = kind === 'vm' ? 'VM' : kind;
    const part = h('div', { class: `part is-${kind}`, title: `${number} ${name} bits` }, h('b', {}, String(number)));
    part.append(h('span', {}, ` ${name}`));
    part.style.flexGrow = String(number);
    return [part];
  });
}
