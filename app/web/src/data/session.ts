// What the page does: send a file, follow its job, load columns of its cells.
import { batch } from "@preact/signals";
import * as api from "./api";
import { readLink, writeLink } from "./link";
import { nameOf, remember } from "./recent";
import * as state from "./state";
import type { Code, Colouring, Facts, JobState, View } from "./types";

const POLL_MS = 250;
const TASKS = "annotate?also=umap";

let running = new AbortController();

function report(error: unknown): void {
  if (error instanceof DOMException && error.name === "AbortError") return;
  state.fault.value = error instanceof Error ? error.message : String(error);
  state.announcement.value = state.fault.value;
}

/** Forget the present cells. */
function reset(): AbortSignal {
  running.abort();
  running = new AbortController();
  batch(() => {
    for (const one of [state.job, state.view, state.positions, state.values, state.imputed, state.types, state.probabilities, state.clusters, state.selection, state.lit, state.codesJob, state.cellNames, state.fault, state.uploaded]) one.value = null;
    state.imputing.value = state.loading.value = false;
    state.mapName.value = "umap";
    state.colouring.value = { source: "result", name: "annotate" };
  });
  return running.signal;
}

export async function loadFacts(): Promise<void> {
  try {
    state.facts.value = await api.json<Facts>("page/facts.json");
  } catch (error) {
    report(error);
  }
}

export function showStart(): void {
  reset();
  state.fileName.value = "";
  state.screen.value = "start";
  history.replaceState(null, "", location.pathname);
}

export async function startFile(file: File): Promise<void> {
  const signal = reset();
  state.fileName.value = file.name;
  state.uploaded.value = 0;
  state.screen.value = "progress";
  try {
    const { id } = await api.upload(TASKS, file, (share) => (state.uploaded.value = share), signal);
    state.uploaded.value = null;
    remember(id, file.name);
    await follow(id, signal);
  } catch (error) {
    if (signal.aborted) return;
    report(error);
    state.screen.value = "start";
  }
}

export async function startSample(): Promise<void> {
  const signal = reset();
  state.fileName.value = "sample.h5ad";
  state.uploaded.value = 0;
  state.screen.value = "progress";
  try {
    const content = await (await api.send("sample", { signal })).blob();
    await startFile(new File([content], "sample.h5ad"));
  } catch (error) {
    if (signal.aborted) return;
    report(error);
    state.screen.value = "start";
  }
}

/** Open a job of the list or of a link. */
export async function openJob(id: string, name: string): Promise<void> {
  const signal = reset();
  state.fileName.value = name;
  state.screen.value = "progress";
  try {
    await follow(id, signal);
  } catch (error) {
    if (signal.aborted) return;
    report(error);
    state.screen.value = "start";
  }
}

export async function cancel(): Promise<void> {
  const id = state.job.value?.id;
  showStart();
  state.announcement.value = "Cancelled.";
  if (id) await api.json<JobState>(`jobs/${id}`, { method: "DELETE" }).catch(report);
}

