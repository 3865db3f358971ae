// The map with its legend, as PNG, or as SVG around a raster map: 100,000 points as paths would be 23 MB.
import { css, entriesOf, scaleColour } from "./colour";
import { range } from "./range";
import { colouring, values } from "./state";
import { titleOf } from "../parts/titles";

const WIDTH = 260;
const LINE = 22;
const MOST = 40;
const FONT = "14px system-ui, sans-serif";

interface Item {
  text: string;
  colour: string;
}

function items(): Item[] {
  const found = values.value;
  if (!found) return [];
  if (found.categories) return entriesOf(found).slice(0, MOST).map((entry) => ({ text: entry.name, colour: css(entry.colour) }));
  const [low, high] = range.value ?? [0, 1];
  return [0, 0.25, 0.5, 0.75, 1].map((share) => ({ text: (low + share * (high - low)).toPrecision(3), colour: css(scaleColour(share)) }));
}

function background(): [string, string] {
  const style = getComputedStyle(document.documentElement);
  return [style.getPropertyValue("--paper").trim() || "#fff", style.getPropertyValue("--ink").trim() || "#000"];
}

function map(): HTMLCanvasElement {
  return document.querySelector<HTMLCanvasElement>(".plane canvas")!;
}

export function png(): Promise<Blob> {
  const source = map();
  const ratio = source.width / source.clientWidth;
  const canvas = document.createElement("canvas");
  canvas.width = source.width + WIDTH * ratio;
  canvas.height = source.height;
  const context = canvas.getContext("2d")!;
  const [paper, ink] = background();
  context.fillStyle = paper;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0);
  context.setTransform(ratio, 0, 0, ratio, source.width + 10 * ratio, 0);
  context.font = `600 ${FONT}`;
  context.fillStyle = ink;
  context.fillText(titleOf(colouring.value), 0, 28, WIDTH - 20);
  context.font = FONT;
  items().forEach(({ text, colour }, at) => {
    const y = 52 + at * LINE;
    context.fillStyle = colour;
    context.fillRect(0, y - 11, 12, 12);
    context.fillStyle = ink;
    context.fillText(text, 20, y, WIDTH - 40);
  });
  return new Promise((resolve, reject) => canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("The picture could not be made."))), "image/png"));
}

/** Text for XML: names come from files. */
export function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`).replace(/[^\t\n\r\x20-\uffff]/g, "");
}

export function svg(): string {
  const source = map();
  const [width, height] = [source.clientWidth, source.clientHeight];
  const [paper, ink] = background();
  const legend = items().map(({ text, colour }, at) => {
    const y = 52 + at * LINE;
    return `<rect x="${width + 10}" y="${y - 11}" width="12" height="12" fill="${escaped(colour)}"/><text x="${width + 30}" y="${y}">${escaped(text)}</text>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width + WIDTH}" height="${height}" font-family="sans-serif" font-size="14" fill="${escaped(ink)}"><rect width="100%" height="100%" fill="${escaped(paper)}"/><image width="${width}" height="${height}" href="${source.toDataURL("image/png")}"/><text x="${width + 10}" y="28" font-weight="600">${escaped(titleOf(colouring.value))}</text>${legend.join("")}</svg>\n`;
}
