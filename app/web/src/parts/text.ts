// Numbers and times in words.

export const count = (value: number): string => value.toLocaleString("en");

export function percent(share: number): string {
  return `${(100 * share).toFixed(share < 0.0995 ? 1 : 0)} %`;
}

export function seconds(value: number): string {
  if (value < 90) return `${Math.max(1, Math.round(value))} s`;
  return value < 5400 ? `${Math.round(value / 60)} min` : `${(value / 3600).toFixed(1)} h`;
}

export function bytes(value: number): string {
  const units = ["B", "kB", "MB", "GB"];
  let at = 0;
  let left = value;
  while (left >= 1000 && at < units.length - 1) [left, at] = [left / 1000, at + 1];
  return `${left >= 10 ? Math.round(left) : left.toFixed(1)} ${units[at]}`;
}

/** "REACTOME_CELL_CYCLE" -> "Cell cycle". */
export function term(name: string): string {
  const words = name.replace(/^[A-Z]+_/, "").replaceAll("_", " ").toLowerCase();
  return words.charAt(0).toUpperCase() + words.slice(1);
}
