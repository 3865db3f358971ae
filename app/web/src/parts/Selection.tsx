// What the selected cells have: types, and the genes and codes that set them apart.
import { useEffect, useState } from "preact/hooks";
import { post } from "../data/api";
import { colourBy } from "../data/session";
import { clusters, codes, codesJob, fault, job, numSelected, selectedRows, selection, types, view } from "../data/state";
import type { Different } from "../data/types";
import type { Values } from "../data/api";
import { count, percent, term } from "./text";

type Gene = Different & { gene: string };
type CodeShare = Different & { code: number };
const MOST_ROWS = 12;

function tally(values: Values, mask: Uint8Array | null): [string, number, number][] {
  const names = values.categories ?? [];
  const inside = new Array<number>(names.length).fill(0);
  const all = new Array<number>(names.length).fill(0);
  values.values.forEach((value, row) => {
    if (value < 0) return;
    all[value]!++;
    if (!mask || mask[row]) inside[value]!++;
  });
  const rows = names.map((name, at): [string, number, number] => [name, inside[at]!, all[at]!]);
  return rows.filter(([, number]) => number > 0).sort((a, b) => b[1] - a[1]);
}

/** Ask the service to compare the selection with the rest, a moment after it last changed. */
function useComparison<T>(id: string | undefined, compare: "genes" | "codes"): T[] | null {
  const [found, setFound] = useState<T[] | null>(null);
  const mask = selection.value;
  useEffect(() => {
    setFound(null);
    if (!id || !mask) return;
    let current = true;
    const wait = window.setTimeout(() => {
      post<Record<string, T[]>>(`jobs/${id}/selection`, { rows: selectedRows(), compare })
        .then((answer) => current && setFound(answer[compare] ?? []))
        .catch((error: Error) => (fault.value = error.message));
    }, 200);
    return () => {
      current = false;
      window.clearTimeout(wait);
    };
  }, [id, mask]);
  return found;
}

export function Selection() {
  const mask = selection.value;
  const genes = useComparison<Gene>(job.value?.id, "genes");
  const shares = useComparison<CodeShare>(codesJob.value?.state === "succeeded" ? codesJob.value.id : undefined, "codes");
  const total = view.value?.num_cells ?? 0;
  return (
    <>
      <h2>{mask ? `${count(numSelected.value)} selected cells` : `All ${count(total)} cells`}</h2>
      {!mask && <p class="hint">Draw around cells on the map, or click “select” in the legend, to see what sets them apart.</p>}
      {types.value && <Shares title="Types" values={types.value} mask={mask} />}
      {clusters.value && <Shares title="Clusters" values={clusters.value} mask={mask} />}
      {mask && <Genes genes={genes} />}
      {mask && <CodeShares shares={shares} />}
    </>
  );
}

function Shares({ title, values, mask }: { title: string; values: Values; mask: Uint8Array | null }) {
  const rows = tally(values, mask);
  const sum = rows.reduce((total, [, number]) => total + number, 0);
  return (
    <table>
      <caption>{title}</caption>
      <thead>
        <tr>
          <th scope="col">{title === "Types" ? "Type" : "Cluster"}</th>
          <th scope="col">Cells</th>
          <th scope="col">Share</th>
        </tr>
      </thead>
      <tbody>
        {rows.slice(0, MOST_ROWS).map(([name, number]) => (
          <tr key={name}>
            <th scope="row">{name}</th>
            <td>{count(number)}</td>
            <td>{percent(number / sum)}</td>
          </tr>
        ))}
      </tbody>
      {rows.length > MOST_ROWS && (
        <tfoot>
          <tr>
            <td colSpan={3}>and {rows.length - MOST_ROWS} more</td>
          </tr>
        </tfoot>
      )}
    </table>
  );
}

function Genes({ genes }: { genes: Gene[] | null }) {
  return (
    <table>
      <caption>Genes that are higher here than elsewhere</caption>
      <thead>
        <tr>
          <th scope="col">Gene</th>
          <th scope="col">Here</th>
          <th scope="col">Elsewhere</th>
        </tr>
      </thead>
      <tbody>
        {genes?.slice(0, MOST_ROWS).map(({ gene, inside, outside }) => (
          <tr key={gene}>
            <th scope="row">
              <button type="button" class="plain link" onClick={() => void colourBy({ source: "gene", name: gene })}>
                {gene}
              </button>
            </th>
            <td>{inside.toFixed(2)}</td>
            <td>{outside.toFixed(2)}</td>
          </tr>
        ))}
      </tbody>
      <tfoot>
        <tr>
          <td colSpan={3}>{genes ? "Mean log1p CP10K. A description, not a test." : "Comparing …"}</td>
        </tr>
      </tfoot>
    </table>
  );
}

function CodeShares({ shares }: { shares: CodeShare[] | null }) {
  const state = codesJob.value?.state;
  const waiting = state === "succeeded" ? "Comparing …" : "Pathway codes are still being computed.";
  const top = (code: number) => {
    const known = codes.value?.find((one) => one.code === code);
    const first = known?.terms[0];
    return first ? term(first.term) : (known?.genes.slice(0, 3).join(", ") ?? "");
  };
  return (
    <table>
      <caption>Codes that are more frequent here</caption>
      <thead>
        <tr>
          <th scope="col">Code</th>
          <th scope="col">Here</th>
          <th scope="col">Elsewhere</th>
        </tr>
      </thead>
      <tbody>
        {shares?.slice(0, MOST_ROWS).map(({ code, inside, outside }) => (
          <tr key={code}>
            <th scope="row">
              <button type="button" class="plain link" onClick={() => void colourBy({ source: "code", name: String(code) })}>
                {code}
              </button>{" "}
              <span class="hint">{top(code)}</span>
            </th>
            <td>{percent(inside)}</td>
            <td>{percent(outside)}</td>
          </tr>
        ))}
      </tbody>
      {!shares && (
        <tfoot>
          <tr>
            <td colSpan={3}>{waiting}</td>
          </tr>
        </tfoot>
      )}
    </table>
  );
}
