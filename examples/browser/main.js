/** The packet core in a browser: a pcap from a file input through it, and what became of it as a download. */
import { createCore } from 'inlay/core';
import { forwarded, namedCounters } from '../javascript/forward.js';

const element = (/** @type {string} */ id) => /** @type {any} */ (document.getElementById(id));
const given = (/** @type {string} */ id) => element(id).value.trim();

async function go() {
  const file = element('input').files[0];
  const input = new Uint8Array(await file.arrayBuffer());
  const mesh = { local: given('local'), overlay: given('overlay'), underlay: given('underlay') };
  const { pcap, counters } = forwarded(await createCore(), given('direction'), mesh, input, file.name);
  element('output').replaceChildren(download('out.pcap', pcap));
  return namedCounters(counters);
}

/**
 * A link to a file that is in this page.
 * @param {string} name
 * @param {Uint8Array} bytes
 */
function download(name, bytes) {
  const link = document.createElement('a');
  link.download = link.textContent = name;
  link.href = URL.createObjectURL(new Blob([/** @type {BlobPart} */ (bytes)]));
  return link;
}

element('form').addEventListener('submit', async (/** @type {SubmitEvent} */ event) => {
  event.preventDefault();
  element('output').replaceChildren();
  element('counters').textContent = await go().catch((error) => error.message);
});
