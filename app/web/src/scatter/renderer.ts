// Draws points: on WebGL2, or on a 2D canvas where there is none.
import type { Camera } from "./camera";
import { GlRenderer } from "./gl";

export interface Renderer {
  readonly kind: "webgl2" | "canvas";
  setPositions(positions: Float32Array): void;
  /** RGBA of each cell. */
  setColours(colours: Uint8Array): void;
  /** Draw. While the map moves, `share` may be under 1: then only so many of the points are drawn. */
  draw(view: Camera, size: [number, number], ratio: number, share: number): void;
  close(): void;
}

/** Order in which points are drawn: shuffled, so that no group covers the others, and the same every time. */
export function shuffled(count: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  let seed = 12345;
  for (let i = count - 1; i > 0; i--) {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    const j = seed % (i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** Diameter of a point in pixels of the screen. */
export function pointSize(count: number, view: Camera, fitted: number): number {
  const base = Math.max(1.6, Math.min(8, 260 / Math.sqrt(Math.max(1, count))));
  return base * Math.min(4, Math.max(1, Math.sqrt(view.scale / fitted)));
}

export function openRenderer(canvas: HTMLCanvasElement): Renderer {
  const wanted = new URLSearchParams(location.search).get("renderer");
  const gl = wanted === "canvas" ? null : canvas.getContext("webgl2", { antialias: false, premultipliedAlpha: true, preserveDrawingBuffer: true });
  return gl ? new GlRenderer(gl) : new CanvasRenderer(canvas.getContext("2d")!);
}

/** The same picture without GL. Slower: about 100 ms for 20,000 points. */
export class CanvasRenderer implements Renderer {
  readonly kind = "canvas";
  private positions: Float32Array = new Float32Array();
  private colours: Uint8Array = new Uint8Array();
  private order: Uint32Array = new Uint32Array();
  private fitted = 0;

  constructor(private readonly context: CanvasRenderingContext2D) {}

  setPositions(positions: Float32Array): void {
    this.positions = positions;
    this.order = shuffled(positions.length / 2);
    this.fitted = 0;
  }

  setColours(colours: Uint8Array): void {
    this.colours = colours;
  }

  draw(view: Camera, size: [number, number], ratio: number, share: number): void {
    const { context, positions, colours } = this;
    this.fitted ||= view.scale;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, size[0], size[1]);
    const diameter = pointSize(this.order.length, view, this.fitted);
    const count = Math.ceil(share * this.order.length);
    for (const faint of [true, false]) {
      for (let at = 0; at < count; at++) {
        const cell = this.order[at]!;
        const alpha = colours[4 * cell + 3]!;
        if (alpha < 255 !== faint) continue;
        const x = size[0] / 2 + (positions[2 * cell]! - view.x) * view.scale;
        const y = size[1] / 2 - (positions[2 * cell + 1]! - view.y) * view.scale;
        if (x < 0 || y < 0 || x > size[0] || y > size[1]) continue;
        context.fillStyle = `rgb(${colours[4 * cell]} ${colours[4 * cell + 1]} ${colours[4 * cell + 2]} / ${alpha / 255})`;
        context.fillRect(x - diameter / 2, y - diameter / 2, diameter, diameter);
      }
    }
  }

  close(): void {
    this.positions = new Float32Array();
  }
}
