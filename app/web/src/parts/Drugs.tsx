// Predicted drug response of groups of cells, as a heat map that is a table.
import { useEffect, useState } from "preact/hooks";
import { json, post, Problem } from "../data/api";
import { css, differenceColour, isLight, type Rgb, scaleColour } from "../data/colour";
import { csv, save } from "../data/files";
import { clusters, fileStem, job, types } from "../data/state";
import type { View } from "../data/types";
import { count } from "./text";

interface Profiles {
  genes: string[];
  obs_names: string[];
  indptr: number[];
  indices: number[];
  data: number[];
  values: "counts" | "linear";
  num_cells: number[];
}

interface Matrix {
  values: (number | null)[][];
}

interface Answer extends Matrix {
  obs_names: string[];
  columns: string[];
  ic50_lower: Matrix;
  ic50_upper: Matrix;
  ic50_relative?: Matrix;
  ic50_percentile?: Matrix;
  cell_distance: Matrix;
  /** Whether each group is like the training lines, in words. */
  domain?: string[];
  drug_response: { cell_distance_of_training: number; terms: string };
}

interface Response {
  answer: Answer;
  sizes: number[];
}

type Order = "spread" | "lowest" | "name";
type Colours = "difference" | "value";
const MOST_DRUGS = 60;
const LARGE_DIFFERENCE = 1.5; // of ln IC50; gets the strongest colour

async function predict(id: string, source: string, name: string): Promise<Response> {
  const query = new URLSearchParams({ source, name }).toString();
  const { values, num_cells: sizes, ...cells } = await json<Profiles>(`jobs/${id}/profiles?${query}`);
  const answer = await post<Answer>(values === "counts" ? "ic50" : "ic50?input=linear", cells);
  return { answer, sizes };
}

export function Drugs({ view }: { view: View }) {
  const groupings: [string, string][] = [
    ...(clusters.value ? [["result:umap_cluster", "cluster"] as [string, string]] : []),
    ...(types.value ? [["result:annotate", "predicted type"] as [string, string]] : []),
    ...view.obs.map((name): [string, string] => [`obs:${name}`, name]),
  ];
  const [by, setBy] = useState(groupings[0]?.[0] ?? "");
  const [found, setFound] = useState<Response | null>(null);
  const [problem, setProblem] = useState("");
  useEffect(() => {
    let current = true;
    setFound(null);
    setProblem("");
    const [source, ...name] = by.split(":");
    predict(job.value!.id, source!, name.join(":"))
      .then((answer) => current && setFound(answer))
      .catch((error: unknown) => current && setProblem(error instanceof Problem ? error.message : String(error)));
    return () => {
      current = false;
    };
  }, [by]);
  return (
    <>
      <h2>Drug response</h2>
      <p class="hint">
        Counts are summed by group, because the model learned from bulk profiles of cell lines; single cells have too few counts. Numbers are ln IC50 (µM); lower is more sensitive. Not for clinical use.
      </p>
      <label class="inline">
        Group by
        <select value={by} onChange={(event) => setBy(event.currentTarget.value)}>
          {groupings.map(([value, label]) => (
            <option key={value} value={value}>
              {label}
            </option>
          ))}
        </select>
      </label>
      {problem && <p class="warning">{problem}</p>}
      {!found && !problem && (
        <p class="hint" role="status">
          Predicting …
        </p>
      )}
      {found && <HeatMap {...found} />}
    </>
  );
}

function sorted(answer: Answer, text: string, order: Order): number[] {
  const wanted = text.toLowerCase();
  const drugs = answer.columns.map((_, at) => at).filter((at) => answer.columns[at]!.toLowerCase().includes(wanted));
  const of = (at: number) => answer.values.map((row) => row[at]).filter((value): value is number => value !== null && value !== undefined);
  const rank: Record<Order, (at: number) => number> = {
    spread: (at) => Math.min(...of(at)) - Math.max(...of(at)),
    lowest: (at) => Math.min(...of(at)),
    name: (at) => at,
  };
  if (order === "name") return drugs.sort((a, b) => answer.columns[a]!.localeCompare(answer.columns[b]!));
  return drugs.sort((a, b) => rank[order](a) - rank[order](b));
}

/** The colour of a value: by itself, or compared with the drug's mean over the groups (blue: more sensitive). */
function colourOf(answer: Answer, kind: Colours): (value: number, drug: number) => Rgb {
  const numbers = answer.values.flat().filter((value): value is number => value !== null).sort((a, b) => a - b);
  const [low, high] = [numbers[Math.floor(0.02 * numbers.length)] ?? 0, numbers[Math.floor(0.98 * numbers.length)] ?? 1];
  if (kind === "value") return (value) => scaleColour(1 - (value - low) / Math.max(1e-6, high - low));
  const means = answer.columns.map((_, drug) => {
    const found = answer.values.map((row) => row[drug]).filter((value): value is number => typeof value === "number");
    return found.reduce((sum, value) => sum + value, 0) / Math.max(1, found.length);
  });
  return (value, drug) => differenceColour((value - means[drug]!) / LARGE_DIFFERENCE);
}

