// Which part of the map is seen. All maps on the page share one camera.
import { signal } from "@preact/signals";

export interface Camera {
  /** Centre in the units of the map, and pixels per unit. */
  x: number;
  y: number;
  scale: number;
}

export const camera = signal<Camera>({ x: 0, y: 0, scale: 1 });

export interface Box {
  low: [number, number];
  high: [number, number];
}

export function boxOf(positions: Float32Array): Box {
  const low: [number, number] = [Infinity, Infinity];
  const high: [number, number] = [-Infinity, -Infinity];
  for (let at = 0; at < positions.length; at++) {
    const axis = at % 2;
    const value = positions[at]!;
    if (value < low[axis]!) low[axis] = value;
    if (value > high[axis]!) high[axis] = value;
  }
  return { low, high };
}

/** The camera that shows a whole box in so many pixels. */
export function fit(box: Box, width: number, height: number): Camera {
  const [spanX, spanY] = [Math.max(1e-6, box.high[0] - box.low[0]), Math.max(1e-6, box.high[1] - box.low[1])];
  return {
    x: (box.low[0] + box.high[0]) / 2,
    y: (box.low[1] + box.high[1]) / 2,
    scale: 0.92 * Math.min(width / spanX, height / spanY),
  };
}

export function toMap(view: Camera, size: [number, number], px: number, py: number): [number, number] {
  return [view.x + (px - size[0] / 2) / view.scale, view.y - (py - size[1] / 2) / view.scale];
}

export function toPixel(view: Camera, size: [number, number], x: number, y: number): [number, number] {
  return [size[0] / 2 + (x - view.x) * view.scale, size[1] / 2 - (y - view.y) * view.scale];
}

/** Zoom by a factor, with the point under the pointer kept in place. */
export function zoomed(view: Camera, size: [number, number], factor: number, px: number, py: number): Camera {
  const [x, y] = toMap(view, size, px, py);
  const scale = view.scale * factor;
  return { x: x - (px - size[0] / 2) / scale, y: y + (py - size[1] / 2) / scale, scale };
}
