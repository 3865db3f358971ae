// Files to save. Cells of a spreadsheet must not run as formulas.

/** One field of a CSV file: quoted where needed, and with a quote in front of what a spreadsheet would compute. */
export function field(value: string | number): string {
  if (typeof value === "number") return Number.isFinite(value) ? String(value) : "";
  const safe = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

export function csv(columns: Record<string, ArrayLike<string | number>>, rows: number[]): string {
  const names = Object.keys(columns);
  const lines = rows.map((row) => names.map((name) => field(columns[name]![row] ?? "")).join(","));
  return `${[names.map(field).join(","), ...lines].join("\n")}\n`;
}

export function save(content: Blob | string, name: string, type = "text/csv"): void {
  const blob = typeof content === "string" ? new Blob([content], { type }) : content;
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
