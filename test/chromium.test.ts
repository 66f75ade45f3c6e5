/** Chromium is looked for where a shell looks. */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { findChromium } from './chromium.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-chromium-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('the first one in PATH is taken, wherever it lies', () => {
  const folders = [`${folder}/without`, `${folder}/not executable`, `${folder}/with`];
  for (const each of folders) mkdirSync(each);
  expect(findChromium(folders.join(':'))).toBeUndefined();
  for (const each of folders.slice(1)) writeFileSync(`${each}/chromium`, '#!/bin/sh\n');
  chmodSync(`${folder}/with/chromium`, 0o755);
  expect(findChromium(folders.join(':'))).toBe(`${folder}/with/chromium`);
});
