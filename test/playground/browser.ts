/** A page of the playground in Chromium, which notes whatever goes wrong in it and whatever it asks for. */
import { type Browser, chromium, type Page } from 'playwright-core';
import { FileServer } from '../../src/commands/file-server.ts';
import { PLAYGROUND } from '../../src/installation.ts';

export interface Opened {
  page: Page;
  /** Errors, warnings and dialogs of the page. */
  troubles: string[];
  /** What it asked for elsewhere. */
  strangers: string[];
}

export class Playground {
  readonly #browser: Browser;
  readonly #server: FileServer;
  readonly url: string;

  private constructor(browser: Browser, server: FileServer) {
    this.#browser = browser;
    this.#server = server;
    this.url = server.url;
  }

  static async open(): Promise<Playground> {
    const server = await FileServer.open(PLAYGROUND, 0);
    // Root has no user namespace to put the browser into; it shows nothing but this page.
    const args = process.getuid?.() === 0 ? ['--no-sandbox'] : [];
    const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args });
    return new Playground(browser, server);
  }

  /** A page of its own with nothing in its memory, as soon as the core runs. */
  async page({ hash = '', width = 1280, dark = false } = {}): Promise<Opened> {
    const context = await this.#browser.newContext({
      viewport: { width, height: 900 },
      colorScheme: dark ? 'dark' : 'light',
      permissions: ['clipboard-read', 'clipboard-write'],
      acceptDownloads: true,
    });
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
      const isOwn = request.url().startsWith(this.url) || request.url().startsWith(`blob:${this.url}`);
      if (!isOwn) opened.strangers.push(request.url());
    });
    await page.goto(this.url + hash);
    await page.waitForSelector('html[data-ready]');
    return opened;
  }

  async close(): Promise<void> {
    await this.#browser.close();
    await this.#server.close();
  }
}
