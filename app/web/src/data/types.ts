// What the service answers.

export type Stage = "waiting" | "reading" | "computing" | "concluding";

export interface JobState {
  id: string;
  state: "queued" | "running" | "succeeded" | "failed" | "cancelled";
  rows_done: number;
  rows: number | null;
  seconds_left: number | null;
  stage: Stage | null;
  share: number | null;
  error: string | null;
}

export interface Coverage {
  genes_in: number;
  genes_matched: number;
  genes_of_model: number;
  counts_matched: number | null;
  unmatched: string[];
  left_out: Record<string, number>;
  repaired: Record<string, number>;
}

export interface Note {
  coverage: Coverage;
  input: { detected: string; from: string; why: string; base: number | null } | null;
  warnings: string[];
}

export interface View {
  model: { name: string; version: string };
  num_cells: number;
  outputs: { name: string; width: number; columns: string[] | null; placement: string }[];
  obs: string[];
  /** Colours of categories by column, from the file. */
  colors: Record<string, Record<string, string>>;
  maps: string[];
  note: Note;
}

export interface Facts {
  release: string;
  job_hours: number;
  max_body_bytes: number;
  max_cells: number | null;
  needs_key: boolean;
}

export interface Code {
  code: number;
  genes: string[];
  hits: number;
  terms: { term: string; adjusted_p: number; genes: number }[];
}

export interface Different {
  inside: number;
  outside: number;
}

/** What the map is coloured by. */
export interface Colouring {
  source: "result" | "obs" | "gene" | "code";
  name: string;
}
