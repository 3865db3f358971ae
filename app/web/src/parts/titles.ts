// Names of results in words, with what each number means.
import type { Colouring } from "../data/types";

export const RESULTS: Record<string, { title: string; what: string }> = {
  annotate: { title: "Predicted type", what: "The broad type of the most similar cells of the model's reference; “unknown” for cells that resemble none of them." },
  annotate_cell_type: { title: "Specific type", what: "A finer name, from the closest reference cells with the predicted type. Less certain than the broad one." },
  annotate_nearest_label: { title: "Nearest type", what: "The most similar type, without the limit beyond which a cell is “unknown”." },
  annotate_second_label: { title: "Second best type", what: "The type that comes next." },
  annotate_probability: { title: "Probability", what: "How sure the nearest type is, from 0 to 1, calibrated on tissues that the model had not seen." },
  annotate_distance: { title: "Distance to the reference", what: "Large values: nothing in the reference is like this cell." },
  annotate_unknown: { title: "Unknown (1) or not (0)", what: "Whether the distance is beyond the model's limit." },
  umap_cluster: { title: "Cluster", what: "Leiden clusters of the embedding, at resolution 1. Cluster 0 is the largest." },
};

export function titleOf({ source, name }: Colouring): string {
  if (source === "result") return RESULTS[name]?.title ?? name;
  return source === "code" ? `Code ${name}` : name;
}

export function explain({ source, name }: Colouring): string {
  if (source === "result") return RESULTS[name]?.what ?? "";
  if (source === "gene") return "log1p of counts per 10,000. Imputed: decoded from the cell's embedding and pathway codes, so that dropouts are filled in; smoother than the truth.";
  if (source === "code") return "Share of a cell's pathway tokens that have this code.";
  return "A column of obs in your file.";
}
