/** Packets, as somebody uses the page in a real browser. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { describeInChromium } from './browser.ts';

const PACKET = '4500001400000000400125680a10205b0a102107';
/** As README.md's program prints it. */
const TUNNELLED = `4500002c00004000402f9911c0a81020c0a8102100000800${PACKET}`;

describeInChromium('packets', (open) => {
  test("encapsulates README.md's packet, byte for byte", async () => {
    const page = await open();
    await page.fill('#packet', '');
    await page.fill('#packet', '\t0x0000:  4500 0014 0000 0000 4001 2568 0a10 205b\n\t0x0010:  0a10 2107');
    expect(await page.textContent('#verdict')).toBe(
      'Forwarded to the VM 192.168.16.33, whose address the destination carries: 24 bytes of headers are put before it.',
    );
    const bytes = await page.locator('.dissection').nth(1).locator('.byte').allTextContents();
    expect(bytes.join('')).toBe(TUNNELLED);
    await page.locator('.dissection').nth(1).getByText('Copy hex').click();
    expect(await page.evaluate('navigator.clipboard.readText()')).toBe(TUNNELLED);
    expect(await page.textContent('#said')).toBe('Copied the bytes.');
  });

  test('decapsulates it again on the other VM', async () => {
    const page = await open();
    await page.fill('#local', '192.168.16.33');
    await page.check('#decapsulate');
    await page.fill('#packet', TUNNELLED);
    expect(await page.textContent('#verdict')).toContain(
      'from the VM 192.168.16.32: 24 bytes of headers are taken off',
    );
    expect((await page.locator('.dissection').nth(1).locator('.byte').allTextContents()).join('')).toBe(PACKET);
  });

  test.each([
    ['spoofed source', 'spoofed-source: inbound: the inner source does not live on the sending VM', 'NAT there'],
    ['another key', 'gre-key: inbound: the GRE key is missing, unexpected or different', 'give all VMs the same --key'],
    ['damaged', 'gre-checksum: inbound: the GRE checksum is wrong', 'damaged on its way'],
  ])('explains why a packet with %s is dropped', async (example, reason, hint) => {
    const page = await open({ hash: '#do=decapsulate' });
    await page.getByRole('button', { name: example, exact: true }).click();
    expect(await page.textContent('#verdict')).toContain(`Dropped ${reason}`);
    expect(await page.textContent('#verdict .hint')).toContain(hint);
  });

  test('a field and its bytes light each other up', async () => {
    const page = await open();
    const packet = page.locator('.dissection').nth(1);
    const row = packet.locator('tr', { hasText: '192.168.16.33' });
    const lit = async () => (await packet.locator('.byte.is-lit').allTextContents()).join('');
    await row.hover();
    expect(await lit()).toBe('c0a81021');
    await packet.locator('.byte').nth(20).hover();
    expect(await packet.locator('tr.is-lit th').allTextContents()).toEqual(['Flags']);
    await row.focus();
    await page.keyboard.press('ArrowUp');
    expect(await lit()).toBe('c0a81020');
  });

  test.each([
    ['TCP, nobody knows the size', 'it is a super-packet, which is cut into 5 packets.', 6],
    ['UDP, nobody knows the size', 'merged: inbound: the kernel merged packets of another VM (GRO)', 1],
  ])('is not told whether a packet was merged, as nobody is who reads a capture: %s', async (name, verdict, shown) => {
    const { config, vectors } = JSON.parse(readFileSync(new URL('../vectors/merged.json', import.meta.url), 'utf8'));
    const { input } = vectors.find((vector: { name: string }) => vector.name === name);
    const page = await open({ hash: `#do=decapsulate&vm=${config.local}&packet=${input}` });
    expect(await page.textContent('#verdict')).toContain(verdict);
    expect(await page.locator('.dissection').count()).toBe(shown);
  });

  test('refuses a text that no packet can need, and goes on with the next', async () => {
    const page = await open();
    await page.fill('#packet', ' '.repeat(1_048_577));
    expect(await page.textContent('#packet-error')).toContain('1048577 characters: no packet needs more');
    // As xxd pads what it prints, but more of it.
    await page.fill('#packet', `0000: 4500${' '.repeat(1_000_000)}`);
    expect(await page.textContent('#packet-error')).toBe('');
    expect(await page.textContent('#verdict')).toContain('truncated');
  });
});
