#!/usr/bin/env node
/**
 * inlay-cni: the process of the CNI plugin. A runtime starts one for each container, so it loads only what a
 * call needs. It answers on standard output, errors too.
 */
import { fstatSync } from 'node:fs';
import { CniError, CODE, errorText } from './containers/cni/error.ts';
import { LONGEST } from './containers/cni/network.ts';
import { type CniAnswer, type CniLibrary, runCni } from './containers/cni/plugin.ts';
import { errorCode } from './errors.ts';
import { requireNode } from './installation.ts';
import { readAll, writeAll } from './linux/whole.ts';

const STDIN = 0;
const STDOUT = 1;

const NO_LIBRARY: CniLibrary = {
  open: () => {
    throw new Error('nothing of the kernel is asked');
  },
};

async function answer(): Promise<CniAnswer> {
  try {
    requireNode(process.versions.node);
    const command = process.env['CNI_COMMAND'] ?? '';
    if (command === '')
      process.stderr.write(
        'This is a CNI plugin. Container runtimes run it; inlay cni install makes it known to them.\n',
      );
    const config = (await isTerminal()) ? '' : readInput();
    return runCni(process.env, config, command === 'VERSION' ? NO_LIBRARY : await load());
  } catch (error) {
    return { code: 1, stdout: errorText(error) };
  }
}

/** It is another file: VERSION does not load it, and where a package is missing, the runtime is told so. */
async function load(): Promise<CniLibrary> {
  const { library } = await import('./containers/cni/library.ts');
  return library;
}

/** Whether a person started this, who has nothing to say. (node:tty takes 2 ms to load.) */
async function isTerminal(): Promise<boolean> {
  return fstatSync(STDIN).isCharacterDevice() && (await import('node:tty')).isatty(STDIN);
}

function readInput(): Uint8Array {
  try {
    return readAll(STDIN, LONGEST);
  } catch (error) {
    throw new CniError(CODE.io, `cannot read standard input: ${errorCode(error)}`);
  }
}

async function run(): Promise<void> {
  const { code, stdout } = await answer();
  process.exitCode = code;
  try {
    writeAll(STDOUT, stdout);
  } catch (error) {
    process.stderr.write(`inlay-cni: cannot write standard output: ${errorCode(error)}\n`);
    process.exitCode = 1;
  }
}

void run();
