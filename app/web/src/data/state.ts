// The state of the page, as signals: components redraw when what they read changes.
import { computed, signal } from "@preact/signals";
import type { Code, Colouring, Facts, JobState, View } from "./types";
import type { Values } from "./api";

/** What the page shows: the start, the progress of a job, or its cells. */
export type Screen = "start" | "progress" | "cells";

export const screen = signal<Screen>("start");
export const facts = signal<Facts | null>(null);
/** What went wrong, in the words of the service. */
export const fault = signal<string | null>(null);
/** Read out by screen readers. */
export const announcement = signal("");

export const job = signal<JobState | null>(null);
export const fileName = signal("");
/** The beginning of the names of saved files. */
export const fileStem = () => (fileName.value || "cells").replace(/\.[^.]+$/, "").replace(/[^\w.-]+/g, "_");
/** Share of the upload that has been sent; null when there is none. */
export const uploaded = signal<number | null>(null);
/** What is known about the cells; already while their job runs. */
export const view = signal<View | null>(null);

/** Positions of the cells [cells, 2]. */
export const positions = signal<Float32Array | null>(null);
export const mapName = signal("umap");
export const colouring = signal<Colouring>({ source: "result", name: "annotate" });
/** Values of the current colouring, and of the imputed gene next to it. */
export const values = signal<Values | null>(null);
export const imputed = signal<Values | null>(null);
export const imputing = signal(false);
export const loading = signal(false);
/** Predicted types and their probabilities, for the tables. */
export const types = signal<Values | null>(null);
export const probabilities = signal<Values | null>(null);
export const clusters = signal<Values | null>(null);

/** 1 for each selected cell; null if none is. */
export const selection = signal<Uint8Array | null>(null);
/** The category that is lit up in the legend. */
export const lit = signal<number | null>(null);

export const numSelected = computed(() => {
  let count = 0;
  for (const one of selection.value ?? []) count += one;
  return count;
});

/** The job with the pathway codes of the same cells. */
export const codesJob = signal<JobState | null>(null);
export const codes = signal<Code[] | null>(null);
export const genes = signal<string[]>([]);
export const cellNames = signal<string[] | null>(null);

export function selectedRows(): number[] {
  const rows: number[] = [];
  selection.value?.forEach((one, row) => {
    if (one) rows.push(row);
  });
  return rows;
}
