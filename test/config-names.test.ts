/** A setting has one name: its key in a file, its flag and its field of the configuration say the same. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Command } from 'commander';
import * as v from 'valibot';
import { afterAll, describe, expect, test } from 'vitest';
import { addSetting, flagsOf } from '../src/commands/options.ts';
import { type Config, loadConfig } from '../src/config/config.ts';
import { type Setting, type SettingName, settings } from '../src/config/settings.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'inlay-config-names-'));
afterAll(() => rmSync(folder, { recursive: true }));

const PAIR = { overlay: '10.0.0.0/8', underlay: '192.168.0.0/16' };
/** Their values become mappings. */
const PREFIXES = ['overlay', 'underlay', 'mappings'];
const all = Object.entries<Setting>(settings) as [SettingName, Setting][];
const config = loadConfig(PAIR);

/** What commander makes of `--name text`, and the name under which it keeps it. */
function parsed(name: SettingName, text: string) {
  const command = addSetting(new Command(), name);
  command.parse([`--${name}`, text], { from: 'user' });
  return { options: command.opts(), field: command.options[0]?.attributeName() as keyof Config };
}

/** A value that is not the default: a word of the description, which names those there are, or one of these. */
function another({ description, schema, default: usual }: Setting): { text: string; value: unknown } {
  const texts = [...(description.match(/[\w-]+/g) ?? []), '2', '1200', '2ms', '2m', '192.168.0.2'];
  const values = texts.map((text) => ({ text, value: v.safeParse(schema, text) }));
  const found = values.find(({ text, value }) => value.success && text !== usual);
  if (!found) throw new Error(`"${description}": expected a value there`);
  return { text: found.text, value: found.value.output };
}

test('the configuration has a field for every setting, and no other', () => {
  const fields = all.filter(([name]) => !PREFIXES.includes(name)).map(([name]) => parsed(name, '').field);
  expect(Object.keys(config).sort()).toEqual([...fields, 'mappings'].sort());
});

test.each(all.map(([name]) => name))('%s is in kebab case', (name) => {
  expect(name).toMatch(/^[a-z]+(-[a-z]+)*$/);
});

test.each(all.filter(([, { placeholder }]) => placeholder).map(([name]) => name))('--%s is a flag', (name) => {
  expect(flagsOf(parsed(name, 'text').options)).toEqual({ [name]: 'text' });
});

describe.each(all.filter(([name]) => !PREFIXES.includes(name)))('%s', (name, setting) => {
  const { text, value } = another(setting);
  const { field } = parsed(name, text);
  const changed = { ...config, [field]: value };

  test('as a flag changes its field alone', () => {
    expect(loadConfig({ ...PAIR, [name]: text })).toEqual(changed);
  });

  test('as a key changes its field alone', () => {
    const file = path.join(folder, `${name}.yaml`);
    writeFileSync(file, JSON.stringify({ [name]: text }));
    expect(loadConfig(PAIR, file)).toEqual(changed);
  });

  test('has its default', () => {
    expect(config[field]).toEqual(setting.default && v.parse(setting.schema, setting.default));
  });
});
