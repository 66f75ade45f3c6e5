/** Prefixes and addresses, as somebody uses the page in a real browser. */
import { expect, test } from 'vitest';
import { describeInChromium } from './browser.ts';

describeInChromium('prefixes and addresses', (open) => {
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
});
