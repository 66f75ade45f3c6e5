/** The documents for people, and the code blocks in them. */
import { readdirSync, readFileSync } from 'node:fs';

const ROOT = new URL('..', import.meta.url);
/** What a script makes is its own affair. */
const GENERATED = ['docs/conformance.md'];

/** Paths from the root of the repository. */
export const DOCUMENTS: readonly string[] = [
  ...['README.md', 'SECURITY.md', 'CONTRIBUTING.md', 'CHANGELOG.md', 'test/vectors/README.md', 'examples/README.md'],
  ...readdirSync(new URL('docs', ROOT))
    .map((name) => `docs/${name}`)
    .filter((file) => file.endsWith('.md') && !GENERATED.includes(file)),
];

export interface Block {
  /** Words behind the three backticks: the language, and for commands `tested` or `yours`. */
  words: string[];
  text: string;
}

export function read(file: string): string {
  return readFileSync(new URL(file, ROOT), 'utf8');
}

/** The fenced blocks of a document. */
export function blocksOf(file: string): Block[] {
  return [...read(file).matchAll(/^```(.*)\n([\s\S]*?)^```$/gm)].map(([, words = '', text = '']) => ({
    words: words.split(' '),
    text,
  }));
}

/** The lines of a document outside its fenced blocks, with their numbers. */
export function proseOf(file: string): { line: number; text: string }[] {
  let isFenced = false;
  return read(file)
    .split('\n')
    .map((text, i) => ({ line: i + 1, text }))
    .filter(({ text }) => {
      if (text.startsWith('```')) isFenced = !isFenced;
      return !isFenced && !text.startsWith('```');
    });
}
