// Light or dark: as the system says, unless the reader chose.
import { signal } from "@preact/signals";

const ITEM = "scpalm.theme";
const dark = window.matchMedia("(prefers-color-scheme: dark)");

export const isDark = signal(false);

export function applyTheme(): void {
  const chosen = localStorage.getItem(ITEM);
  isDark.value = chosen ? chosen === "dark" : dark.matches;
  document.documentElement.dataset.theme = isDark.value ? "dark" : "light";
}

export function toggleTheme(): void {
  localStorage.setItem(ITEM, isDark.value ? "light" : "dark");
  applyTheme();
}

dark.addEventListener("change", applyTheme);
