/** A capture: each of its packets with its verdict, and what came of them as a capture again. */
import { ipv4Text } from '../../src/core/index.ts';
import type { Host } from '../host.ts';
import { hexOf } from '../packet/hex.ts';
import { type Capture, type Captured, readPcap, writePcap } from '../packet/pcap.ts';
import { type Outcome, Vm } from '../packet/run.ts';
import type { State } from '../state.ts';
import { save } from './copy.ts';
import { button, byId, count, h } from './dom.ts';

const MOST_ROWS = 200;
/** Bytes; a page that hangs is no use. */
const MOST_BYTES = 64 << 20;

export class CaptureView {
  readonly #update: (change: Partial<State>) => void;
  #file: { name: string; capture: Capture } | undefined;
  #redraw: () => void = () => {};

  constructor(update: (change: Partial<State>) => void) {
    this.#update = update;
    const input = byId<HTMLInputElement>('pcap');
    input.addEventListener('change', () => {
      void this.#open(input.files?.[0]);
      input.value = '';
    });
    byId('open-pcap').addEventListener('click', () => input.click());
    byId('close-pcap').addEventListener('click', () => {
      this.#file = undefined;
      this.#redraw();
      byId('open-pcap').focus();
    });
    for (const type of ['dragover', 'dragleave', 'drop']) {
      document.addEventListener(type, (event) => {
        event.preventDefault();
        document.body.classList.toggle('is-dropping', type === 'dragover');
        if (type === 'drop') void this.#open((event as DragEvent).dataTransfer?.files[0]);
      });
    }
  }

  async #open(file: File | undefined): Promise<void> {
    if (!file) return;
    byId('pcap-error').textContent = '';
    try {
      if (file.size > MOST_BYTES)
        throw new RangeError(`${count(file.size)} bytes: expected at most ${count(MOST_BYTES)}`);
      this.#file = { name: file.name, capture: readPcap(await file.arrayBuffer()) };
    } catch (error) {
      byId('pcap-error').textContent = `${file.name}: ${error instanceof Error ? error.message : error}`;
    }
    this.#redraw();
    if (this.#file) byId('capture').scrollIntoView({ block: 'nearest' });
  }

  render(state: State, host: Host): void {
    this.#redraw = () => this.#draw(state, host);
    this.#draw(state, host);
  }

  #draw({ direction }: State, { core, config }: Host): void {
    byId('capture').hidden = !this.#file || !config;
    if (!this.#file || !config) return;
    const { name, capture } = this.#file;
    const vm = new Vm(core, config);
    const verdicts = new Map<string, number>();
    const made: Captured[] = [];
    const rows: HTMLElement[] = [];
    for (const [i, packet] of capture.packets.entries()) {
      const outcome = vm.handle(direction, packet.bytes, packet.seconds * 1000 + packet.microseconds / 1000);
      verdicts.set(outcome.verdict.name, (verdicts.get(outcome.verdict.name) ?? 0) + 1);
      for (const bytes of [...outcome.messages, ...outcome.replies]) made.push({ ...packet, bytes });
      if (i < MOST_ROWS) rows.push(this.#row(i, packet, outcome));
    }
    const total = capture.packets.length;
    const others = capture.others > 0 ? `, and ${count(capture.others)} that are not IPv4` : '';
    byId('capture-name').textContent = name;
    byId('capture-sum').textContent = [
      `${count(total)} ${total === 1 ? 'packet' : 'packets'}${others}: ${[...verdicts].map(([verdict, n]) => `${count(n)} ${verdict}`).join(', ') || 'none'}.`,
      ...(capture.remark === undefined ? [] : [`Beware: ${capture.remark}.`]),
      ...(total > MOST_ROWS ? [`The first ${MOST_ROWS} are shown.`] : []),
    ].join(' ');
    byId('capture-rows').replaceChildren(...rows);
    const file = `${name.replace(/\.p?cap$/i, '')}-${direction}d.pcap`;
    byId('capture-save').replaceChildren(
      button(`Save ${count(made.length)} ${made.length === 1 ? 'packet' : 'packets'} as pcap`, () =>
        save(writePcap(made), file),
      ),
    );
  }

  #row(i: number, { bytes }: Captured, { verdict }: Outcome): HTMLElement {
    const view = new DataView(bytes.buffer);
    const [from, to] = bytes.length >= 20 ? [ipv4Text(view.getUint32(12)), ipv4Text(view.getUint32(16))] : ['', ''];
    const look = button(
      String(i + 1),
      () => {
        this.#update({ packet: hexOf(bytes) });
        byId('verdict').scrollIntoView({ block: 'center' });
      },
      { 'aria-label': `Look at packet ${i + 1}`, class: 'chip' },
    );
    return h(
      'tr',
      {},
      h('td', {}, look),
      h('td', {}, `${from} → ${to}`),
      h('td', { class: 'is-number' }, count(bytes.length)),
      h('td', { class: verdict.number === 0 ? 'is-forwarded' : 'is-dropped', title: verdict.meaning }, verdict.name),
    );
  }
}
