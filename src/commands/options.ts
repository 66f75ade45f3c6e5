/**
 * What the commands share: flags that come from the table of settings, and output for people or for programs.
 */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Flags } from '../config/config.ts';
import { camelCase, type Setting, type SettingName, settings } from '../config/settings.ts';

/** Adds the flags of these settings, and --config. */
export function addSettings(command: Command, names: readonly SettingName[]): Command {
  command.option('--config <FILE>', 'YAML file with settings; flags override it');
  for (const name of names) addSetting(command, name);
  return command;
}

export function addSetting(command: Command, name: SettingName): Command {
  const setting: Setting = settings[name];
  const description = setting.default ? `${setting.description} (default: ${setting.default})` : setting.description;
  return command.addOption(new Option(`--${name} <${setting.placeholder}>`, description));
}

/** The settings among parsed options, by setting name. */
export function flagsOf(options: Record<string, unknown>): Flags {
  return Object.fromEntries(
    Object.keys(settings).flatMap((name) => {
      const value = options[camelCase(name)];
      return typeof value === 'string' ? [[name, value]] : [];
    }),
  );
}

/** The run directory of the daemon that a command asks. */
export function runDirOf(options: { runDir?: string }): string {
  return options.runDir ?? settings['run-dir'].default;
}

export function addJson(command: Command): Command {
  return command.option('--json', 'print one line of JSON');
}

/** Prints `value` as JSON if that was asked for, else the text for people. */
export function print(options: { json?: boolean }, value: unknown, text: () => string): void {
  process.stdout.write(`${options.json ? JSON.stringify(value) : text()}\n`);
}

/** An example for --help. */
export function example(command: Command, ...lines: string[]): Command {
  return command.addHelpText('after', `\nExamples:\n${lines.map((line) => `  $ inlay ${line}`).join('\n')}`);
}

/** Reads a whole number, at least 1. */
export function positive(text: string): number {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('expected a whole number, at least 1.');
  return Number(text);
}

/** Reads a number of seconds. */
export function seconds(text: string): number {
  const value = Number(text);
  if (!(value >= 0 && value <= 86_400)) throw new InvalidArgumentError('expected seconds, 0..86400.');
  return value;
}
