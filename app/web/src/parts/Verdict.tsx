// What was found in the file, in plain words.
import type { Coverage, View } from "../data/types";
import { count, percent } from "./text";

const KINDS: Record<string, string> = { counts: "raw counts", linear: "normalised values without a logarithm" };

function kindOf(detected: string): string {
  return KINDS[detected] ?? (detected.startsWith("log") ? `log values (${detected})` : detected);
}

function list(found: Record<string, number>): string {
  return Object.entries(found)
    .map(([what, number]) => `${count(number)} × ${what}`)
    .join(", ");
}

function judgement(coverage: Coverage): [string, string] {
  const share = coverage.counts_matched ?? coverage.genes_matched / Math.max(1, coverage.genes_in);
  if (coverage.genes_of_model < 2_000) return ["warn", "Few genes are known. Read types and drug response with care."];
  if (share < 0.8) return ["warn", "A large part of the counts is in genes that the model does not know."];
  return ["good", "The file can be used without reservations."];
}

export function Verdict({ view }: { view: View }) {
  const { coverage, input, warnings } = view.note;
  const [tone, sentence] = judgement(coverage);
  return (
    <section class={`verdict ${tone}`} aria-label="What was found in the file">
      <p class="sentence">
        <span aria-hidden="true">{tone === "good" ? "✓" : "!"}</span> {sentence}
      </p>
      <ul>
        {input && (
          <li>
            <b>{kindOf(input.detected)}</b> in <code>{input.from}</code>: {input.why}.
          </li>
        )}
        <li>
          <b>
            {count(coverage.genes_matched)} of {count(coverage.genes_in)} genes
          </b>{" "}
          are known{coverage.counts_matched !== null && `, with ${percent(coverage.counts_matched)} of the counts`}.
          {coverage.unmatched.length > 0 && (
            <details>
              <summary>Unknown ones</summary>
              <span class="names">{coverage.unmatched.join(", ")} …</span>
            </details>
          )}
        </li>
        {Object.keys(coverage.left_out).length > 0 && <li>Left out: {list(coverage.left_out)}.</li>}
        {Object.keys(coverage.repaired).length > 0 && <li>Gene names repaired: {list(coverage.repaired)}.</li>}
        {warnings.map((warning) => (
          <li key={warning} class="warning">
            {warning}
          </li>
        ))}
      </ul>
    </section>
  );
}
