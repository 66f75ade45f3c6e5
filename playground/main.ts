/** The playground: one state, from which everything on the page follows. */
import { createCore, hasSimd } from '../src/core/index.ts';
import { formatAddress } from '../src/mesh/address.ts';
import { Carry } from './carry.ts';
import { hostOf } from './host.ts';
import { meshOf } from './mesh.ts';
import { AddressView } from './page/address.ts';
import { CaptureView } from './page/capture.ts';
import { copy, say } from './page/copy.ts';
import { byId } from './page/dom.ts';
import { PacketView } from './page/packet.ts';
import { PrefixesView } from './page/prefixes.ts';
import { startTheme } from './page/theme.ts';
import { fromLink, type State, toLink } from './state.ts';

/** Browsers take few changes of the address at once. */
const LINK_DELAY = 150; // ms

startTheme();
start().catch((error: unknown) => {
  byId('trouble').textContent = `The packet core did not start: ${error instanceof Error ? error.message : error}`;
});

async function start(): Promise<void> {
  // What this very package ships: the module that VMs run.
  const name = hasSimd() ? 'core.wasm' : 'core-scalar.wasm';
  const makeCore = () => createCore(new URL(name, import.meta.url));
  const core = await makeCore();
  byId('module').textContent = name;

  let state = restore();
  let linkTimer: ReturnType<typeof setTimeout> | undefined;
  const carry = new Carry();
  const packet = new PacketView(update);
  const capture = new CaptureView(makeCore, update);
  const prefixes = new PrefixesView(update);
  const address = new AddressView(update);

  function update(change: Partial<State>): void {
    const isMeant = 'address' in change || 'packet' in change;
    state = { ...state, ...change };
    if (!isMeant) state = carried(state);
    clearTimeout(linkTimer);
    linkTimer = setTimeout(writeLink, LINK_DELAY);
    render(isMeant);
  }

  /** The same container and the same example, after other settings changed. */
  function carried(changed: State): State {
    const mesh = meshOf(changed);
    if ('error' in mesh) return changed;
    const place = carry.address(mesh.value);
    const example = carry.packet(hostOf(changed, mesh, core), changed.direction);
    return { ...changed, ...(place && { address: formatAddress(place) }), ...(example && { packet: example }) };
  }

  /** `isMeant`: what is shown is what somebody wants to see, whatever the settings become. */
  function render(isMeant: boolean): void {
    const mesh = meshOf(state);
    const host = hostOf(state, mesh, core);
    if (isMeant) carry.note(state, mesh, host);
    prefixes.render(state, mesh);
    address.render(state, mesh);
    packet.render(state, host);
    capture.render(state, host);
  }

  /** The address of the page restores it. */
  function writeLink(): string {
    clearTimeout(linkTimer);
    const link = toLink(state);
    history.replaceState(null, '', link === '' ? location.pathname : `#${link}`);
    return location.href;
  }

  byId('link').addEventListener('click', () => void copy(writeLink(), 'the link'));
  byId('reset').addEventListener('click', () => {
    state = fromLink('').state;
    writeLink();
    render(true);
  });
  addEventListener('hashchange', () => {
    state = restore();
    render(true);
  });
  render(true);
  document.documentElement.dataset['ready'] = 'true';
}

/** The state of the page's address. */
function restore(): State {
  const { state, refused } = fromLink(location.hash.slice(1));
  if (refused.length > 0) say(`The link is damaged (${refused.join(', ')}): the usual values stand in.`);
  return state;
}
