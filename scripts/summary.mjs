/**
 * Sums up test reports of vitest: `summary.mjs NAME=REPORT...` prints what failed and why, a line for each name and one for
 * all, and ends with 1 if anything failed, was skipped or has no report.
 */
import { readFileSync } from 'node:fs';
import { stripVTControlCharacters } from 'node:util';

/** Of the message of one failed test. */
const LINES = 40;

/** A file that fails outside its tests counts as one failure, though vitest counts no test for it. */
const isBroken = ({ status, assertionResults }) =>
  status === 'failed' && assertionResults.every((test) => test.status !== 'failed');

/** What the failed tests said, once more: in the output of a long run nobody finds it. */
function sayFailures(report) {
  const failed = report.testResults.flatMap(({ assertionResults }) =>
    assertionResults.filter(({ status }) => status === 'failed'),
  );
  for (const { fullName, failureMessages } of failed) {
    console.log(`failed: ${fullName}`);
    const lines = stripVTControlCharacters(failureMessages.join('\n')).split('\n');
    for (const line of lines.slice(0, LINES)) console.log(`  ${line}`);
  }
}

function countsOf(file) {
  try {
    const report = JSON.parse(readFileSync(file, 'utf8'));
    const broken = report.testResults.filter(isBroken).map(({ name }) => name);
    sayFailures(report);
    for (const name of broken) console.log(`failed before or after its tests: ${name}`);
    return {
      passed: report.numPassedTests,
      failed: report.numFailedTests + broken.length,
      skipped: report.numPendingTests + report.numTodoTests,
    };
  } catch (error) {
    // Its run ended too early: nothing of it is known.
    console.log(`no report: ${error.message}`);
    return { passed: 0, failed: 1, skipped: 0 };
  }
}

const text = ({ passed, failed, skipped }) => `${passed} passed, ${failed} failed, ${skipped} skipped`;
const all = { passed: 0, failed: 0, skipped: 0 };
for (const word of process.argv.slice(2)) {
  const [name, file] = word.split('=');
  const counts = countsOf(file);
  for (const key of Object.keys(all)) all[key] += counts[key];
  console.log(`${name}: ${text(counts)}`);
}
if (all.skipped > 0) console.log('skipped tests count as a failure here');
console.log(text(all));
process.exitCode = all.failed > 0 || all.skipped > 0 ? 1 : 0;
