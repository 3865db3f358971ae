// Which cells lie inside an outline, and which one is under the pointer.

export type Outline = [number, number][];

/** Cells inside a polygon, by the even-odd rule. All in the units of the map. */
export function inside(positions: Float32Array, outline: Outline): number[] {
  const rows: number[] = [];
  const xs = outline.map((point) => point[0]);
  const ys = outline.map((point) => point[1]);
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  for (let row = 0; row < positions.length / 2; row++) {
    const x = positions[2 * row]!;
    const y = positions[2 * row + 1]!;
    if (x < left || x > right || y < low || y > high) continue;
    let odd = false;
    for (let i = 0, j = xs.length - 1; i < xs.length; j = i++) {
      if (ys[i]! > y !== ys[j]! > y && x < ((xs[j]! - xs[i]!) * (y - ys[i]!)) / (ys[j]! - ys[i]!) + xs[i]!) odd = !odd;
    }
    if (odd) rows.push(row);
  }
  return rows;
}

/** The nearest cell within a distance, or -1. Cells are kept in squares, so that moving the pointer is cheap. */
export class Nearest {
  private readonly squares = new Map<number, number[]>();
  private readonly side: number;

  constructor(
    private readonly positions: Float32Array,
    extent: number,
  ) {
    this.side = Math.max(extent / 200, 1e-9);
    for (let row = 0; row < positions.length / 2; row++) {
      const key = this.key(positions[2 * row]!, positions[2 * row + 1]!);
      const square = this.squares.get(key);
      if (square) square.push(row);
      else this.squares.set(key, [row]);
    }
  }

  find(x: number, y: number, distance: number): number {
    let best = -1;
    let smallest = distance * distance;
    const reach = Math.min(4, Math.ceil(distance / this.side));
    for (let i = -reach; i <= reach; i++) {
      for (let j = -reach; j <= reach; j++) {
        for (const row of this.squares.get(this.key(x + i * this.side, y + j * this.side)) ?? []) {
          const far = (this.positions[2 * row]! - x) ** 2 + (this.positions[2 * row + 1]! - y) ** 2;
          if (far < smallest) [best, smallest] = [row, far];
        }
      }
    }
    return best;
  }

  private key(x: number, y: number): number {
    return Math.floor(x / this.side) * 1_000_003 + Math.floor(y / this.side);
  }
}
