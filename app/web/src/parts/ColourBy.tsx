// What the map is coloured by: a result, a column of the file, a gene or a code.
import { useState } from "preact/hooks";
import { colourBy } from "../data/session";
import { codes, codesJob, colouring, genes } from "../data/state";
import type { Colouring, View } from "../data/types";
import { explain, RESULTS } from "./titles";

const MOST_SUGGESTED = 30;

function suggestions(text: string): string[] {
  const wanted = text.trim().toUpperCase();
  if (!wanted) return [];
  const starting = genes.value.filter((gene) => gene.toUpperCase().startsWith(wanted));
  return starting.sort((a, b) => a.length - b.length || a.localeCompare(b)).slice(0, MOST_SUGGESTED);
}

export function ColourBy({ view }: { view: View }) {
  const { source, name } = colouring.value;
  const results = view.outputs.filter((output) => output.name in RESULTS);
  const hasCodes = codes.value && codesJob.value?.state === "succeeded";
  const choose = (event: Event) => {
    const [kind, ...rest] = (event.currentTarget as HTMLSelectElement).value.split(":");
    void colourBy({ source: kind as Colouring["source"], name: rest.join(":") });
  };
  return (
    <section class="card colour-by">
      <label>
        Colour by
        <select value={`${source}:${name}`} onChange={choose}>
          <optgroup label="Results">
            {results.map((output) => (
              <option key={output.name} value={`result:${output.name}`}>
                {RESULTS[output.name]!.title}
              </option>
            ))}
          </optgroup>
          {view.obs.length > 0 && (
            <optgroup label="Columns of your file">
              {view.obs.map((column) => (
                <option key={column} value={`obs:${column}`}>
                  {column}
                </option>
              ))}
            </optgroup>
          )}
          {hasCodes && (
            <optgroup label="Pathway codes">
              {codes.value!.map(({ code, genes: top }) => (
                <option key={code} value={`code:${code}`}>
                  {`Code ${code} · ${top.slice(0, 3).join(", ")}`}
                </option>
              ))}
            </optgroup>
          )}
          {source === "gene" && (
            <optgroup label="Gene">
              <option value={`gene:${name}`}>{name}</option>
            </optgroup>
          )}
        </select>
      </label>
      <GeneField />
      <p class="hint">{explain(colouring.value)}</p>
    </section>
  );
}

function GeneField() {
  const [text, setText] = useState("");
  const found = suggestions(text);
  const choose = (gene: string) => {
    const wanted = gene.trim();
    const known = genes.value.find((one) => one.toUpperCase() === wanted.toUpperCase());
    if (wanted) void colourBy({ source: "gene", name: known ?? wanted });
  };
  const submit = (event: Event) => {
    event.preventDefault();
    choose(text);
  };
  const input = (event: Event) => {
    const value = (event.currentTarget as HTMLInputElement).value;
    setText(value);
    if ((event as InputEvent).inputType === "insertReplacementText") choose(value); // picked from the list
  };
  return (
    <form class="gene" onSubmit={submit}>
      <label>
        Gene
        <input type="search" list="genes" placeholder="CD3D, LYZ …" autoComplete="off" spellcheck={false} value={text} onInput={input} />
      </label>
      <datalist id="genes">
        {found.map((gene) => (
          <option key={gene} value={gene} />
        ))}
      </datalist>
      <button type="submit">Show</button>
    </form>
  );
}
