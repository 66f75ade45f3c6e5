/** A method of a docker plugin: a request in JSON, an answer in JSON. */
import * as v from 'valibot';
import { InlayError } from '../../errors.ts';
import type { EndpointStore } from './endpoint-store.ts';

/** The body of a request is not what docker sends. */
export class BadRequest extends Error {}

/** Opens the store, which is read anew for each request. */
export type WithStore = <T>(work: (store: EndpointStore) => T) => T;

export interface Method {
  /** Where docker looks for the reason of a failure. */
  readonly failure: 'Err' | 'Error';
  /** Throws BadRequest, or whatever keeps the request from being fulfilled. */
  answer(body: unknown, withStore: WithStore): object;
}

/** A method whose answer is always the same. */
export function constant(failure: Method['failure'], answer: object): Method {
  return { failure, answer: () => answer };
}

export function method<S extends v.GenericSchema>(
  failure: Method['failure'],
  schema: S,
  answer: (request: v.InferOutput<S>, store: EndpointStore) => object,
): Method {
  return {
    failure,
    answer: (body, withStore) => {
      const parsed = v.safeParse(schema, body);
      if (parsed.success) return withStore((store) => answer(parsed.output, store));
      const [issue] = parsed.issues;
      throw new BadRequest(`${v.getDotPath(issue) ?? 'the request'}: ${issue.message}`);
    },
  };
}

/** Go writes null for a string, map or list that is not there. */
export const word = v.optional(v.nullable(v.pipe(v.string(), v.maxLength(1024)), ''), '');
export const options = v.optional(v.nullable(v.record(v.string(), v.unknown()), {}), {});

/** A failure that docker's user reads. */
export function refuse(message: string, hint: string): never {
  throw new InlayError('ERR_USAGE', message, { hint });
}

/** One line: docker prints it behind words of its own. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error instanceof InlayError && error.hint ? `${error.message} (${error.hint})` : error.message;
}
