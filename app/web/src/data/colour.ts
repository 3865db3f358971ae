// From values to colours. Categories get colours that colour-blind people can tell apart, as far as there are such.
import type { Values } from "./api";

export type Rgb = readonly [number, number, number];

// Okabe and Ito (2008), then Tol's muted scheme (2021), then Tableau's.
const CATEGORY_COLOURS = [
  "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#b8a900", "#332288", "#88ccee", "#117733",
  "#aa4499", "#999933", "#882255", "#44aa99", "#cc6677", "#6f4e7c", "#9c755f", "#4e79a7", "#f28e2b", "#59a14f",
  "#b07aa1", "#e15759", "#76b7b2", "#86bcb6",
];
const VIRIDIS = ["#440154", "#482878", "#3e4a89", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725"];
const NEUTRAL: Rgb = [148, 155, 164];
const GOLDEN_ANGLE = 137.508;

export function rgbOf(hex: string): Rgb {
  return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)) as unknown as Rgb;
}

export function css([red, green, blue]: Rgb): string {
  return `rgb(${red} ${green} ${blue})`;
}

function fromHue(hue: number): Rgb {
  const channel = (at: number) => {
    const k = (at + hue / 30) % 12;
    return Math.round(255 * (0.5 - 0.32 * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

/** The colour of a category by its rank: the most frequent one has rank 0. */
export function categoryColour(rank: number): Rgb {
  const hex = CATEGORY_COLOURS[rank];
  return hex ? rgbOf(hex) : fromHue((rank * GOLDEN_ANGLE) % 360);
}

export const isUnknown = (name: string): boolean => name === "unknown";

/** A colour of the scale for a share from 0 to 1. */
export function scaleColour(share: number): Rgb {
  const at = Math.min(0.9999, Math.max(0, share)) * (VIRIDIS.length - 1);
  const [low, high] = [rgbOf(VIRIDIS[Math.floor(at)]!), rgbOf(VIRIDIS[Math.floor(at) + 1]!)];
  const part = at - Math.floor(at);
  return [0, 1, 2].map((i) => Math.round(low[i]! + part * (high[i]! - low[i]!))) as unknown as Rgb;
}

const COOL: Rgb = [33, 102, 172];
const MIDDLE: Rgb = [247, 247, 247];
const WARM: Rgb = [178, 24, 43];

/** A colour from blue over white to red for a share from -1 to 1 (ColorBrewer's RdBu, safe for colour-blind people). */
export function differenceColour(share: number): Rgb {
  const end = share < 0 ? COOL : WARM;
  const part = Math.min(1, Math.abs(share));
  return MIDDLE.map((middle, i) => Math.round(middle + part * (end[i]! - middle))) as unknown as Rgb;
}

/** Whether black text is easier to read on a colour than white (WCAG 2 luminance). */
export function isLight(colour: Rgb): boolean {
  const [red, green, blue] = colour.map((value) => {
    const part = value / 255;
    return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * red! + 0.7152 * green! + 0.0722 * blue! > 0.179;
}

export interface Entry {
  index: number;
  name: string;
  count: number;
  colour: Rgb;
}

/** The categories that occur, most frequent first; unknown ones last, in grey. The file's own colours come first. */
export function entriesOf(values: Values): Entry[] {
  const names = values.categories ?? [];
  const counts = new Array<number>(names.length).fill(0);
  for (const value of values.values) if (value >= 0) counts[value]!++;
  const entries = names.map((name, index) => ({ index, name, count: counts[index]!, colour: NEUTRAL }));
  const present = entries.filter((entry) => entry.count > 0).sort((a, b) => b.count - a.count);
  const own = values.colours ?? {};
  const colourOf = (name: string, rank: number) => (own[name] ? rgbOf(own[name]) : categoryColour(rank));
  const known = present.filter((entry) => !isUnknown(entry.name)).map((entry, rank) => ({ ...entry, colour: colourOf(entry.name, rank) }));
  return [...known, ...present.filter((entry) => isUnknown(entry.name))];
}

/** Smallest value, and a high percentile, so that a few cells do not take the whole scale. */
export function rangeOf(values: Float32Array): [number, number] {
  const finite = values.filter((value) => Number.isFinite(value)).sort();
  if (!finite.length) return [0, 1];
  const low = finite[0]!;
  const high = finite[Math.min(finite.length - 1, Math.floor(0.995 * finite.length))]!;
  return high > low ? [low, high] : [low, finite.at(-1)! > low ? finite.at(-1)! : low + 1];
}

/** RGBA of each cell. ``alpha`` 0 to 255. */
export function coloursOf(values: Values | null, numCells: number, range: [number, number] | null): Uint8Array {
  const out = new Uint8Array(4 * numCells);
  const palette: Rgb[] = [];
  for (const entry of values?.categories ? entriesOf(values) : []) palette[entry.index] = entry.colour;
  const [low, high] = range ?? [0, 1];
  for (let cell = 0; cell < numCells; cell++) {
    const value = values?.values[cell] ?? NaN;
    let colour: Rgb = NEUTRAL;
    if (values?.categories) colour = palette[value] ?? NEUTRAL;
    else if (Number.isFinite(value)) colour = scaleColour((value - low) / (high - low));
    out.set(colour, 4 * cell);
    out[4 * cell + 3] = 255;
  }
  return out;
}

/** Turn cells that are not selected, or not of the lit category, grey and faint. In place. */
export function dim(colours: Uint8Array, keep: (cell: number) => boolean): void {
  for (let cell = 0; cell < colours.length / 4; cell++) {
    if (keep(cell)) continue;
    colours.set(NEUTRAL, 4 * cell);
    colours[4 * cell + 3] = 50;
  }
}
