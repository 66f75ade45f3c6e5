/** What leaves the page: to the clipboard, or as a file. */
import { byId } from './dom.ts';

/** Says something to whoever looks or listens. */
export function say(text: string): void {
  const place = byId('said');
  place.textContent = text;
  place.classList.add('is-shown');
  clearTimeout(Number(place.dataset['timer']));
  place.dataset['timer'] = String(setTimeout(() => place.classList.remove('is-shown'), 4000));
}

/** Copies `text`, which is `what`. */
export async function copy(text: string, what: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
    say(`Copied ${what}.`);
  } catch {
    say(`The browser did not let the page copy ${what}.`);
  }
}

/** Lets the browser save a file. */
export function save(bytes: Uint8Array<ArrayBuffer>, name: string): void {
  const url = URL.createObjectURL(new Blob([bytes], { type: 'application/vnd.tcpdump.pcap' }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  // The browser reads it after this call.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  say(`Saved ${name}.`);
}
