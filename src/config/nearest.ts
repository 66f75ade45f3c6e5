/** What a name that is not known may mean. */
import { distance } from 'fastest-levenshtein';

/**
 * The known names that have all the words of this one, such as underlay-mtu for mtu, the most similar first.
 */
export function withWordsOf(name: string, known: readonly string[]): string[] {
  const words = name.toLowerCase().split(/[-_]/);
  return known
    .filter((each) => words.every((word) => each.split('-').includes(word)))
    .sort((a, b) => distance(name, a) - distance(name, b));
}

/** The known name that is most likely meant. */
export function nearest(name: string, known: readonly string[]): string {
  const [best] = withWordsOf(name, known);
  return best ?? known.reduce((a, b) => (distance(name, b) < distance(name, a) ? b : a));
}
