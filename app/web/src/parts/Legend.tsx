// What the colours mean. Click a category to light it up.
import { useState } from "preact/hooks";
import { css, entriesOf, scaleColour } from "../data/colour";
import { range } from "../data/range";
import { select } from "../data/session";
import { colouring, lit, values } from "../data/state";
import { titleOf } from "./titles";
import { count, percent } from "./text";

const MOST_SHOWN = 400;
const SEARCH_FROM = 12;

export function Legend() {
  const found = values.value;
  if (!found) return null;
  return (
    <section class="card legend" aria-label="Legend">
      <h2>{titleOf(colouring.value)}</h2>
      {found.categories ? <Categories /> : <Scale />}
    </section>
  );
}

function Scale() {
  const [low, high] = range.value ?? [0, 1];
  const steps = Array.from({ length: 24 }, (_, at) => css(scaleColour(at / 23)));
  return (
    <div class="scale">
      <div class="steps" aria-hidden="true">
        {steps.map((colour) => (
          <span key={colour} style={{ background: colour }} />
        ))}
      </div>
      <div class="ends">
        <span>{low.toPrecision(3)}</span>
        <span>{high.toPrecision(3)}</span>
      </div>
      <p class="hint">The scale ends at the 99.5th percentile.</p>
    </div>
  );
}

function Categories() {
  const [text, setText] = useState("");
  const found = values.value!;
  const entries = entriesOf(found);
  const shown = entries.filter((entry) => entry.name.toLowerCase().includes(text.toLowerCase())).slice(0, MOST_SHOWN);
  const selectCategory = (index: number) => {
    const rows: number[] = [];
    found.values.forEach((value, row) => value === index && rows.push(row));
    lit.value = null;
    select(rows);
  };
  return (
    <>
      {entries.length > SEARCH_FROM && (
        <input type="search" class="search" aria-label="Search the legend" placeholder={`Search ${entries.length} names`} value={text} onInput={(event) => setText(event.currentTarget.value)} />
      )}
      <ul class="entries">
        {shown.map((entry) => (
          <li key={entry.index}>
            <button type="button" class="plain entry" aria-pressed={lit.value === entry.index} title="Light up" onClick={() => (lit.value = lit.value === entry.index ? null : entry.index)}>
              <span class="swatch" style={{ background: css(entry.colour) }} aria-hidden="true" />
              <span class="name">{entry.name}</span>
              <span class="share">{percent(entry.count / found.values.length)}</span>
            </button>
            <button type="button" class="plain pick" onClick={() => selectCategory(entry.index)} aria-label={`Select the ${count(entry.count)} cells of ${entry.name}`}>
              select
            </button>
          </li>
        ))}
      </ul>
    </>
  );
}
