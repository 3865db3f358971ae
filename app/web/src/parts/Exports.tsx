// Save results, the selection and the picture, and share the link.
import { useState } from "preact/hooks";
import { column, send, type Values } from "../data/api";
import { csv, save } from "../data/files";
import { png, svg } from "../data/picture";
import { cellNames, clusters, codesJob, colouring, fault, fileStem, job, numSelected, positions, probabilities, selectedRows, selection, types, values } from "../data/state";
import type { View } from "../data/types";
import { titleOf } from "./titles";
import { count } from "./text";

type Columns = Record<string, ArrayLike<string | number>>;

function texts(found: Values): ArrayLike<string | number> {
  const names = found.categories;
  return names ? Array.from(found.values, (value) => names[value] ?? "") : found.values;
}

/** Run a step and show what goes wrong. */
async function attempt(work: () => Promise<void> | void): Promise<void> {
  try {
    await work();
  } catch (error) {
    fault.value = error instanceof Error ? error.message : String(error);
  }
}

async function table(id: string, view: View): Promise<Columns> {
  const columns: Columns = { cell: cellNames.value ?? [] };
  for (const output of view.outputs.filter((one) => one.placement === "obs")) {
    columns[`scpalm_${output.columns?.[0] ?? output.name}`] = texts(await column(id, "result", output.name));
  }
  const map = positions.value!;
  columns.umap_1 = map.filter((_, at) => at % 2 === 0);
  columns.umap_2 = map.filter((_, at) => at % 2 === 1);
  return columns;
}

async function saveResult(id: string, name: string, accept: string): Promise<void> {
  const answer = await send(`jobs/${id}/result`, { headers: { Accept: accept } });
  save(await answer.blob(), name);
}

export function Exports({ view }: { view: View }) {
  const id = job.value!.id;
  const all = Array.from({ length: view.num_cells }, (_, row) => row);
  const [label, setLabel] = useState("my_cells");
  const saveTable = (rows: number[], suffix: string) => attempt(async () => save(csv(await table(id, view), rows), `${fileStem()}.${suffix}.csv`));
  const saveSelected = () => {
    const columns: Columns = { cell: cellNames.value ?? [] };
    if (types.value) columns.scpalm_label = texts(types.value);
    if (probabilities.value) columns.scpalm_probability = probabilities.value.values;
    if (clusters.value) columns.scpalm_cluster = texts(clusters.value);
    if (values.value && colouring.value.source !== "result") columns[titleOf(colouring.value)] = texts(values.value);
    save(csv(columns, selectedRows()), `${fileStem()}.selected.csv`);
  };
  const saveColumn = () => {
    const mask = selection.value!;
    const name = label.trim() || "selected";
    save(csv({ cell: cellNames.value ?? [], [name]: Array.from(mask, (one) => (one ? "yes" : "no")) }, all), `${fileStem()}.${name.replace(/[^\w.-]+/g, "_")}.csv`);
  };
  return (
    <>
      <h2>Save</h2>
      <h3>All cells</h3>
      <div class="actions column">
        <button type="button" onClick={() => void attempt(() => saveResult(id, `${fileStem()}.scpalm.h5ad`, "application/x-hdf5"))}>
          h5ad: your file with types, map and clusters
        </button>
        {codesJob.value?.state === "succeeded" && (
          <button type="button" onClick={() => void attempt(() => saveResult(codesJob.value!.id, `${fileStem()}.codes.h5ad`, "application/x-hdf5"))}>
            h5ad: your file with pathway codes
          </button>
        )}
        <button type="button" disabled={!cellNames.value} onClick={() => void saveTable(all, "scpalm")}>
          CSV: types, probabilities, clusters, map
        </button>
      </div>
      <h3>Selection</h3>
      {numSelected.value === 0 ? (
        <p class="hint">Select cells on the map first.</p>
      ) : (
        <div class="actions column">
          <button type="button" disabled={!cellNames.value} onClick={saveSelected}>
            CSV: names and types of the {count(numSelected.value)} cells
          </button>
          <label class="inline">
            Column
            <input value={label} maxLength={60} onInput={(event) => setLabel(event.currentTarget.value)} />
          </label>
          <button type="button" disabled={!cellNames.value} onClick={saveColumn}>
            CSV: a column yes/no for obs, all cells
          </button>
          <p class="hint">
            In Python: <code>adata.obs = adata.obs.join(pandas.read_csv(file, index_col=0))</code>
          </p>
        </div>
      )}
      <h3>Picture</h3>
      <div class="actions">
        <button type="button" onClick={() => void attempt(async () => save(await png(), `${fileStem()}.png`))}>
          PNG
        </button>
        <button type="button" onClick={() => void attempt(() => save(svg(), `${fileStem()}.svg`, "image/svg+xml"))}>
          SVG
        </button>
      </div>
      <h3>Link</h3>
      <Link />
    </>
  );
}

function Link() {
  const [copied, setCopied] = useState(false);
  const copy = () => void attempt(() => navigator.clipboard.writeText(location.href).then(() => setCopied(true)));
  return (
    <>
      <button type="button" onClick={copy}>
        {copied ? "Copied" : "Copy the link"}
      </button>
      <p class="hint">It restores the job, the colours and a selection that is not too large. Anyone who opens it needs the same key, and it works until the job is deleted.</p>
    </>
  );
}
