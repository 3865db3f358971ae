// One map of the cells.
import { effect } from "@preact/signals";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Values } from "../data/api";
import { cellNames, positions, probabilities, selectedRows, selection, types } from "../data/state";
import { select } from "../data/session";
import { boxOf, camera, fit, toMap, toPixel } from "./camera";
import { labelsOf } from "./labels";
import { inside, Nearest, type Outline } from "./lasso";
import { listen, type Mode, tool } from "./pointer";
import { openRenderer, type Renderer } from "./renderer";

const FRAME_MS = 30; // at most, while the map moves
const LONGEST_FRAME_MS = 500; // a longer time is a pause

interface Props {
  title: string;
  colours: Uint8Array;
  values: Values | null;
}

/** Draws when something changes, at most once a frame. While the map moves, only as many points as a frame allows. */
class Drawing {
  private share = 1;
  private last = 0;
  private waiting = false;
  moving = false;

  constructor(
    readonly canvas: HTMLCanvasElement,
    readonly renderer: Renderer,
  ) {}

  size(): [number, number] {
    return [this.canvas.clientWidth || 1, this.canvas.clientHeight || 1];
  }

  resize(): void {
    const [width, height] = this.size();
    const ratio = this.ratio();
    this.canvas.width = Math.round(width * ratio);
    this.canvas.height = Math.round(height * ratio);
    this.request();
  }

  ratio(): number {
    return Math.min(2, window.devicePixelRatio || 1);
  }

  request(): void {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.drawNow();
    });
  }

  drawNow(): void {
    // Drawing is asynchronous; the time between frames shows what it costs.
    const took = performance.now() - this.last;
    this.last += took;
    if (this.moving && took < LONGEST_FRAME_MS) {
      this.share *= Math.min(1.1, Math.max(0.5, FRAME_MS / took));
      this.share = Math.min(1, Math.max(0.03, this.share));
    }
    this.renderer.draw(camera.peek(), this.size(), this.ratio(), this.moving ? this.share : 1);
  }
}

function combined(rows: number[], mode: Mode): number[] {
  if (mode === "replace") return rows;
  const kept = new Set(selectedRows());
  for (const row of rows) {
    if (mode === "add") kept.add(row);
    else kept.delete(row);
  }
  return [...kept].sort((a, b) => a - b);
}

function textOf(values: Values | null, row: number): string {
  const value = values?.values[row];
  if (value === undefined) return "";
  return values!.categories ? (values!.categories[value] ?? "–") : value.toPrecision(3);
}

function tip(values: Values | null, row: number): string {
  const probability = probabilities.value?.values[row];
  const sure = probability === undefined ? "" : `, probability ${probability.toFixed(2)}`;
  const type = types.value ? textOf(types.value, row) + sure : "";
  const shown = values === types.value ? [type] : [textOf(values, row), type];
  return `${cellNames.value?.[row] ?? `cell ${row}`}: ${shown.filter(Boolean).join(" · ")}`;
}

export function Scatter({ title, colours, values }: Props) {
  const frame = useRef<HTMLDivElement>(null);
  const canvas = useRef<HTMLCanvasElement>(null);
  const path = useRef<SVGPathElement>(null);
  const drawing = useRef<Drawing | null>(null);
  const latest = useRef(values);
  latest.current = values;
  const [hover, setHover] = useState<{ x: number; y: number; text: string } | null>(null);

  useEffect(() => {
    const one = (drawing.current = new Drawing(canvas.current!, openRenderer(canvas.current!)));
    canvas.current!.dataset.renderer = one.renderer.kind;
    let nearest: Nearest | null = null;
    const fitNow = () => (camera.value = fit(boxOf(positions.peek()!), ...one.size()));
    const showOutline = (outline: Outline) => {
      const points = outline.map(([x, y]) => toPixel(camera.peek(), one.size(), x, y).map((v) => v.toFixed(1)).join(","));
      path.current!.setAttribute("d", points.length ? `M${points.join("L")}Z` : "");
    };
    const stop = listen(frame.current!, {
      size: () => one.size(),
      fit: fitNow,
      moving: (moving) => {
        one.moving = moving;
        one.request();
      },
      outline: (outline, done, mode) => {
        showOutline(done ? [] : outline);
        if (done) select(combined(inside(positions.peek()!, outline), mode));
      },
      hover: (px, py) => {
        const [x, y] = toMap(camera.peek(), one.size(), px, py);
        const row = px < 0 ? -1 : (nearest?.find(x, y, 8 / camera.peek().scale) ?? -1);
        setHover(row < 0 ? null : { x: px, y: py, text: tip(latest.current, row) });
      },
    });
    const stopPositions = effect(() => {
      const found = positions.value;
      if (!found) return;
      one.renderer.setPositions(found);
      const box = boxOf(found);
      nearest = new Nearest(found, Math.max(box.high[0] - box.low[0], box.high[1] - box.low[1]));
      fitNow();
    });
    const stopCamera = effect(() => {
      void camera.value; // subscribes to it
      one.request();
    });
    const observer = new ResizeObserver(() => {
      one.resize();
      fitNow();
    });
    observer.observe(frame.current!);
    return () => {
      stop();
      stopPositions();
      stopCamera();
      observer.disconnect();
      one.renderer.close();
    };
  }, []);

  const map = positions.value;
  const labels = useMemo(() => (map ? labelsOf(map, values) : []), [map, values]);
  const view = camera.value;
  const size = drawing.current?.size() ?? [1, 1];
  useEffect(() => {
    if (!drawing.current || !map || colours.length !== 2 * map.length) return;
    drawing.current.renderer.setColours(colours);
    drawing.current.request();
  }, [colours, map]);

  return (
    <figure class="map">
      <figcaption>{title}</figcaption>
      <div ref={frame} class={`plane tool-${tool.value}`} tabIndex={0} role="application" aria-roledescription="map" aria-label={`Map of the cells, ${title}. Arrow keys move it, plus and minus zoom, 0 shows all.`}>
        <canvas ref={canvas} data-selected={selection.value ? "yes" : "no"} />
        <svg class="outline" aria-hidden="true">
          <path ref={path} />
        </svg>
        {labels.map(({ name, at }) => {
          const [x, y] = toPixel(view, size, ...at);
          const hidden = x < 0 || y < 0 || x > size[0] || y > size[1];
          return (
            !hidden && (
              <span key={name} class="label" aria-hidden="true" style={{ left: `${x}px`, top: `${y}px` }}>
                {name}
              </span>
            )
          );
        })}
        {hover && (
          <div class="tip" style={{ left: `${hover.x}px`, top: `${hover.y}px` }}>
            {hover.text}
          </div>
        )}
      </div>
    </figure>
  );
}
