// While a file is sent and its job runs: the stages, the time left, and what was found in the file.
import { useRef } from "preact/hooks";
import { cancel } from "../data/session";
import { fileName, job, uploaded, view } from "../data/state";
import type { Stage } from "../data/types";
import { count, percent, seconds } from "./text";
import { Verdict } from "./Verdict";

type Step = "upload" | Stage;

const STEPS: [Step, string][] = [
  ["upload", "Sending the file"],
  ["waiting", "Waiting for its turn"],
  ["reading", "Reading genes and counts"],
  ["computing", "Embedding and naming the cells"],
  ["concluding", "Laying out the map"],
];

/** Estimates the time left of the last stage from how fast its share grows. */
function useTimeLeft(): number | null {
  const started = useRef<{ at: number; share: number } | null>(null);
  const now = job.value;
  if (!now) return null;
  if (now.stage !== "concluding") {
    started.current = null;
    return now.seconds_left;
  }
  const share = now.share ?? 0;
  if (share > 0) started.current ??= { at: performance.now(), share };
  const first = started.current;
  if (!first || share <= first.share) return null;
  const speed = (share - first.share) / (performance.now() - first.at);
  return (1 - share) / speed / 1000;
}

export function ProgressScreen() {
  const now = job.value;
  const current: Step = uploaded.value !== null || !now ? "upload" : (now.stage ?? "concluding");
  const at = STEPS.findIndex(([step]) => step === current);
  const share = current === "upload" ? uploaded.value : (now?.share ?? null);
  const left = useTimeLeft();
  return (
    <section class="progress">
      <h1>{fileName.value || "Your cells"}</h1>
      <ol>
        {STEPS.map(([step, label], index) => (
          <li key={step} class={index < at ? "done" : index === at ? "now" : "later"} aria-current={index === at ? "step" : undefined}>
            <span class="dot" aria-hidden="true">
              {index < at ? "✓" : ""}
            </span>
            <span>
              {label}
              {index === at && step === "computing" && now?.rows ? ` · ${count(now.rows_done)} of ${count(now.rows)}` : ""}
            </span>
            {index === at && <Bar share={share} label={label} />}
          </li>
        ))}
      </ol>
      <p class="hint">
        {left !== null && left > 0 ? `About ${seconds(left)} left in this step. ` : ""}
        You can close this page: the job goes on, and “Jobs” finds it again.
      </p>
      <button type="button" onClick={() => void cancel()}>
        Cancel
      </button>
      {view.value && <Verdict view={view.value} />}
    </section>
  );
}

function Bar({ share, label }: { share: number | null; label: string }) {
  const known = share !== null && share > 0;
  return (
    <span class={`bar ${known ? "" : "unknown"}`} role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={known ? Math.round(100 * share) : undefined} aria-valuetext={known ? percent(share) : "working"}>
      <span style={{ width: known ? `${100 * share}%` : "30%" }} />
    </span>
  );
}
