// The cells: what was found, how the map is coloured, the map, and what can be done with it.
import { useMemo, useState } from "preact/hooks";
import type { Values } from "../data/api";
import { coloursOf, dim } from "../data/colour";
import { range } from "../data/range";
import { colouring, imputed, imputing, lit, loading, positions, selection, values, view } from "../data/state";
import { Scatter } from "../scatter/Scatter";
import { Codes } from "./Codes";
import { ColourBy } from "./ColourBy";
import { Drugs } from "./Drugs";
import { Exports } from "./Exports";
import { Legend } from "./Legend";
import { Selection } from "./Selection";
import { titleOf } from "./titles";
import { Toolbar } from "./Toolbar";
import { Verdict } from "./Verdict";

const TABS = { selection: "Selection", codes: "Codes", drugs: "Drugs", exports: "Save" } as const;
type Tab = keyof typeof TABS;

function useColours(found: Values | null): Uint8Array {
  const numCells = (positions.value?.length ?? 0) / 2;
  const [mask, only, scale] = [selection.value, lit.value, range.value];
  return useMemo(() => {
    const colours = coloursOf(found, numCells, scale);
    if (mask) dim(colours, (cell) => mask[cell] === 1);
    else if (only !== null && found?.categories) dim(colours, (cell) => found.values[cell] === only);
    return colours;
  }, [found, numCells, mask, only, scale]);
}

export function Cells() {
  const [tab, setTab] = useState<Tab>("selection");
  const known = view.value;
  if (!known) return null;
  return (
    <div class="cells">
      <aside class="left" aria-label="Colours">
        <ColourBy view={known} />
        <Legend />
        <details class="card">
          <summary>What was found in the file</summary>
          <Verdict view={known} />
        </details>
      </aside>
      <section class="middle" aria-label="Map">
        <Toolbar view={known} />
        <Maps />
      </section>
      <aside class="right-side" aria-label="Results">
        <div class="tabs" role="tablist" aria-label="Results">
          {(Object.keys(TABS) as Tab[]).map((one) => (
            <button key={one} type="button" role="tab" id={`tab-${one}`} aria-selected={one === tab} aria-controls="panel" tabIndex={one === tab ? 0 : -1} onClick={() => setTab(one)} onKeyDown={(event) => turn(event, tab, setTab)}>
              {TABS[one]}
            </button>
          ))}
        </div>
        <div id="panel" class="panel" role="tabpanel" aria-labelledby={`tab-${tab}`} tabIndex={0}>
          {tab === "selection" && <Selection />}
          {tab === "codes" && <Codes />}
          {tab === "drugs" && <Drugs view={known} />}
          {tab === "exports" && <Exports view={known} />}
        </div>
      </aside>
    </div>
  );
}

/** Arrow keys move between tabs. */
function turn(event: KeyboardEvent, tab: Tab, setTab: (tab: Tab) => void): void {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  const all = Object.keys(TABS) as Tab[];
  const next = all[(all.indexOf(tab) + step + all.length) % all.length]!;
  setTab(next);
  document.getElementById(`tab-${next}`)?.focus();
}

function Maps() {
  const colours = useColours(values.value);
  const imputedColours = useColours(imputed.value);
  const isGene = colouring.value.source === "gene";
  const title = titleOf(colouring.value);
  return (
    <div class={`maps ${isGene ? "two" : ""}`} aria-busy={loading.value}>
      <Scatter title={isGene ? `${title}, measured` : title} colours={colours} values={values.value} />
      {isGene &&
        (imputed.value ? (
          <Scatter title={`${title}, imputed`} colours={imputedColours} values={imputed.value} />
        ) : (
          <div class="map waiting">
            {imputing.value ? <p role="status">Imputing {title} and the 1,000 most variable genes. Later ones appear at once.</p> : <p>There are no imputed values.</p>}
          </div>
        ))}
      {loading.value && <div class="spinner" role="status" aria-label="Loading" />}
    </div>
  );
}
