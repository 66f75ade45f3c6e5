/** A machine in User-mode Linux that runs one program of this folder. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { missingCommands } from '../net/require.ts';

const FOLDER = import.meta.dirname;
/** Machines with one slow CPU boot and run this too. */
const SECONDS = 900;
/** Of the hook that runs a program, in ms. */
export const MACHINE_TIMEOUT = (SECONDS + 60) * 1000;

/** The reason why no machine can be had here with these commands in it; undefined if one can. */
export function machineMissing(...commands: string[]): string | undefined {
  // uml.sh compiles something for such a processor.
  const compiler = readFileSync('/proc/cpuinfo', 'utf8').includes('amx_tile') ? ['cc'] : [];
  return missingCommands('linux.uml', 'modprobe', 'sysctl', 'ip', ...commands, ...compiler);
}

/** Boots, runs the program and returns what it prints, which is JSON. */
export async function runInMachine<Facts>(program: string, ...words: string[]): Promise<Facts> {
  const machine = spawn(
    path.join(FOLDER, 'uml.sh'),
    ['-t', String(SECONDS), 'node', path.join(FOLDER, program), ...words],
    // The machine has this PATH too, and is to find this Node.
    { env: { ...process.env, PATH: `${path.dirname(process.execPath)}:${process.env['PATH']}` } },
  );
  let [stdout, stderr] = ['', ''];
  machine.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  machine.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const [status] = await once(machine, 'close');
  if (status !== 0) throw new Error(`${program} ended with exit status ${status}:\n${stderr}`);
  return JSON.parse(stdout) as Facts;
}
