/** Programs with one thing wrong: a check left out, one that always fails, a number that is one too large or too small. */

const [CLASS, OPERATION] = [0x07, 0xf0];
const [JUMP, JUMP32, ALU, ALU64, STORE] = [5, 6, 4, 7, 2];
const [ALWAYS, CALL, EXIT] = [0x00, 0x80, 0x90];
const REGISTER = 0x08;
const [LOAD_WIDE, JUMP_ALWAYS] = [0x18, 0x05];
const BYTE_ORDER = 0xd0;

const isConditional = ([code]) =>
  [JUMP, JUMP32].includes(code & CLASS) && ![ALWAYS, CALL, EXIT].includes(code & OPERATION);
const hasNumber = ([code]) =>
  (isConditional([code]) && (code & REGISTER) === 0) ||
  ([ALU, ALU64].includes(code & CLASS) && (code & REGISTER) === 0 && (code & OPERATION) !== BYTE_ORDER) ||
  (code & CLASS) === STORE;

/** All of them: what is wrong, where, and the instructions. */
export function mutantsOf(instructions) {
  const mutants = [];
  const add = (what, at, instruction) =>
    mutants.push({ what: `${what} ${at}`, at, instructions: instructions.with(at, instruction) });
  instructions.forEach((instruction, at) => {
    const [code, destination, source, offset, immediate] = instruction;
    if (at > 0 && instructions[at - 1][0] === LOAD_WIDE) return;
    if (isConditional(instruction)) {
      add('never jumps', at, [JUMP_ALWAYS, 0, 0, 0, 0]);
      add('always jumps', at, [JUMP_ALWAYS, 0, 0, offset, 0]);
    }
    if (!hasNumber(instruction)) return;
    add('one more', at, [code, destination, source, offset, immediate + 1]);
    add('one less', at, [code, destination, source, offset, immediate - 1]);
  });
  return mutants;
}
