/** Elements of the page. Text goes in as text: nothing here, or anywhere else in it, is read as HTML. */

type Child = Node | string | undefined | false;

/** Makes an element with attributes; those that are false or undefined are left out. */
export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string | number | boolean | undefined> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(name, value === true ? '' : String(value));
  }
  element.append(...children.filter((child) => child !== undefined && child !== false));
  return element;
}

/** The element with this id, which index.html has. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no element #${id}`);
  return found as T;
}

/** A button that does something. */
export function button(text: string, act: () => void, attributes: Record<string, string> = {}): HTMLButtonElement {
  const made = h('button', { type: 'button', ...attributes }, text);
  made.addEventListener('click', act);
  return made;
}

/** Sets what a field shows, unless it shows it: the cursor stays where it is. */
export function show(field: HTMLInputElement | HTMLTextAreaElement | HTMLSelectElement, value: string): void {
  if (field.value !== value) field.value = value;
}

/** Says beside a field what is wrong with it; undefined: nothing is. */
export function complain(field: HTMLElement, place: HTMLElement, error: string | undefined): void {
  if (error === undefined) field.removeAttribute('aria-invalid');
  else field.setAttribute('aria-invalid', 'true');
  if (place.textContent !== (error ?? '')) place.textContent = error ?? '';
}

/** 65534 as 65,534. */
export function count(number: number): string {
  return number.toLocaleString('en');
}

/** 1 byte, 20 bytes. */
export function some(number: number, what: string): string {
  return `${count(number)} ${what}${number === 1 ? '' : 's'}`;
}

/** Lets one of several elements have the focus, and the arrow keys move it. */
export function rove(root: HTMLElement, selector: string): void {
  root.addEventListener('keydown', (event) => {
    const all = Array.from(root.querySelectorAll<HTMLElement>(selector));
    const at = all.indexOf(event.target as HTMLElement);
    const steps: Record<string, number> = {
      ArrowRight: 1,
      ArrowDown: 1,
      ArrowLeft: -1,
      ArrowUp: -1,
      Home: -at,
      End: all.length - 1 - at,
    };
    const step = steps[event.key];
    const next = step === undefined || at < 0 ? undefined : all[at + step];
    if (step === undefined || at < 0) return;
    event.preventDefault();
    if (!next) return;
    for (const each of all) each.tabIndex = each === next ? 0 : -1;
    next.focus();
  });
}
