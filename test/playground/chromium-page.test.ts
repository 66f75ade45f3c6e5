/** The page as a whole, in a real browser: links, keyboard, widths, colours, and the module that it runs. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { bytesOf, hexOf } from '../../playground/packet/hex.ts';
import { writePcap } from '../../playground/packet/pcap.ts';
import { describeInChromium } from './browser.ts';

const PACKET = '4500001400000000400125680a10205b0a102107';

describeInChromium('the page', (open) => {
  test('the link restores everything', async () => {
    const page = await open();
    await page.fill('#overlay', '240.0.0.0/4');
    await page.fill('#address', '241.2.0.92');
    await page.check('#gre-udp');
    await page.fill('#key', '77');
    await page.check('#checksum');
    await page.getByRole('button', { name: 'ping', exact: true }).click();
    const shown = async (where: typeof page) => [
      await where.textContent('main'),
      await where.inputValue('#packet'),
      await where.inputValue('#key'),
    ];
    const before = await shown(page);
    await page.click('#link');
    expect(await page.textContent('#said')).toBe('Copied the link.');
    const link = String(await page.evaluate('navigator.clipboard.readText()'));
    const other = await open({ hash: new URL(link).hash });
    expect(await shown(other)).toEqual(before);
    await other.reload();
    await other.waitForSelector('html[data-ready]');
    expect(await shown(other)).toEqual(before);
    await other.click('#reset');
    expect([await other.inputValue('#overlay'), new URL(other.url()).hash]).toEqual(['10.0.0.0/8', '']);
  });

  test.each([
    [
      'markup',
      '#overlay=<img src=x onerror=alert(1)>&address="><script>alert(2)</script>&packet=<svg/onload=alert(3)>',
    ],
    ['the same, escaped', '#overlay=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E&packet=%3Csvg%2Fonload%3Dalert(3)%3E'],
    ['names of other things', '#__proto__=1&constructor=2&address=__proto__&vm=javascript:alert(1)&do=toString'],
    ['numbers beyond all', '#overlay=999.999.999.999/99&underlay=0.0.0.0/0&mtu=99999&key=9999999999'],
    ['broken escapes', '#%&%ff&packet=%'],
    ['a long packet', `#packet=${'ff'.repeat(65_535)}`],
    ['a packet of zeros', `#do=decapsulate&packet=${'00'.repeat(3000)}`],
  ])('%s in a link does no harm', async (_, hash) => {
    const page = await open({ hash });
    expect(await page.locator('main img, main script, main svg:not(#ribbon)').count()).toBe(0);
    await page.click('#reset');
    expect(await page.textContent('#verdict')).toContain('Forwarded to the VM 192.168.16.33');
  });

  test('works without a mouse', async () => {
    const page = await open();
    const focused = () =>
      page.evaluate('document.activeElement.id || document.activeElement.textContent') as Promise<string>;
    const to = async (id: string) => {
      for (let i = 0; i < 60 && (await focused()) !== id; i++) await page.keyboard.press('Tab');
      expect(await focused()).toBe(id);
      // What has the focus shows it.
      expect(await page.evaluate('getComputedStyle(document.activeElement).outlineStyle')).not.toBe('none');
    };
    await page.keyboard.press('Tab');
    expect(await focused()).toBe('To the packet');
    await to('underlay-length');
    await page.keyboard.press('ArrowRight');
    expect(await page.inputValue('#underlay')).toBe('192.168.0.0/17');
    await to('address');
    await page.keyboard.press('Tab');
    for (let i = 0; i < 31; i++) await page.keyboard.press('ArrowRight');
    await page.keyboard.press('Space');
    // The last bit of 10.32.64.91, container 90 of the same VM.
    expect(await page.inputValue('#address')).toBe('10.32.64.90');
    await page.keyboard.press('Space');
    expect(await page.inputValue('#address')).toBe('10.32.64.91');
    await page.keyboard.press('Tab');
    await page.keyboard.press('ArrowRight');
    expect(await page.isChecked('#decapsulate')).toBe(true);
    expect(await page.textContent('#verdict')).toContain('Forwarded to its container, from the VM 192.168.16.33');
  });

  test.each([360, 320, 768])('fits a width of %i without scrolling sideways', async (width) => {
    const page = await open({ width, hash: `#as=gre-udp&key=4294967295&checksum=1&sequence=1` });
    const fits = async () =>
      expect(await page.evaluate('document.documentElement.scrollWidth')).toBeLessThanOrEqual(width);
    await fits();
    const capture = writePcap([{ seconds: 1, microseconds: 0, bytes: bytesOf(PACKET) }]);
    await page.setInputFiles('#pcap', {
      name: `${'long'.repeat(30)}.pcap`,
      mimeType: '',
      buffer: Buffer.from(capture),
    });
    await page.waitForSelector('#capture');
    await page.click('summary');
    await fits();
    await page.fill('#underlay', '10.20.0.0/20');
    await fits();
    await page.click('#reset');
    await page.getByRole('button', { name: 'too big' }).click();
    await fits();
  });

  test('is light or dark as the system is, or as the button says, which it remembers', async () => {
    const ground = (page: Awaited<ReturnType<typeof open>>) =>
      page.evaluate('getComputedStyle(document.body).backgroundColor');
    const [light, dark] = [await open(), await open({ dark: true })];
    expect([await ground(light), await ground(dark)]).toEqual(['rgb(246, 247, 249)', 'rgb(16, 20, 24)']);
    await light.click('#theme');
    expect(await ground(light)).toBe('rgb(16, 20, 24)');
    await light.reload();
    await light.waitForSelector('html[data-ready]');
    expect(await ground(light)).toBe('rgb(16, 20, 24)');
    expect(await light.getAttribute('#theme', 'aria-label')).toBe('Use light colours');
  });

  test('each field has a name, and each name its field', async () => {
    const page = await open();
    const nameless = await page.evaluate(`Array.from(document.querySelectorAll('input, select, textarea, button'))
      .filter((each) => !(each.labels?.length || each.getAttribute('aria-label') || each.textContent.trim()))
      .map((each) => each.outerHTML)`);
    expect(nameless).toEqual([]);
    const ids =
      await page.evaluate(`Array.from(document.querySelectorAll('[aria-describedby], [aria-labelledby], label[for]'))
      .flatMap((each) => ['aria-describedby', 'aria-labelledby', 'for'].flatMap((name) => (each.getAttribute(name) ?? '').split(' ')))
      .filter((id) => id !== '' && !document.getElementById(id))`);
    expect(ids).toEqual([]);
    expect(await page.locator('h1').count()).toBe(1);
  });

  test.each([
    ['core.wasm', ''],
    // Where an engine has no SIMD, no module with it is valid.
    ['core-scalar.wasm', 'WebAssembly.validate = () => false;'],
  ])('the module is one that VMs run: %s', async (name, script) => {
    const page = await open({ script });
    expect(await page.textContent('#module')).toBe(name);
    expect(await page.textContent('#verdict')).toContain('Forwarded to the VM 192.168.16.33');
    expect((await page.locator('.dissection').nth(1).locator('.byte').allTextContents()).join('')).toBe(
      `4500002c00004000402f9911c0a81020c0a8102100000800${PACKET}`,
    );
    // It asked for no other.
    const asked = await page.evaluate(
      `performance.getEntriesByType('resource').map((each) => each.name).filter((each) => each.endsWith('.wasm'))`,
    );
    expect(asked).toEqual([expect.stringMatching(`/${name}$`)]);
    const served = await page.evaluate(
      `fetch('${name}').then((answer) => answer.arrayBuffer()).then((bytes) => Array.from(new Uint8Array(bytes)))`,
    );
    expect(hexOf(Uint8Array.from(served as number[]))).toBe(
      readFileSync(new URL(`../../build/${name}`, import.meta.url)).toString('hex'),
    );
  });
});
