/** A capture: each of its packets with its verdict, and what came of them as a capture again. */
import { type CoreConfig, ipv4Text, type PacketCore } from '../../src/core/index.ts';
import type { Host } from '../host.ts';
import { hexOf } from '../packet/hex.ts';
import { type Capture, type Captured, readPcap, writePcap } from '../packet/pcap.ts';
import { Replay } from '../packet/replay.ts';
import type { Outcome, Way } from '../packet/run.ts';
import type { State } from '../state.ts';
import { save, say } from './copy.ts';
import { button, byId, count, h, some } from './dom.ts';

const MOST_ROWS = 200;
/** Of a capture; what is made of it may be several times as much, and all of it is in the browser's memory. */
const MOST_BYTES = 64 << 20;
const MOST_PACKETS = 50_000;

interface Opened {
  name: string;
  capture: Capture;
  replay: Replay;
}

interface Settings {
  direction: Way;
  config: CoreConfig;
}

export class CaptureView {
  readonly #update: (change: Partial<State>) => void;
  readonly #makeCore: () => Promise<PacketCore>;
  /** It has a core of its own: other packets, too, are shown meanwhile. */
  #replay: Replay | undefined;
  #file: Opened | undefined;
  #settings: Settings | undefined;
  #key: string | undefined;

  constructor(makeCore: () => Promise<PacketCore>, update: (change: Partial<State>) => void) {
    this.#makeCore = makeCore;
    this.#update = update;
    const input = byId<HTMLInputElement>('pcap');
    input.addEventListener('change', () => {
      void this.#open(input.files?.[0]);
      input.value = '';
    });
    byId('open-pcap').addEventListener('click', () => input.click());
    byId('close-pcap').addEventListener('click', () => {
      this.#file = undefined;
      void this.#draw();
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
      const capture = readPcap(await file.arrayBuffer(), MOST_PACKETS);
      if (!this.#replay) {
        const core = await this.#makeCore();
        // Another file may have been faster.
        this.#replay ??= new Replay(core);
      }
      this.#file = { name: file.name, capture, replay: this.#replay };
      void this.#draw();
      byId('capture').scrollIntoView({ block: 'nearest' });
    } catch (error) {
      byId('pcap-error').textContent = `${file.name}: ${error instanceof Error ? error.message : error}`;
    }
  }

  /** What the panel shows follows from direction and configuration alone: other changes leave it as it is. */
  render({ direction }: State, { config }: Host): void {
    const key = JSON.stringify([direction, config]);
    if (key === this.#key) return;
    this.#key = key;
    this.#settings = config && { direction, config };
    void this.#draw();
  }

  async #draw(): Promise<void> {
    const file = this.#file;
    const settings = this.#settings;
    byId('capture').hidden = !file || !settings;
    this.#replay?.stop();
    if (!file || !settings) return;
    const { name, capture, replay } = file;
    const verdicts = new Map<string, number>();
    let made = 0;
    const rows = byId('capture-rows');
    rows.replaceChildren();
    byId('capture-save').replaceChildren();
    byId('capture-name').textContent = name;
    this.#say(capture, '…');
    const isWhole = await replay.run(settings.config, settings.direction, capture.packets, (outcome, packet, i) => {
      verdicts.set(outcome.verdict.name, (verdicts.get(outcome.verdict.name) ?? 0) + 1);
      made += outcome.messages.length + outcome.replies.length;
      if (i < MOST_ROWS) rows.append(this.#row(i, packet, outcome));
    });
    if (!isWhole) return;
    this.#say(capture, `${[...verdicts].map(([verdict, n]) => `${count(n)} ${verdict}`).join(', ') || 'none'}.`);
    const saving = button(`Save ${some(made, 'packet')} as pcap`, async () => {
      saving.disabled = true;
      await this.#save(file, settings);
      saving.disabled = false;
    });
    byId('capture-save').replaceChildren(saving);
  }

  #say({ packets, others, remark }: Capture, verdicts: string): void {
    const foreign = others > 0 ? `, and ${count(others)} that are not IPv4` : '';
    byId('capture-sum').textContent = [
      `${some(packets.length, 'packet')}${foreign}: ${verdicts}`,
      ...(remark === undefined ? [] : [`Beware: ${remark}.`]),
      ...(packets.length > MOST_ROWS ? [`The first ${MOST_ROWS} are shown.`] : []),
    ].join(' ');
  }

  /** Makes what comes of the packets once more: whoever looks at a capture seldom wants it, and it is long. */
  async #save({ name, capture, replay }: Opened, { direction, config }: Settings): Promise<void> {
    const made: Captured[] = [];
    const isWhole = await replay.run(config, direction, capture.packets, ({ messages, replies }, packet) => {
      const { seconds, microseconds } = packet;
      for (const bytes of [...messages, ...replies]) made.push({ seconds, microseconds, bytes });
    });
    if (isWhole) save(writePcap(made), `${name.replace(/\.p?cap$/i, '')}-${direction}d.pcap`);
    else say('Nothing was saved: the settings or the capture have changed.');
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
