// Pointer, wheel and keys on a map: move, zoom, draw an outline.
import { signal } from "@preact/signals";
import { camera, toMap, zoomed } from "./camera";
import type { Outline } from "./lasso";

export type Tool = "move" | "lasso" | "box";
export type Mode = "replace" | "add" | "subtract";

export const tool = signal<Tool>("lasso");
export const mode = signal<Mode>("replace");

export interface Hooks {
  size(): [number, number];
  outline(outline: Outline, done: boolean, mode: Mode): void;
  hover(px: number, py: number): void;
  moving(moving: boolean): void;
  fit(): void;
}

const STEP = 40;

function modeOf(event: PointerEvent): Mode {
  if (event.shiftKey) return "add";
  return event.altKey ? "subtract" : mode.value;
}

/** Listen on an element. Returns how to stop. */
export function listen(element: HTMLElement, hooks: Hooks): () => void {
  const pointers = new Map<number, [number, number]>();
  let outline: Outline = [];
  let start: [number, number] | null = null;
  let rest = 0;

  const at = (event: PointerEvent | WheelEvent): [number, number] => {
    const box = element.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };
  const settle = () => {
    window.clearTimeout(rest);
    rest = window.setTimeout(() => hooks.moving(false), 150);
  };
  const zoom = (factor: number, px: number, py: number) => {
    hooks.moving(true);
    camera.value = zoomed(camera.value, hooks.size(), factor, px, py);
    settle();
  };
  const shift = (dx: number, dy: number) => {
    hooks.moving(true);
    const { x, y, scale } = camera.value;
    camera.value = { x: x - dx / scale, y: y + dy / scale, scale };
  };

  const down = (event: PointerEvent) => {
    if (event.button > 1) return;
    element.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, at(event));
    start = at(event);
    outline = tool.value === "move" || event.button === 1 || pointers.size > 1 ? [] : [toMap(camera.value, hooks.size(), ...start)];
    if (pointers.size > 1) hooks.outline([], false, "replace");
  };
  const pinch = (event: PointerEvent) => {
    const before = [...pointers.values()];
    pointers.set(event.pointerId, at(event));
    const after = [...pointers.values()];
    const span = ([one, two]: [number, number][]) => Math.hypot(one![0] - two![0], one![1] - two![1]);
    const factor = span(after) / Math.max(1, span(before));
    zoom(factor, (after[0]![0] + after[1]![0]) / 2, (after[0]![1] + after[1]![1]) / 2);
  };
  const drawn = (now: [number, number]): Outline => {
    const here = toMap(camera.value, hooks.size(), ...now);
    if (tool.value === "lasso") return [...outline, here];
    const first = outline[0]!;
    return [first, [here[0], first[1]], here, [first[0], here[1]]];
  };
  const move = (event: PointerEvent) => {
    const before = pointers.get(event.pointerId);
    const now = at(event);
    if (!before) return hooks.hover(...now);
    if (pointers.size === 2) return pinch(event);
    pointers.set(event.pointerId, now);
    if (!outline.length) return shift(now[0] - before[0], now[1] - before[1]);
    outline = drawn(now);
    hooks.outline(outline, false, modeOf(event));
  };
  const up = (event: PointerEvent) => {
    const now = at(event);
    pointers.delete(event.pointerId);
    settle();
    const far = start ? Math.hypot(now[0] - start[0], now[1] - start[1]) : 0;
    if (outline.length > 2 && far + outline.length > 6) hooks.outline(outline, true, modeOf(event));
    else if (outline.length) hooks.outline([], false, "replace");
    outline = [];
  };
  const wheel = (event: WheelEvent) => {
    event.preventDefault();
    zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)), ...at(event));
  };
  const keys: Record<string, () => void> = {
    ArrowLeft: () => shift(STEP, 0),
    ArrowRight: () => shift(-STEP, 0),
    ArrowUp: () => shift(0, STEP),
    ArrowDown: () => shift(0, -STEP),
    "+": () => zoom(1.25, hooks.size()[0] / 2, hooks.size()[1] / 2),
    "=": () => zoom(1.25, hooks.size()[0] / 2, hooks.size()[1] / 2),
    "-": () => zoom(0.8, hooks.size()[0] / 2, hooks.size()[1] / 2),
    "0": () => hooks.fit(),
  };
  const key = (event: KeyboardEvent) => {
    const act = keys[event.key];
    if (!act || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    act();
    settle();
  };
  const leave = () => hooks.hover(-1, -1);

  const listeners: [string, (event: never) => void][] = [
    ["pointerdown", down], ["pointermove", move], ["pointerup", up], ["pointercancel", up],
    ["pointerleave", leave], ["wheel", wheel], ["keydown", key],
  ];
  for (const [name, listener] of listeners) element.addEventListener(name, listener as EventListener, { passive: false });
  return () => {
    for (const [name, listener] of listeners) element.removeEventListener(name, listener as EventListener);
    window.clearTimeout(rest);
  };
}
