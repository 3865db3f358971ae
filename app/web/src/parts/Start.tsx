// Before a file: where to drop it, what is read, and where it goes.
import { useRef, useState } from "preact/hooks";
import { startFile, startSample } from "../data/session";
import { facts } from "../data/state";
import { bytes, count } from "./text";

export function Start() {
  const input = useRef<HTMLInputElement>(null);
  const [over, setOver] = useState(false);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    const file = event.dataTransfer?.files[0];
    if (file) void startFile(file);
  };
  return (
    <section class="start">
      <h1>See what your cells are</h1>
      <p class="lead">Drop a file of single-cell RNA counts. You get cell types, a map, clusters, pathway codes and predicted drug response.</p>
      <div
        class={`drop ${over ? "over" : ""}`}
        onDragOver={(event) => {
          event.preventDefault();
          setOver(true);
        }}
        onDragLeave={() => setOver(false)}
        onDrop={drop}
      >
        <svg viewBox="0 0 64 48" aria-hidden="true" class="cloud">
          <g>
            <circle cx="14" cy="30" r="4" /><circle cx="24" cy="20" r="6" /><circle cx="36" cy="28" r="5" />
            <circle cx="48" cy="18" r="4" /><circle cx="44" cy="38" r="3" /><circle cx="28" cy="38" r="3" /><circle cx="54" cy="30" r="2.5" />
          </g>
        </svg>
        <p>
          <strong>Drop a file here</strong>, or
        </p>
        <div class="actions">
          <button type="button" class="primary" onClick={() => input.current!.click()}>
            Choose a file
          </button>
          <button type="button" onClick={() => void startSample()}>
            Try the sample
          </button>
        </div>
        <input
          ref={input}
          type="file"
          class="sr-only"
          tabIndex={-1}
          aria-label="File of cells"
          onChange={(event) => {
            const file = event.currentTarget.files?.[0];
            if (file) void startFile(file);
          }}
        />
        <p class="hint">.h5ad with raw counts or log values, 10x .h5 (filtered_feature_bc_matrix), .h5mu. Human genes, by symbol or Ensembl id.</p>
      </div>
      <Promises />
    </section>
  );
}

function Promises() {
  const known = facts.value;
  const host = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname) ? "this computer" : location.hostname;
  return (
    <dl class="promises">
      <div>
        <dt>Where it goes</dt>
        <dd>
          To the service on <b>{host}</b>, and nowhere else. The page loads nothing from other sites.
        </dd>
      </div>
      <div>
        <dt>When it is deleted</dt>
        <dd>{known ? `${known.job_hours} hours after the job has ended, with its results. Cancelling deletes it at once.` : "…"}</dd>
      </div>
      <div>
        <dt>How much</dt>
        <dd>{known ? `Up to ${known.max_cells ? `${count(known.max_cells)} cells and ` : ""}${bytes(known.max_body_bytes)}. 3,000 cells take about 20 seconds on a laptop.` : "…"}</dd>
      </div>
    </dl>
  );
}
