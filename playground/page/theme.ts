/** Light or dark: as the system has it, until the button says otherwise. */
import { byId } from './dom.ts';

const KEY = 'inlay-theme';

export function startTheme(): void {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const toggle = byId('theme');
  const current = () => document.documentElement.dataset['theme'] ?? (dark.matches ? 'dark' : 'light');
  const render = () => {
    const other = current() === 'dark' ? 'light' : 'dark';
    toggle.textContent = other === 'dark' ? 'Dark' : 'Light';
    toggle.setAttribute('aria-label', `Use ${other} colours`);
  };
  const set = (theme: string | null) => {
    if (theme === 'dark' || theme === 'light') document.documentElement.dataset['theme'] = theme;
    render();
  };
  toggle.addEventListener('click', () => {
    const other = current() === 'dark' ? 'light' : 'dark';
    remember(other);
    set(other);
  });
  dark.addEventListener('change', render);
  set(remembered());
}

/** Browsers may forbid pages to keep anything. */
function remembered(): string | null {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}

function remember(theme: string): void {
  try {
    localStorage.setItem(KEY, theme);
  } catch {
    // It lasts as long as the page, then.
  }
}
