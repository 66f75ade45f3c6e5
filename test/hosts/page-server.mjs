/** The loopback server of page.html: files of the repository, and the modes that the page is to run. */
import { readFile, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import path from 'node:path';
import { ROOT } from './command.mjs';

/** What pages may load of the repository. */
const SERVED = ['build', 'dist/core', 'examples/browser', 'examples/javascript', 'test/hosts'];
const TYPES = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.mjs': 'text/javascript',
  '.wasm': 'application/wasm',
};
/** Hands the page what it is to run, and the files of that; nobody else, and nothing else. */
export class PageServer {
  #server = createServer((request, response) => {
    this.#answer(request, response).catch((error) => {
      response.writeHead(500).end(error.message);
    });
  });
  /** The words of the mode that runs, who waits for its end, and the page's question for the next one. */
  #words = [];
  #finish = () => {};
  #question = null;
  #hear = () => {};
  #miss = () => {};
  /** Until the page has asked for the first time. */
  asked = new Promise((resolve) => {
    this.#hear = resolve;
  });
  /** Fails as soon as a page asks for a file that is not there, and says for which. */
  missing = new Promise((_, reject) => {
    this.#miss = reject;
  });

  constructor() {
    // Nobody has to wait for it.
    this.missing.catch(() => {});
  }

  /** Resolves to its address. */
  async listen() {
    await new Promise((resolve) => this.#server.listen(0, '127.0.0.1', resolve));
    return `http://127.0.0.1:${this.#server.address().port}/`;
  }

  close() {
    this.#server.close();
    this.#server.closeAllConnections();
  }

  /** Has the page run these words; one mode at a time. */
  run(words) {
    return new Promise((resolve) => {
      this.#words = words;
      this.#finish = resolve;
      this.#tell();
    });
  }

  #tell() {
    if (this.#question === null || this.#words.length === 0) return;
    this.#question.setHeader('content-type', 'application/json').end(JSON.stringify(this.#words));
    this.#question = null;
  }

  async #answer(request, response) {
    const { pathname } = new URL(request.url, 'http://127.0.0.1');
    const body = request.method === 'POST' ? await bodyOf(request) : undefined;
    if (pathname === '/next') {
      this.#question = response;
      this.#hear();
      this.#tell();
    } else if (pathname === '/result') {
      this.#words = [];
      response.end();
      this.#finish(JSON.parse(body.toString()));
    } else if (pathname.startsWith('/word/')) {
      // A file that the words name, by the number of its word.
      const file = this.#words[Number(pathname.slice(6))];
      if (body) await writeFile(file, body);
      response.end(body ? undefined : await readFile(file));
    } else {
      await this.#serve(path.normalize(pathname).slice(1), response);
    }
  }

  async #serve(file, response) {
    const isServed = SERVED.some((folder) => file.startsWith(`${folder}/`));
    const body = isServed ? await readFile(ROOT + file).catch(() => undefined) : undefined;
    if (body) return response.setHeader('content-type', TYPES[path.extname(file)] ?? 'text/plain').end(body);
    response.writeHead(404).end();
    // Browsers ask for that by themselves.
    if (file === 'favicon.ico') return;
    const why = isServed ? 'which is not there' : `which is not in ${SERVED.join(', ')}`;
    this.#miss(new Error(`the page asks for ${file}, ${why}`));
  }
}

async function bodyOf(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}
