import { useState } from "preact/hooks";
import { apiKey, keyRefused, setKey } from "../data/api";
import { showStart } from "../data/session";
import { facts, fileName, screen, view } from "../data/state";
import { isDark, toggleTheme } from "../theme";
import { Dialog } from "./Dialog";
import { Jobs } from "./Jobs";
import { ShowCode } from "./ShowCode";
import { count } from "./text";

type Open = "jobs" | "code" | null;

export function Header() {
  const [open, setOpen] = useState<Open>(null);
  return (
    <header class="top">
      <button type="button" class="brand plain" onClick={showStart} aria-label="scPaLM, back to the start">
        <svg viewBox="0 0 32 32" aria-hidden="true">
          <rect width="32" height="32" rx="8" class="mark" />
          <g class="dots">
            <circle cx="10" cy="12" r="3" />
            <circle cx="17" cy="9" r="2" />
            <circle cx="13" cy="19" r="2.4" class="warm" />
            <circle cx="20" cy="16" r="3.2" class="warm" />
            <circle cx="22" cy="23" r="2" />
          </g>
        </svg>
        <span>scPaLM</span>
      </button>
      {screen.value === "cells" && view.value && (
        <p class="crumb">
          <strong>{fileName.value || "Cells"}</strong> <span>{count(view.value.num_cells)} cells</span>
        </p>
      )}
      <nav aria-label="Tools">
        {screen.value === "cells" && (
          <button type="button" onClick={showStart}>
            Another file
          </button>
        )}
        <button type="button" onClick={() => setOpen("jobs")}>
          Jobs
        </button>
        <button type="button" onClick={() => setOpen("code")}>
          Code
        </button>
        <a class="button" href="docs">
          API
        </a>
        <button type="button" class="icon" onClick={toggleTheme} aria-label={isDark.value ? "Light colours" : "Dark colours"}>
          {isDark.value ? "☀" : "☾"}
        </button>
      </nav>
      {(facts.value?.needs_key || keyRefused.value) && <KeyField />}
      {open === "jobs" && (
        <Dialog title="Jobs" close={() => setOpen(null)}>
          <Jobs done={() => setOpen(null)} />
        </Dialog>
      )}
      {open === "code" && (
        <Dialog title="The same in code" close={() => setOpen(null)}>
          <ShowCode />
        </Dialog>
      )}
    </header>
  );
}

function KeyField() {
  const [text, setText] = useState(apiKey.value);
  const save = (event: Event) => {
    event.preventDefault();
    setKey(text);
  };
  return (
    <form class={`key ${keyRefused.value || !apiKey.value ? "needed" : ""}`} onSubmit={save}>
      <label>
        API key
        <input type="password" autoComplete="off" value={text} onInput={(event) => setText(event.currentTarget.value)} />
      </label>
      <button type="submit">Use</button>
      <span class="hint">{keyRefused.value ? "The service does not accept this key." : apiKey.value ? "In use, for this tab only." : "This service needs a key. It is kept for this tab only."}</span>
    </form>
  );
}