/** For each group, why its numbers need care; "" if it is like the training lines. */
function cautions(answer: Answer): string[] {
  const usual = answer.drug_response.cell_distance_of_training;
  return answer.cell_distance.values.map(([distance], group) => {
    const domain = answer.domain?.[group] ?? ((distance ?? Infinity) > usual ? "outside: far from all training lines" : "");
    return domain.startsWith("outside") ? domain : "";
  });
}

/** All drugs and groups, one pair a line, sorted by drug as the answer is. */
function table({ answer, sizes }: Response): string {
  const pairs = answer.columns.flatMap((_, drug) => answer.obs_names.map((_, group): [number, number] => [drug, group]));
  const matrix = (one?: Matrix) => pairs.map(([drug, group]) => one?.values[group]?.[drug] ?? "");
  const columns = {
    drug: pairs.map(([drug]) => answer.columns[drug]!),
    group: pairs.map(([, group]) => answer.obs_names[group]!),
    cells: pairs.map(([, group]) => sizes[group] ?? ""),
    ic50: matrix(answer),
    ic50_lower: matrix(answer.ic50_lower),
    ic50_upper: matrix(answer.ic50_upper),
    ic50_relative: matrix(answer.ic50_relative),
    ic50_percentile: matrix(answer.ic50_percentile),
    domain: pairs.map(([, group]) => answer.domain?.[group] ?? ""),
  };
  return csv(columns, pairs.map((_, row) => row));
}

/** One decimal, without a minus sign in front of zero. */
function short(value: number): string {
  return value.toFixed(1).replace(/^-(0\.0)$/, "$1");
}

function HeatMap({ answer, sizes }: Response) {
  const [colours, setColours] = useState<Colours>("difference");
  const [text, setText] = useState("");
  const [order, setOrder] = useState<Order>("spread");
  const drugs = sorted(answer, text, order);
  const caution = cautions(answer);
  const colour = colourOf(answer, colours);
  return (
    <>
      <div class="row">
        <input type="search" class="search" aria-label="Search drugs" placeholder={`Search ${answer.columns.length} drugs`} value={text} onInput={(event) => setText(event.currentTarget.value)} />
        <label class="inline">
          Order
          <select value={order} onChange={(event) => setOrder(event.currentTarget.value as Order)}>
            <option value="spread">largest difference</option>
            <option value="lowest">most sensitive</option>
            <option value="name">name</option>
          </select>
        </label>
        <label class="inline">
          Colours
          <select value={colours} onChange={(event) => setColours(event.currentTarget.value as Colours)}>
            <option value="difference">against the drug's mean here</option>
            <option value="value">ln IC50</option>
          </select>
        </label>
      </div>
      <div class="heat" tabIndex={0} role="region" aria-label="Heat map of drugs and groups">
        <table>
          <caption class="sr-only">Predicted ln IC50 by drug and group</caption>
          <thead>
            <tr>
              <th scope="col">Drug</th>
              {answer.obs_names.map((name, group) => (
                <th key={name} scope="col" title={`${count(sizes[group] ?? 0)} cells`}>
                  {name}
                  {caution[group] && <abbr title={caution[group]}> ⚠</abbr>}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {drugs.slice(0, MOST_DRUGS).map((drug) => (
              <tr key={drug}>
                <th scope="row">{answer.columns[drug]}</th>
                {answer.values.map((row, group) => {
                  const value = row[drug] ?? null;
                  if (value === null) return <td key={group}>–</td>;
                  const interval = [answer.ic50_lower, answer.ic50_upper].map((bound) => short(bound.values[group]?.[drug] ?? NaN));
                  return (
                    <td key={group} class={isLight(colour(value, drug)) ? "on-light" : "on-dark"} style={{ background: css(colour(value, drug)) }} title={`${answer.columns[drug]}, ${answer.obs_names[group]}: ${value.toFixed(2)}, 90 % interval ${interval.join(" to ")}`}>
                      {short(value)}
                    </td>
                  );
                })}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <button type="button" onClick={() => save(table({ answer, sizes }), `${fileStem()}.drugs.csv`)}>
        CSV: all drugs and groups, with intervals
      </button>
      <p class="hint">
        {drugs.length > MOST_DRUGS ? `The first ${MOST_DRUGS} of ${drugs.length} drugs. ` : ""}Hover for the 90 % interval. ⚠: the group is farther from all training lines than these are from each other, so read its numbers with care. {answer.drug_response.terms}
      </p>
    </>
  );
}