async function follow(id: string, signal: AbortSignal): Promise<void> {
  writeLink(id);
  for (;;) {
    const job = await api.json<JobState>(`jobs/${id}`, { signal });
    state.job.value = job;
    if (job.state === "succeeded") break;
    if (job.state === "failed" || job.state === "cancelled") throw new Error(job.error ?? `This job was ${job.state}.`);
    if (state.view.value === null && job.rows_done > 0) {
      await loadView(id, signal);
      if (state.view.value) void loadNames(id, state.view.value, signal);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  await showCells(id, signal);
}

async function loadView(id: string, signal: AbortSignal): Promise<void> {
  state.view.value = await api.json<View>(`jobs/${id}/view`, { signal }).catch(() => null);
}

async function showCells(id: string, signal: AbortSignal): Promise<void> {
  const view = await api.json<View>(`jobs/${id}/view`, { signal });
  state.view.value = view;
  if (!view.outputs.some((output) => output.name === "umap")) {
    const more = await api.json<{ id: string }>(`jobs/${id}/more?task=umap`, { method: "POST", signal });
    return follow(more.id, signal);
  }
  const load = (name: string) => (has(view, name) ? api.column(id, "result", name, signal) : Promise.resolve(null));
  const [map, types, probabilities, clusters] = await Promise.all(["umap", "annotate", "annotate_probability", "umap_cluster"].map(load));
  const link = readLink();
  const first: Colouring = { source: "result", name: types ? "annotate" : "umap_cluster" };
  batch(() => {
    state.positions.value = map!.values;
    state.types.value = types ?? null;
    state.probabilities.value = probabilities ?? null;
    state.clusters.value = clusters ?? null;
    state.values.value = types ?? clusters ?? null;
    state.colouring.value = first;
    state.screen.value = "cells";
    state.announcement.value = `${view.num_cells} cells are ready.`;
  });
  if (link.colouring && link.job === id) await colourBy(link.colouring);
  if (link.rows && link.job === id) select(link.rows.filter((row) => row < view.num_cells));
  if (!state.cellNames.value) void loadNames(id, view, signal);
  void startCodes(id, signal);
}

function has(view: View, name: string): boolean {
  return view.outputs.some((output) => output.name === name);
}

/** Names of genes and cells. The service then also has the genes at hand, so that the first one is fast. */
async function loadNames(id: string, view: View, signal: AbortSignal): Promise<void> {
  try {
    const model = encodeURIComponent(view.model.name);
    state.genes.value = (await api.json<{ symbols: string[] }>(`models/${model}/genes`, { signal })).symbols;
    state.cellNames.value = await api.json<string[]>(`jobs/${id}/cells`, { signal });
  } catch (error) {
    report(error);
  }
}

/** Pathway codes take the whole network, so they come after the map, as a second job. */
async function startCodes(id: string, signal: AbortSignal): Promise<void> {
  try {
    const model = encodeURIComponent(state.view.value!.model.name);
    const { codes } = await api.json<{ codes: Code[] }>(`models/${model}/pathways`, { signal });
    state.codes.value = codes;
    const more = await api.json<{ id: string }>(`jobs/${id}/more?task=pathways`, { method: "POST", signal });
    for (;;) {
      const job = await api.json<JobState>(`jobs/${more.id}`, { signal });
      state.codesJob.value = job;
      if (job.state !== "queued" && job.state !== "running") return;
      await new Promise((resolve) => setTimeout(resolve, 4 * POLL_MS));
    }
  } catch (error) {
    if (!(error instanceof api.Problem && error.status === 404)) report(error); // a model without codes is no fault
  }
}

let colour = new AbortController();

/** Colour the map by another column. A gene also gets its imputed values, which may take a while. */
export async function colourBy(next: Colouring): Promise<void> {
  const id = next.source === "code" ? state.codesJob.value?.id : state.job.value?.id;
  if (!id) return;
  colour.abort();
  colour = new AbortController();
  const { signal } = colour;
  state.loading.value = true;
  state.fault.value = null;
  try {
    const values = await api.column(id, next.source, next.name, signal);
    const own = next.source === "obs" ? state.view.value?.colors[next.name] : undefined;
    if (own) values.colours = own;
    batch(() => {
      state.values.value = values;
      state.colouring.value = next;
      state.imputed.value = null;
      state.lit.value = null;
      state.imputing.value = next.source === "gene";
      state.announcement.value = `The map is coloured by ${next.name}.`;
    });
    writeLink(state.job.value!.id);
    state.loading.value = false;
    if (next.source === "gene") state.imputed.value = await api.column(id, "imputed", next.name, signal);
  } catch (error) {
    report(error);
  } finally {
    if (!signal.aborted) state.loading.value = state.imputing.value = false;
  }
}

/** Show another map: the one of the job, or one of the file. */
export async function showMap(name: string): Promise<void> {
  try {
    const id = state.job.value!.id;
    const found = await api.column(id, name === "umap" ? "result" : "map", name);
    batch(() => {
      state.positions.value = found.values;
      state.mapName.value = name;
    });
  } catch (error) {
    report(error);
  }
}

export function select(rows: number[]): void {
  const mask = new Uint8Array(state.view.value?.num_cells ?? 0);
  for (const row of rows) mask[row] = 1;
  state.selection.value = rows.length ? mask : null;
  state.announcement.value = rows.length ? `${rows.length} cells are selected.` : "The selection is empty.";
  if (state.job.value) writeLink(state.job.value.id);
}

/** Open what the address names. */
export async function openLink(): Promise<void> {
  const { job } = readLink();
  if (job) await openJob(job, nameOf(job));
}
