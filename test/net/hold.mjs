/** Holds those threads of a process that wait in poll(2), such as forwarding workers, as a debugger does: nothing but the end of the process wakes them. */
import { readdirSync, readFileSync } from 'node:fs';
import koffi from 'koffi';

// <sys/ptrace.h>, <linux/wait.h>
const PTRACE_SEIZE = 0x4206;
const PTRACE_INTERRUPT = 0x4207;
const WALL = 0x40000000;
/** poll and ppoll, of x86-64 and of others. */
const POLL = process.arch === 'x64' ? ['7', '271'] : ['73'];

const lib = koffi.load(null);
const ptrace = lib.func('long ptrace(long request, int thread, uintptr_t address, uintptr_t data)');
const waitpid = lib.func('int waitpid(int process, uintptr_t status, int options)');

const [, , pid] = process.argv;
const waiting = readdirSync(`/proc/${pid}/task`).filter(
  (thread) =>
    thread !== pid && POLL.includes(readFileSync(`/proc/${pid}/task/${thread}/syscall`, 'utf8').split(' ')[0]),
);
for (const thread of waiting) {
  if (ptrace(PTRACE_SEIZE, Number(thread), 0, 0) < 0) throw new Error(`ptrace: errno ${koffi.errno()}`);
  ptrace(PTRACE_INTERRUPT, Number(thread), 0, 0);
  waitpid(Number(thread), 0, WALL);
}
process.stdout.write(`${waiting.length} held\n`);
while (waitpid(-1, 0, WALL) > 0);
