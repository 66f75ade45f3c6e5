#!/usr/bin/env node
/**
 * inlay-cni: the process of the CNI plugin. A runtime starts one for each container, so it loads only what a
 * call needs. It answers on standard output, errors too.
 */
import { fstatSync, readSync, writeSync } from 'node:fs';
import { CniError, CODE, errorText } from './containers/cni/error.ts';
import { LONGEST } from './containers/cni/network.ts';
import { type CniAnswer, type CniLibrary, runCni } from './containers/cni/plugin.ts';
import { errorCode } from './errors.ts';
import { requireNode } from './installation.ts';
import { pause } from './linux/pause.ts';

const STDIN = 0;
const STDOUT = 1;
/** Bytes that are asked for at once: as much as a pipe has. */
const CHUNK = 65536;
/** ms until it is tried again where a pipe does not wait by itself (O_NONBLOCK, from whoever made it). */
const RETRY = 1;

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
    const config = (await isTerminal()) ? '' : readAll();
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

/** Standard input to its end, or to one byte more than is read. */
function readAll(): Uint8Array {
  const chunks: Uint8Array[] = [];
  let length = 0;
  while (length <= LONGEST) {
    const chunk = new Uint8Array(CHUNK);
    const count = again('read standard input', () => readSync(STDIN, chunk));
    if (count === 0) break;
    chunks.push(chunk.subarray(0, count));
    length += count;
  }
  return Buffer.concat(chunks);
}

function writeAll(text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length; ) at += again('write standard output', () => writeSync(STDOUT, bytes, at));
}

function again(what: string, call: () => number): number {
  for (;;) {
    try {
      return call();
    } catch (cause) {
      const code = errorCode(cause);
      if (code !== 'EAGAIN') throw new CniError(CODE.io, `cannot ${what}: ${code}`);
      pause(RETRY);
    }
  }
}

async function run(): Promise<void> {
  const { code, stdout } = await answer();
  process.exitCode = code;
  try {
    writeAll(stdout);
  } catch (error) {
    process.stderr.write(`inlay-cni: ${(error as Error).message}\n`);
    process.exitCode = 1;
  }
}

void run();
