/** The page as somebody uses it, in a real browser. */
import { readFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { bytesOf, hexOf } from '../../playground/packet/hex.ts';
import { readPcap, writePcap } from '../../playground/packet/pcap.ts';
import { missingCommands, skip } from '../net/require.ts';
import { packetOf } from '../packet.ts';
import { type Opened, Playground } from './browser.ts';

const PACKET = '4500001400000000400125680a10205b0a102107';
/** As README.md's program prints it. */
const TUNNELLED = `4500002c00004000402f9911c0a81020c0a8102100000800${PACKET}`;

describe.skipIf(skip('playground in Chromium', missingCommands('chromium')))('the playground', () => {
  let playground: Playground;
  const opened: Opened[] = [];
  const open = async (options: Parameters<Playground['page']>[0] = {}) => {
    const one = await playground.page(options);
    opened.push(one);
    return one.page;
  };

  beforeAll(async () => {
    playground = await Playground.open();
  });
  afterAll(() => playground?.close());
  // Whatever a test does: no errors, and nothing is asked for elsewhere.
  afterEach(async () => {
    const all = opened.splice(0);
    await Promise.all(all.map(({ page }) => page.context().close()));
    expect(all.flatMap(({ troubles, strangers }) => [...troubles, ...strangers])).toEqual([]);
  });

  test('shows the bits of an address, and whose it is', async () => {
    const page = await open();
    await page.fill('#address', '10.16.33.7');
    expect(await page.textContent('#meaning')).toBe('10.16.33.7 is container 6 on the VM 192.168.16.33.');
    expect(await page.locator('#facts dd').allTextContents()).toEqual(['192.168.16.33', '10.16.33.0/24', '7']);
    const bits = (row: string, kind = '') => page.locator(`#${row}-bits .bit${kind}`).allTextContents();
    expect((await bits('overlay')).join('')).toBe('00001010' + '00010000' + '00100001' + '00000111');
    expect((await bits('underlay', '.is-vm')).join('')).toBe((await bits('overlay', '.is-vm')).join(''));
    expect(await page.locator('#ribbon line').count()).toBe(16);
    expect(await page.textContent('#copied')).toBe('16 bits copied');
  });

  test.each([
    ['192.168.16.32', '192.168.16.32 is a VM, whose own overlay address is 10.16.32.1.'],
    ['10.16.32.1', '10.16.32.1 is the VM 192.168.16.32 itself.'],
    ['10.16.32.0', '10.16.32.0 is the slice of the VM 192.168.16.32 itself: nobody has this address.'],
    ['10.16.32.255', '10.16.32.255 is the last address of its slice, which is kept free: nobody has it.'],
    ['8.8.8.8', '8.8.8.8 is in none of 10.0.0.0/8, 192.168.0.0/16'],
    [
      '10.0.0.5',
      'nobody can have 10.0.0.5: its VM would be 192.168.0.0, but that is the network address of 192.168.0.0/16',
    ],
  ])('says of %s what inlay explain says', async (address, meaning) => {
    const page = await open();
    await page.fill('#address', address);
    expect(await page.textContent('#meaning')).toBe(meaning);
  });

  test('a click on a bit flips it', async () => {
    const page = await open();
    await page.locator('#overlay-bits button').nth(31).click();
    expect(await page.inputValue('#address')).toBe('10.16.32.90');
  });

  test('a slider moves the prefix, capacity and warnings follow, and the address stays the same container', async () => {
    const page = await open();
    expect(await page.textContent('#warnings')).toContain(
      '256 addresses per VM; 8192 take 13 container bits: an underlay prefix of /21',
    );
    await page.fill('#overlay', '240.0.0.0/4');
    await page.locator('#underlay-length').press('ArrowRight');
    expect(await page.inputValue('#underlay')).toBe('192.168.0.0/17');
    expect(await page.locator('#capacity dd').allTextContents()).toEqual(['32,766', '8,189', '/19']);
    expect(await page.textContent('#warnings')).toContain('240.0.0.0/4 is class E');
    expect(await page.inputValue('#address')).toBe('242.4.0.91');
    expect(await page.textContent('#verdict')).toContain('Forwarded to the VM 192.168.16.33');
    // There and back again: no bits of the prefix are lost.
    await page.locator('#underlay-length').press('Home');
    for (let length = 1; length < 16; length++) await page.locator('#underlay-length').press('ArrowRight');
    expect(await page.inputValue('#underlay')).toBe('192.168.0.0/16');
  });

  test('prefixes that make no mesh are refused with the reason, and others are a click away', async () => {
    const page = await open();
    await page.fill('#underlay', '10.20.0.0/20');
    expect(await page.textContent('#warnings')).toContain('overlay 10.0.0.0/8 and underlay 10.20.0.0/20 overlap');
    await page.locator('#warnings button', { hasText: '240.0.0.0/4' }).click();
    expect([await page.inputValue('#overlay'), await page.textContent('#containers')]).toEqual([
      '240.0.0.0/4',
      '65,533',
    ]);
    await page.fill('#overlay', '10.0.0.0/33');
    expect(await page.locator('#capacity dd').allTextContents()).toEqual(['–', '–', '–']);
    expect(await page.textContent('#overlay-error')).toBe(
      'overlay "10.0.0.0/33": expected an IPv4 prefix such as 10.0.0.0/8',
    );
    expect(await page.getAttribute('#overlay', 'aria-invalid')).toBe('true');
  });

  test('finds prefixes with room for so many', async () => {
    const page = await open();
    await page.click('summary');
    await page.fill('#wanted-containers', '4000');
    await page.locator('#proposals button').first().click();
    expect(Number((await page.textContent('#containers'))?.replace(',', ''))).toBeGreaterThanOrEqual(4000);
  });

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

  test('opens a capture, says what becomes of each packet, and saves the result', async () => {
    const page = await open();
    const [good, bad] = [packetOf({}), packetOf({ destination: 0x0b000001 })];
    const capture = writePcap([good, bad, good].map((bytes, i) => ({ seconds: 100 + i, microseconds: 5, bytes })));
    await page.setInputFiles('#pcap', {
      name: 'a<b>.pcap',
      mimeType: 'application/octet-stream',
      buffer: Buffer.from(capture),
    });
    expect(await page.textContent('#capture-name')).toBe('a<b>.pcap');
    expect(await page.textContent('#capture-sum')).toBe('3 packets: 2 forward, 1 no-mapping.');
    expect(await page.locator('#capture-rows td:last-child').allTextContents()).toEqual([
      'forward',
      'no-mapping',
      'forward',
    ]);
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#capture-save button')]);
    const saved = readPcap(Uint8Array.from(readFileSync(await download.path())).buffer);
    const sizes = saved.packets.map(({ seconds, bytes }) => [seconds, bytes.length]);
    expect(sizes).toEqual([
      [100, good.length + 24],
      [101, bad.length + 28],
      [102, good.length + 24],
    ]);
    await page.getByRole('button', { name: 'Look at packet 2' }).click();
    expect(await page.textContent('#verdict')).toContain('no-mapping');
    await page.click('#close-pcap');
    expect(await page.isVisible('#capture')).toBe(false);
  });

  test('a capture may be dropped anywhere; what is none is refused with the reason', async () => {
    const page = await open();
    const drop = (name: string, bytes: Uint8Array) =>
      page.evaluate(`{
        const data = new DataTransfer();
        data.items.add(new File([Uint8Array.of(${[...bytes].join()})], ${JSON.stringify(name)}));
        document.body.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }));
      }`);
    await drop('a.pcap', writePcap([{ seconds: 1, microseconds: 0, bytes: bytesOf(PACKET) }]));
    await expect.poll(() => page.textContent('#capture-sum')).toBe('1 packet: 1 forward.');
    await drop('b.txt', new Uint8Array(30));
    await expect
      .poll(() => page.textContent('#pcap-error'))
      .toBe('b.txt: this is no pcap file: it does not begin with a1b2c3d4 or a1b23c4d');
  });

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
    const ground = (page: Opened['page']) => page.evaluate('getComputedStyle(document.body).backgroundColor');
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

  test('the module is the one that VMs run', async () => {
    const page = await open();
    expect(await page.textContent('#module')).toBe('core.wasm');
    const served = await page.evaluate(
      `fetch('core.wasm').then((answer) => answer.arrayBuffer()).then((bytes) => Array.from(new Uint8Array(bytes)))`,
    );
    expect(hexOf(Uint8Array.from(served as number[]))).toBe(
      readFileSync(new URL('../../build/core.wasm', import.meta.url)).toString('hex'),
    );
  });
});
