// The page: header, then the start, the progress of a job, or the cells.
import { announcement, fault, screen } from "./data/state";
import { Cells } from "./parts/Cells";
import { Header } from "./parts/Header";
import { ProgressScreen } from "./parts/Progress";
import { Start } from "./parts/Start";

export function App() {
  return (
    <>
      <a class="skip" href="#main">
        Skip to content
      </a>
      <Header />
      <main id="main" tabIndex={-1}>
        {fault.value && (
          <div class="fault" role="alert">
            <span>{fault.value}</span>
            <button type="button" class="plain" aria-label="Dismiss the message" onClick={() => (fault.value = null)}>
              ✕
            </button>
          </div>
        )}
        {screen.value === "start" && <Start />}
        {screen.value === "progress" && <ProgressScreen />}
        {screen.value === "cells" && <Cells />}
      </main>
      <div class="sr-only" role="status" aria-live="polite">
        {announcement.value}
      </div>
    </>
  );
}
