// The address of the page names the job, the colouring and the selection, so that it can be shared and reloaded.
import * as state from "./state";
import type { Colouring } from "./types";

const LONGEST = 1_800; // characters; a larger selection is left out
const SOURCES = ["result", "obs", "gene", "code"];

export interface Link {
  job: string | null;
  colouring: Colouring | null;
  rows: number[] | null;
}

export function readLink(): Link {
  const parts = new URLSearchParams(location.hash.slice(1));
  const job = parts.get("job");
  const [source, ...name] = (parts.get("color") ?? "").split(":");
  const colouring = source && SOURCES.includes(source) ? { source: source as Colouring["source"], name: name.join(":") } : null;
  const cells = parts.get("cells");
  return { job: job && /^[0-9a-f]{32}$/.test(job) ? job : null, colouring, rows: cells ? unpack(cells) : null };
}

export function writeLink(job: string): void {
  const parts = new URLSearchParams({ job });
  const { source, name } = state.colouring.value;
  const kept = readLink();
  if (state.positions.value) parts.set("color", `${source}:${name}`);
  else if (kept.job === job && kept.colouring) parts.set("color", `${kept.colouring.source}:${kept.colouring.name}`);
  const rows = state.positions.value ? state.selectedRows() : kept.job === job ? (kept.rows ?? []) : [];
  const packed = pack(rows);
  if (packed && packed.length < LONGEST) parts.set("cells", packed);
  history.replaceState(null, "", `#${parts.toString()}`);
}

/** Ascending rows as differences in base 36. */
export function pack(rows: number[]): string {
  let last = 0;
  return rows
    .map((row) => {
      const text = (row - last).toString(36);
      last = row;
      return text;
    })
    .join(".");
}

export function unpack(text: string): number[] {
  let last = 0;
  const rows = text.split(".").map((part) => (last += parseInt(part, 36)));
  return rows.every((row) => Number.isInteger(row) && row >= 0) ? rows : [];
}
