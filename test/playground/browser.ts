/** A page of the playground in Chromium, which notes whatever goes wrong in it and whatever it asks for. */
import type { Browser, Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect } from 'vitest';
import { FileServer } from '../../src/commands/file-server.ts';
import { PLAYGROUND } from '../../src/installation.ts';
import { launchChromium, missingChromium } from '../chromium.ts';
import { skip } from '../net/require.ts';

/** Opens a page of its own with nothing in its memory, and comes back as soon as the core runs. */
export type Open = (options?: Options) => Promise<Page>;

interface Options {
  hash?: string;
  width?: number;
  dark?: boolean;
  /** JavaScript that runs before the page's own. */
  script?: string;
}

interface Opened {
  page: Page;
  /** Errors, warnings and dialogs of the page. */
  troubles: string[];
  /** What it asked for elsewhere. */
  strangers: string[];
}

/** A suite in a real browser. Whatever its tests do: there are no errors, and nothing is asked for elsewhere. */
export function describeInChromium(subject: string, tests: (open: Open) => void): void {
  describe.skipIf(skip(`${subject} in Chromium`, missingChromium()))(subject, () => {
    let playground: Playground;
    const opened: Opened[] = [];
    beforeAll(async () => {
      playground = await Playground.open();
    });
    afterAll(() => playground?.close());
    afterEach(async () => {
      const all = opened.splice(0);
      await Promise.all(all.map(({ page }) => page.context().close()));
      expect(all.flatMap(({ troubles, strangers }) => [...troubles, ...strangers])).toEqual([]);
    });
    tests(async (options) => {
      const one = await playground.page(options);
      opened.push(one);
      return one.page;
    });
  });
}

class Playground {
  readonly #browser: Browser;
  readonly #server: FileServer;
  readonly #url: string;

  private constructor(browser: Browser, server: FileServer) {
    this.#browser = browser;
    this.#server = server;
    this.#url = server.url;
  }

  static async open(): Promise<Playground> {
    const server = await FileServer.open(PLAYGROUND, 0);
    const browser = await launchChromium();
    return new Playground(browser, server);
  }

  async page({ hash = '', width = 1280, dark = false, script = '' }: Options = {}): Promise<Opened> {
    const context = await this.#browser.newContext({
      viewport: { width, height: 900 },
      colorScheme: dark ? 'dark' : 'light',
      permissions: ['clipboard-read', 'clipboard-write'],
      acceptDownloads: true,
    });
    await context.addInitScript(script);
    const page = await context.newPage();
    const opened: Opened = { page, troubles: [], strangers: [] };
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) opened.troubles.push(message.text());
    });
    page.on('pageerror', (error) => opened.troubles.push(error.message));
    page.on('dialog', (dialog) => {
      opened.troubles.push(`dialog: ${dialog.message()}`);
      void dialog.dismiss();
    });
    page.on('request', (request) => {
      const isOwn = request.url().startsWith(this.#url) || request.url().startsWith(`blob:${this.#url}`);
      if (!isOwn) opened.strangers.push(request.url());
    });
    await page.goto(this.#url + hash);
    await page.waitForSelector('html[data-ready]');
    return opened;
  }

  async close(): Promise<void> {
    await this.#browser.close();
    await this.#server.close();
  }
}
