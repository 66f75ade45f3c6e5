/** Every host of examples/ whose toolchain is here makes the same of all golden packets and of 100,000 others, byte for byte. */
import { readFileSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import { launchChromium, missingChromium } from '../chromium.ts';
import { Missing, PATIENCE } from '../hosts/command.mjs';
import { conform } from '../hosts/conform.mjs';
import { prepare, weakness } from '../hosts/expected.mjs';
import { HOSTS } from '../hosts/hosts.mjs';
import { PageServer } from '../hosts/page-server.mjs';
import { skip } from '../net/require.ts';

const PACKETS = 100_000;
const expected = prepare({ seed: 1, packets: PACKETS });
afterAll(() => expected.close());

test('the corpus meets all drop reasons that a host can be told of', () => {
  expect(weakness(expected, PACKETS)).toBeUndefined();
});

// Those that take long, or are not to be had everywhere, `npm run conformance` runs.
const hosts = HOSTS.filter(({ isExtra }) => !isExtra).map((host) => [host.name, host] as const);

// A toolchain may have to be downloaded, and to build the host.
test.for(hosts)('%s conforms', { timeout: PATIENCE }, async ([name, { open }], { skip: leaveOut }) => {
  const host = await open().catch((error) => {
    if (!(error instanceof Missing)) throw error;
    skip(`test/heavy/hosts: ${name}`, error.message);
  });
  if (!host) return leaveOut();
  try {
    const { passed, digest, problems } = await conform(host, expected);
    expect(problems).toEqual([]);
    expect([passed, digest]).toEqual([expected.answers.length, expected.digest]);
  } finally {
    await host.close();
  }
});

describe.skipIf(skip('test/heavy/hosts: page', missingChromium()))('the page of examples/browser', () => {
  test('takes a pcap from its file input, and gives one to download', async () => {
    const server = new PageServer();
    const url = await server.listen();
    const browser = await launchChromium();
    try {
      const page = await browser.newPage();
      await Promise.race([page.goto(`${url}examples/browser/index.html`), server.missing]);
      await page.setInputFiles('#input', expected.pcaps['decapsulate']);
      await page.selectOption('#direction', 'decapsulate');
      await page.click('button');
      const downloads = Promise.all([page.waitForEvent('download'), page.click('#output a')]);
      const [download] = await Promise.race([downloads, server.missing]);
      expect(download.suggestedFilename()).toBe('out.pcap');
      const { pcap } = expected.outcomes['decapsulate'];
      expect(Buffer.compare(readFileSync(await download.path()), pcap)).toBe(0);
      expect(await page.textContent('#counters')).toMatch(/^received \d+\nforwarded \d+\ndropped as truncated: \d+\n/);

      await page.setInputFiles('#input', { name: 'x', mimeType: '', buffer: Buffer.from('no pcap') });
      await page.click('button');
      await page.waitForFunction(
        "document.querySelector('#counters').textContent.startsWith('x: the file ends in its header')",
      );
      expect(await page.$('#output a')).toBeNull();
    } finally {
      await browser.close();
      server.close();
    }
  });
});
