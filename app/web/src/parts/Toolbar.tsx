// Tools of the map.
import { select, showMap } from "../data/session";
import { lit, mapName, numSelected, positions, selectedRows, view as known } from "../data/state";
import type { View } from "../data/types";
import { boxOf, camera, fit, zoomed } from "../scatter/camera";
import { type Mode, mode, type Tool, tool } from "../scatter/pointer";
import { count } from "./text";

const TOOLS: [Tool, string, string][] = [
  ["lasso", "Lasso", "Draw around cells. Shift adds, Alt subtracts."],
  ["box", "Box", "Drag a box around cells. Shift adds, Alt subtracts."],
  ["move", "Move", "Drag the map. The wheel zooms with every tool."],
];
const MODES: [Mode, string][] = [
  ["replace", "New"],
  ["add", "Add"],
  ["subtract", "Subtract"],
];

function plane(): [number, number] {
  const element = document.querySelector(".plane");
  return [element?.clientWidth ?? 1, element?.clientHeight ?? 1];
}

function zoom(factor: number): void {
  const size = plane();
  camera.value = zoomed(camera.value, size, factor, size[0] / 2, size[1] / 2);
}

function invert(): void {
  const kept = new Set(selectedRows());
  const rows: number[] = [];
  for (let row = 0; row < (known.value?.num_cells ?? 0); row++) if (!kept.has(row)) rows.push(row);
  select(rows);
}

export function Toolbar({ view }: { view: View }) {
  const clear = () => {
    lit.value = null;
    select([]);
  };
  return (
    <div class="toolbar" role="toolbar" aria-label="Tools of the map">
      <div class="choices" role="group" aria-label="Tool">
        {TOOLS.map(([one, label, title]) => (
          <button key={one} type="button" aria-pressed={tool.value === one} title={title} onClick={() => (tool.value = one)}>
            {label}
          </button>
        ))}
      </div>
      {tool.value !== "move" && (
        <div class="choices" role="group" aria-label="What the next outline does">
          {MODES.map(([one, label]) => (
            <button key={one} type="button" aria-pressed={mode.value === one} onClick={() => (mode.value = one)}>
              {label}
            </button>
          ))}
        </div>
      )}
      {view.maps.length > 0 && (
        <label class="inline">
          Map
          <select value={mapName.value} onChange={(event) => void showMap(event.currentTarget.value)}>
            <option value="umap">UMAP of scPaLM</option>
            {view.maps.map((name) => (
              <option key={name} value={name}>{`${name} of the file`}</option>
            ))}
          </select>
        </label>
      )}
      <div class="choices" role="group" aria-label="View">
        <button type="button" aria-label="Zoom out" onClick={() => zoom(0.8)}>
          −
        </button>
        <button type="button" aria-label="Zoom in" onClick={() => zoom(1.25)}>
          +
        </button>
        <button type="button" onClick={() => (camera.value = fit(boxOf(positions.value!), ...plane()))}>
          All
        </button>
      </div>
      <span class="selected" data-testid="selected">
        {count(numSelected.value)} selected
        {numSelected.value > 0 && (
          <>
            <button type="button" class="plain" onClick={invert}>
              invert
            </button>
            <button type="button" class="plain" onClick={clear}>
              clear
            </button>
          </>
        )}
      </span>
    </div>
  );
}
