// The jobs of this key, to come back to.
import { useEffect, useState } from "preact/hooks";
import { json, send } from "../data/api";
import { nameOf } from "../data/recent";
import { openJob } from "../data/session";
import { fault, job as present } from "../data/state";
import type { JobState } from "../data/types";
import { count } from "./text";

export function Jobs({ done }: { done: () => void }) {
  const [jobs, setJobs] = useState<JobState[] | null>(null);
  const load = () =>
    json<{ jobs: JobState[] }>("jobs")
      .then((found) => setJobs(found.jobs))
      .catch((error: Error) => {
        fault.value = error.message;
        done();
      });
  useEffect(() => void load(), []);
  const stop = (id: string) => send(`jobs/${id}`, { method: "DELETE" }).then(load);
  // Jobs that this browser did not send, such as those that follow a map, have no name here.
  const shown = jobs?.filter((one) => nameOf(one.id) || one.id === present.value?.id) ?? [];
  const others = jobs?.filter((one) => !shown.includes(one)) ?? [];
  if (!jobs) return <p class="hint">Loading …</p>;
  return (
    <div class="jobs">
      {shown.length === 0 && <p class="hint">This browser has started no jobs yet.</p>}
      <List jobs={shown} open={(one) => (done(), void openJob(one.id, nameOf(one.id)))} stop={stop} />
      {others.length > 0 && (
        <details>
          <summary>{count(others.length)} other jobs, such as those from Python or for pathway codes</summary>
          <List jobs={others} open={(one) => (done(), void openJob(one.id, ""))} stop={stop} />
        </details>
      )}
      <p class="hint">Jobs and their results are deleted some time after they end. Names of files are kept in this browser only.</p>
    </div>
  );
}

interface ListProps {
  jobs: JobState[];
  open: (job: JobState) => void;
  stop: (id: string) => void;
}

function List({ jobs, open, stop }: ListProps) {
  return (
    <ul>
      {jobs.map((one) => {
        const ended = one.state === "failed" || one.state === "cancelled";
        return (
          <li key={one.id}>
            <span class={`state ${one.state}`}>{one.state}</span>
            <span class="name">{nameOf(one.id) || one.id.slice(0, 8)}</span>
            <span class="hint">{one.rows ? `${count(one.rows)} cells` : ""}</span>
            {!ended && (
              <button type="button" onClick={() => open(one)}>
                Open
              </button>
            )}
            {(one.state === "queued" || one.state === "running") && (
              <button type="button" onClick={() => stop(one.id)}>
                Cancel
              </button>
            )}
          </li>
        );
      })}
    </ul>
  );
}
