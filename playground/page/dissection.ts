/** One packet: its bytes in colours, and a table of its fields; each lights the other up. */
import { dissect } from '../packet/dissect.ts';
import type { Field } from '../packet/fields.ts';
import { hexOf } from '../packet/hex.ts';
import { writePcap } from '../packet/pcap.ts';
import { copy, save } from './copy.ts';
import { button, h, rove, some } from './dom.ts';

/** Of a packet's bytes, so many are shown; all of them are copied. */
const MOST_SHOWN = 192;

export interface Shown {
  title: string;
  bytes: Uint8Array<ArrayBuffer>;
  /** Whether it begins with an outer header. */
  isOuter: boolean;
  /** Bytes at its beginning that the kernel makes. */
  byKernel: number;
  /** What its file is called, without .pcap. */
  file: string;
}

export function dissection({ title, bytes, isOuter, byKernel, file }: Shown): HTMLElement {
  const layers = dissect(bytes, isOuter);
  const rows: { row: HTMLElement; field: Field }[] = [];
  const tables = layers.map((layer) => {
    const isKernels = layer.end <= byKernel;
    const lines = layer.fields.map((field) => {
      const note = field.note !== undefined && h('small', {}, field.note);
      const row = h(
        'tr',
        { class: field.isWrong && 'is-wrong', tabindex: -1 },
        h('th', { scope: 'row' }, field.name),
        h('td', {}, field.value, ' ', note),
      );
      rows.push({ row, field });
      return row;
    });
    const size = h('small', {}, `${some(layer.end - layer.start, 'byte')}${isKernels ? ', made by the kernel' : ''}`);
    return h('table', { class: `is-${layer.kind}` }, h('caption', {}, layer.name, ' ', size), h('tbody', {}, ...lines));
  });
  if (rows[0]) rows[0].row.tabIndex = 0;

  const kinds = Array.from(bytes.subarray(0, MOST_SHOWN), (_, at) =>
    layers.findLast(({ start, end }) => start <= at && at < end),
  );
  // Fields side by side differ in shade.
  const shades = kinds.map(
    (layer, at) => (layer?.fields.findIndex(({ start, end }) => start <= at && at < end) ?? 0) % 2,
  );
  const cells = kinds.map((layer, at) =>
    h(
      'span',
      { class: `byte is-${layer?.kind ?? 'payload'}${shades[at] ? ' is-odd' : ''}` },
      hexOf(bytes.subarray(at, at + 1)),
    ),
  );
  const more = bytes.length - cells.length;

  const root = h(
    'article',
    { class: 'dissection' },
    h(
      'header',
      {},
      h('h3', {}, title),
      h('span', { class: 'size' }, some(bytes.length, 'byte')),
      h(
        'span',
        { class: 'actions' },
        button('Copy hex', () => void copy(hexOf(bytes), 'the bytes')),
        button('Save pcap', () => save(writePcap([{ seconds: 0, microseconds: 0, bytes }]), `${file}.pcap`)),
      ),
    ),
    h('div', { class: 'bytes', 'aria-label': 'Bytes', role: 'group' }, ...cells),
    more > 0 && h('p', { class: 'more' }, `and ${some(more, 'more byte')}`),
    h('div', { class: 'layers' }, ...tables),
  );
  light(root, rows, cells);
  rove(root, 'tbody tr');
  return root;
}

/** Hovering over, or focusing, a field lights its bytes up, and hovering over a byte its fields. */
function light(
  root: HTMLElement,
  rows: readonly { row: HTMLElement; field: Field }[],
  cells: readonly HTMLElement[],
): void {
  const mark = (isLit: (field: Field) => boolean) => {
    const lit = rows.filter(({ field }) => isLit(field));
    for (const { row } of rows)
      row.classList.toggle(
        'is-lit',
        lit.some((each) => each.row === row),
      );
    for (const [at, cell] of cells.entries())
      cell.classList.toggle(
        'is-lit',
        lit.some(({ field: { start, end } }) => start <= at && at < end),
      );
  };
  const enter = (target: EventTarget | null) => {
    const element = target instanceof Element ? target : undefined;
    const row = element?.closest('tr');
    const at = cells.indexOf(element?.closest('.byte') as HTMLElement);
    if (row) mark((field) => rows.find((each) => each.row === row)?.field === field);
    else mark(({ start, end }) => at >= 0 && start <= at && at < end);
  };
  root.addEventListener('mouseover', (event) => enter(event.target));
  root.addEventListener('mouseleave', () => mark(() => false));
  root.addEventListener('focusin', (event) => enter(event.target));
  root.addEventListener('focusout', () => mark(() => false));
}
