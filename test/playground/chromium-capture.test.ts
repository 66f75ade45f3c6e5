/** Captures, as somebody uses the page in a real browser. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { bytesOf } from '../../playground/packet/hex.ts';
import { readPcap, writePcap } from '../../playground/packet/pcap.ts';
import { packetOf } from '../packet.ts';
import { describeInChromium } from './browser.ts';

const PACKET = '4500001400000000400125680a10205b0a102107';

/** A capture with as many packets, each to the same container. */
const fileOf = (packets: number) => {
  const all = Array.from({ length: packets }, (_, i) => ({ seconds: i, microseconds: 0, bytes: bytesOf(PACKET) }));
  return { name: 'long.pcap', mimeType: '', buffer: Buffer.from(writePcap(all)) };
};

describeInChromium('captures', (open) => {
  test('opens a capture, says what becomes of each packet, and saves the result', async () => {
    const page = await open();
    const [good, bad] = [packetOf({}), packetOf({ destination: 0x0b000001 })];
    const capture = writePcap([good, bad, good].map((bytes, i) => ({ seconds: 100 + i, microseconds: 5, bytes })));
    await page.setInputFiles('#pcap', {
      name: 'a<b>.pcap',
      mimeType: 'application/octet-stream',
      buffer: Buffer.from(capture),
    });
    await expect.poll(() => page.textContent('#capture-sum')).toBe('3 packets: 2 forward, 1 no-mapping.');
    expect(await page.textContent('#capture-name')).toBe('a<b>.pcap');
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

  test('of a long capture the first packets are read, and the page says so', async () => {
    const page = await open();
    await page.setInputFiles('#pcap', fileOf(50_001));
    await expect
      .poll(() => page.textContent('#capture-sum'))
      .toBe(
        '50,000 packets: 50,000 forward. Beware: the file has more packets, which were not read. The first 200 are shown.',
      );
    expect(await page.locator('#capture-rows tr').count()).toBe(200);
  });

  test('what is typed meanwhile is shown at once, and of several changes the last one counts', async () => {
    const page = await open();
    await page.setInputFiles('#pcap', fileOf(50_000));
    await page.waitForSelector('#capture-rows tr');
    // One step after the other, each in the middle of what the one before began.
    const seen = await page.evaluate(`(async () => {
      const sums = [];
      for (const key of ['1', '2', '']) {
        const field = document.querySelector('#key');
        field.value = key;
        field.dispatchEvent(new Event('input', { bubbles: true }));
        await new Promise((resolve) => setTimeout(resolve));
        sums.push(document.querySelector('#capture-sum').textContent);
      }
      return sums;
    })()`);
    const unfinished = '50,000 packets: … The first 200 are shown.';
    expect(seen).toEqual([unfinished, unfinished, unfinished]);
    await expect
      .poll(() => page.textContent('#capture-sum'))
      .toBe('50,000 packets: 50,000 forward. The first 200 are shown.');
    expect(await page.locator('#capture-rows tr').count()).toBe(200);
    expect(await page.textContent('#capture-save')).toBe('Save 50,000 packets as pcap');
  });

  test('it is handled again only if what comes of it may be another', async () => {
    const page = await open();
    await page.setInputFiles('#pcap', fileOf(3));
    await expect.poll(() => page.textContent('#capture-sum')).toBe('3 packets: 3 forward.');
    const mark = () => page.evaluate(`document.querySelector('#capture-rows tr').id = 'kept'`);
    const isKept = async () => (await page.locator('#kept').count()) === 1;
    await mark();
    await page.fill('#address', '10.16.33.7');
    await page.getByRole('button', { name: 'ping', exact: true }).click();
    await page.getByRole('button', { name: 'Look at packet 2' }).click();
    expect(await isKept()).toBe(true);
    for (const change of [
      () => page.check('#decapsulate'),
      () => page.check('#encapsulate'),
      () => page.fill('#key', '7'),
      () => page.fill('#overlay', '10.16.0.0/12'),
      () => page.fill('#local', '192.168.16.40'),
    ]) {
      await mark();
      await change();
      await expect.poll(isKept).toBe(false);
    }
    // Without a VM there is nothing to show, and with the same one as before there is again.
    await page.fill('#local', 'nobody');
    expect(await page.isVisible('#capture')).toBe(false);
    await page.fill('#local', '192.168.16.40');
    await expect.poll(() => page.isVisible('#capture')).toBe(true);
  });

  test('whoever changes a setting while it is saved is told that nothing was', async () => {
    const page = await open();
    await page.setInputFiles('#pcap', fileOf(20_000));
    await page.waitForSelector('#capture-save button');
    await page.evaluate(`{
      document.querySelector('#capture-save button').click();
      const field = document.querySelector('#key');
      field.value = '9';
      field.dispatchEvent(new Event('input', { bubbles: true }));
    }`);
    await expect
      .poll(() => page.textContent('#said'))
      .toBe('Nothing was saved: the settings or the capture have changed.');
    // With the key it is made, and saved, anew.
    await page.waitForSelector('#capture-save button');
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#capture-save button')]);
    const { packets } = readPcap(Uint8Array.from(readFileSync(await download.path())).buffer);
    expect([packets.length, packets[0]?.bytes.length]).toEqual([20_000, 28 + 20]);
  });
});
