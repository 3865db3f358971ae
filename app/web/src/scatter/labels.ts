// Names on the map, where most cells of a category lie.
import type { Values } from "../data/api";
import { entriesOf, isUnknown } from "../data/colour";

const MOST = 24;
const FEWEST_SHARE = 0.01;

export interface Label {
  name: string;
  at: [number, number];
}

function median(numbers: number[]): number {
  return numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!;
}

/** The cell nearest to the median position of each frequent category: a point among its cells. */
export function labelsOf(positions: Float32Array, values: Values | null): Label[] {
  if (!values?.categories) return [];
  const entries = entriesOf(values).filter((entry) => !isUnknown(entry.name) && entry.count >= FEWEST_SHARE * values.values.length);
  if (entries.length > MOST) return [];
  return entries.map((entry) => {
    const rows: number[] = [];
    values.values.forEach((value, row) => value === entry.index && rows.push(row));
    const centre = [median(rows.map((row) => positions[2 * row]!)), median(rows.map((row) => positions[2 * row + 1]!))];
    const far = (row: number) => (positions[2 * row]! - centre[0]!) ** 2 + (positions[2 * row + 1]! - centre[1]!) ** 2;
    const nearest = rows.reduce((best, row) => (far(row) < far(best) ? row : best));
    return { name: entry.name.slice(0, 40), at: [positions[2 * nearest]!, positions[2 * nearest + 1]!] };
  });
}
