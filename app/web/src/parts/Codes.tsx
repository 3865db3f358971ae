// The pathway codes: their genes and terms. Click one to colour the map.
import { useState } from "preact/hooks";
import { colourBy } from "../data/session";
import { codes, codesJob, colouring } from "../data/state";
import type { Code } from "../data/types";
import { percent, term } from "./text";

function matches(code: Code, text: string): boolean {
  const wanted = text.toLowerCase();
  if (!wanted) return true;
  const texts = [String(code.code), ...code.genes, ...code.terms.map((one) => one.term.replaceAll("_", " "))];
  return texts.some((one) => one.toLowerCase().includes(wanted));
}

export function Codes() {
  const [text, setText] = useState("");
  const state = codesJob.value;
  if (!codes.value) return <p class="hint">This model has no annotated codes.</p>;
  const shown = codes.value.filter((code) => matches(code, text)).sort((a, b) => b.hits - a.hits || a.code - b.code);
  const ready = state?.state === "succeeded";
  return (
    <>
      <h2>Pathway codes</h2>
      <p class="hint">The model describes each cell by 96 tokens, each with one of {codes.value.length} codes. Genes: those that a code changes most. Terms: Reactome and Hallmark sets enriched among them, at a false discovery rate of 5 %.</p>
      {!ready && (
        <p class="hint" role="status">
          {state?.state === "failed" ? `The codes could not be computed: ${state.error}` : `The codes of your cells are being computed${state?.rows ? `: ${percent(state.rows_done / state.rows)}` : ""} …`}
        </p>
      )}
      <input type="search" class="search" aria-label="Search codes by gene or term" placeholder="Gene or term" value={text} onInput={(event) => setText(event.currentTarget.value)} />
      <ul class="code-list">
        {shown.map((code) => {
          const active = colouring.value.source === "code" && colouring.value.name === String(code.code);
          return (
            <li key={code.code}>
              <button type="button" class="plain" disabled={!ready} aria-pressed={active} onClick={() => void colourBy({ source: "code", name: String(code.code) })}>
                <b>Code {code.code}</b>
                <span class="genes">{code.genes.slice(0, 8).join(" · ")}</span>
                {code.terms.slice(0, 3).map((one) => (
                  <span key={one.term} class="term">
                    {term(one.term)}
                  </span>
                ))}
              </button>
            </li>
          );
        })}
      </ul>
    </>
  );
}
