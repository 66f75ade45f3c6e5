/** A packet, what this VM's core makes of it, and why. */
import { ipv4Text } from '../../src/core/index.ts';
import type { Host } from '../host.ts';
import type { Example } from '../packet/examples.ts';
import { hexOf, readHex } from '../packet/hex.ts';
import { type Outcome, Vm } from '../packet/run.ts';
import type { State } from '../state.ts';
import { dissection } from './dissection.ts';
import { button, byId, complain, h, show } from './dom.ts';

export class PacketView {
  readonly #update: (change: Partial<State>) => void;
  /** What the field shows of the state: a packet may be written in many ways. */
  #packet: string | undefined;

  constructor(update: (change: Partial<State>) => void) {
    this.#update = update;
    for (const id of ['local', 'key', 'underlayMtu'] as const) {
      byId(id).addEventListener('input', (event) => update({ [id]: (event.target as HTMLInputElement).value }));
    }
    for (const id of ['checksum', 'sequence'] as const) {
      byId(id).addEventListener('change', (event) => update({ [id]: (event.target as HTMLInputElement).checked }));
    }
    for (const way of ['encapsulate', 'decapsulate'] as const)
      byId(way).addEventListener('change', () => update({ direction: way }));
    for (const format of ['gre', 'gre-udp'] as const)
      byId(format).addEventListener('change', () => update({ encapsulation: format }));
    byId('packet').addEventListener('input', () => this.#read());
  }

  /** What was typed or pasted becomes the state's, as soon as it can be read. */
  #read(): void {
    const reading = readHex(byId<HTMLTextAreaElement>('packet').value);
    const error = 'error' in reading ? reading.error : undefined;
    complain(byId('packet'), byId('packet-error'), error);
    byId('packet-remark').textContent = 'remark' in reading ? (reading.remark ?? '') : '';
    byId('outcome').classList.toggle('is-void', error !== undefined);
    if (!('bytes' in reading)) return;
    this.#packet = hexOf(reading.bytes);
    this.#update({ packet: this.#packet });
  }

  render(state: State, host: Host): void {
    for (const id of ['local', 'key', 'underlayMtu'] as const) show(byId<HTMLInputElement>(id), state[id]);
    for (const id of ['checksum', 'sequence'] as const) byId<HTMLInputElement>(id).checked = state[id];
    byId<HTMLInputElement>(state.direction).checked = true;
    byId<HTMLInputElement>(state.encapsulation).checked = true;
    for (const id of ['local', 'key', 'underlayMtu'] as const) complain(byId(id), byId(`${id}-error`), host.errors[id]);
    if (this.#packet !== state.packet) this.#write(state.packet);
    byId('examples').replaceChildren(...this.#examples(host.examples, state.direction));
    if (!host.config) {
      byId('verdict').replaceChildren(h('p', {}, 'There is no VM yet: prefixes, address or settings are wrong.'));
      byId('verdict').className = 'is-waiting';
      byId('packets').replaceChildren();
      return;
    }
    const bytes = Uint8Array.from(state.packet.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
    this.#outcome(state, bytes, new Vm(host.core, host.config).handle(state.direction, bytes, 1));
  }

  #write(packet: string): void {
    this.#packet = packet;
    const text = (packet.match(/.{1,4}/g) ?? []).join(' ');
    show(byId<HTMLTextAreaElement>('packet'), text);
    complain(byId('packet'), byId('packet-error'), undefined);
    byId('packet-remark').textContent = '';
    byId('outcome').classList.remove('is-void');
  }

  #examples(examples: readonly Example[], direction: State['direction']): HTMLElement[] {
    return examples
      .filter(({ way }) => way === direction)
      .map(({ name, make }) => button(name, () => this.#update({ packet: hexOf(make()) }), { class: 'chip' }));
  }

  #outcome(state: State, bytes: Uint8Array<ArrayBuffer>, outcome: Outcome): void {
    const isOut = state.direction === 'encapsulate';
    const { verdict, peer, messages, replies, byKernel } = outcome;
    const isForwarded = verdict.number === 0;
    const place = byId('verdict');
    place.className = isForwarded ? 'is-forwarded' : 'is-dropped';
    const headers = Math.abs((messages[0]?.length ?? 0) - bytes.length);
    const way = isOut
      ? `to the VM ${ipv4Text(peer ?? 0)}, whose address the destination carries: `
      : `to its container, from the VM ${ipv4Text(peer ?? 0)}: `;
    const several = isOut
      ? `in ${messages.length} fragments.`
      : `it is a super-packet, which is cut into ${messages.length} packets.`;
    const one = `${headers} bytes of headers are ${isOut ? 'put before it' : 'taken off'}.`;
    const sentence = isForwarded
      ? [way + (messages.length > 1 ? several : one)]
      : [h('code', {}, verdict.name), `: ${verdict.meaning}`];
    place.replaceChildren(
      h('p', {}, h('b', {}, isForwarded ? 'Forwarded' : 'Dropped'), ' ', ...sentence),
      ...(verdict.hint === undefined ? [] : [h('p', { class: 'hint' }, verdict.hint)]),
      ...(replies.length > 0 ? [h('p', { class: 'hint' }, 'The sender is told so by ICMP.')] : []),
    );
    const result = isOut ? 'Encapsulated' : 'Decapsulated';
    const numbered = (i: number) => (messages.length > 1 ? `${result}, part ${i + 1} of ${messages.length}` : result);
    byId('packets').replaceChildren(
      dissection({
        title: isOut ? "The container's packet" : "The underlay's packet",
        bytes,
        isOuter: !isOut,
        byKernel: 0,
        file: 'packet',
      }),
      ...messages.map((message, i) =>
        dissection({
          title: numbered(i),
          bytes: message,
          isOuter: isOut,
          byKernel,
          file: `${result.toLowerCase()}${messages.length > 1 ? `-${i + 1}` : ''}`,
        }),
      ),
      ...replies.map((reply) =>
        dissection({ title: 'Reply to the container', bytes: reply, isOuter: false, byKernel: 0, file: 'reply' }),
      ),
    );
    byId('packets').classList.toggle('is-single', messages.length + replies.length === 0);
  }
}
