/** What is urgent is not held up by what can wait. */
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { Prompt } from '../../src/dataplane/fast-path/obstacles/pace.ts';

let calls: number[];
let prompt: Prompt;
let begin: number;
beforeEach(() => {
  vi.useFakeTimers();
  calls = [];
  begin = performance.now();
  prompt = new Prompt(10, () => calls.push(performance.now() - begin));
});
afterEach(() => {
  prompt.close();
  vi.useRealTimers();
});

test('a call is made at once, and the next after the pause', () => {
  prompt.call();
  expect(calls).toEqual([0]);
  prompt.call();
  prompt.call();
  vi.advanceTimersByTime(5000);
  expect(calls).toEqual([0, 10]);
});

test('an urgent call does not wait for one that can wait', () => {
  prompt.call();
  prompt.call(2000);
  prompt.call();
  vi.advanceTimersByTime(100);
  expect(calls).toEqual([0, 10]);
});

test('a call that can wait does not hold up an earlier one, and none is made after the end', () => {
  prompt.call(50);
  prompt.call(2000);
  vi.advanceTimersByTime(100);
  expect(calls).toEqual([50]);
  prompt.call(20);
  prompt.close();
  vi.advanceTimersByTime(5000);
  expect(calls).toEqual([50]);
});
