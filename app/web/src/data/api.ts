// Requests to the service. Paths are relative, because a proxy may serve it below a prefix.
import { signal } from "@preact/signals";

const KEY = "scpalm.key";
const NPY = "application/x-npy";

/** The API key, kept for this tab only. */
export const apiKey = signal(sessionStorage.getItem(KEY) ?? "");
/** Whether the service asked for a key that it accepts. */
export const keyRefused = signal(false);

export function setKey(key: string): void {
  apiKey.value = key.trim();
  sessionStorage.setItem(KEY, apiKey.value);
  keyRefused.value = false;
}

/** An answer of the service that says what is wrong. */
export class Problem extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
  ) {
    super(message);
  }
}

export interface Values {
  values: Float32Array;
  /** Texts that the values are positions in; null for numbers. */
  categories: string[] | null;
  /** Colours of some categories, from the file. */
  colours?: Record<string, string>;
}

function headers(more: Record<string, string>): Record<string, string> {
  return apiKey.value ? { ...more, Authorization: `Bearer ${apiKey.value}` } : more;
}

function problemOf(status: number, text: string): Problem {
  if (status === 401) keyRefused.value = true;
  try {
    const body = JSON.parse(text) as { detail?: string; title?: string; type?: string };
    return new Problem(body.detail ?? body.title ?? text, status, body.type?.split(":").at(-1) ?? "");
  } catch {
    return new Problem(`The service answered with status ${status}.`, status, "");
  }
}

export async function send(path: string, init: RequestInit & { headers?: Record<string, string> } = {}): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, { ...init, headers: headers(init.headers ?? {}) });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new Problem("The service cannot be reached. Is it running?", 0, "unreachable");
  }
  if (!answer.ok) throw problemOf(answer.status, await answer.text());
  return answer;
}

export async function json<T>(path: string, init: RequestInit & { headers?: Record<string, string> } = {}): Promise<T> {
  return (await (await send(path, init)).json()) as T;
}

export function post<T>(path: string, body: unknown): Promise<T> {
  const how = { "Content-Type": "application/json", Accept: "application/json" };
  return json<T>(path, { method: "POST", headers: how, body: JSON.stringify(body) });
}

/** Numbers of an npy array of float32. */
export function parseNpy(buffer: ArrayBuffer): Float32Array {
  const length = new DataView(buffer).getUint16(8, true);
  return new Float32Array(buffer.slice(10 + length));
}

/** One value per cell, or two for a map. */
export async function column(job: string, source: string, name: string, signal?: AbortSignal): Promise<Values> {
  const query = new URLSearchParams({ source, name }).toString();
  const how = { headers: { Accept: `${NPY}, application/json` }, ...(signal ? { signal } : {}) };
  const answer = await send(`jobs/${job}/column?${query}`, how);
  if (answer.headers.get("content-type")?.startsWith(NPY)) {
    return { values: parseNpy(await answer.arrayBuffer()), categories: null };
  }
  const found = (await answer.json()) as { values: (number | null)[]; categories?: string[] };
  const values = Float32Array.from(found.values, (value) => value ?? NaN);
  return { values, categories: found.categories ?? null };
}

/** Send a file as a new job. `fetch` cannot report the progress of an upload. */
export function upload(path: string, file: File, progress: (share: number) => void, signal: AbortSignal): Promise<{ id: string }> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path);
    for (const [name, value] of Object.entries(headers({ Prefer: "respond-async" }))) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => progress(event.lengthComputable ? event.loaded / event.total : 0);
    request.onload = () => {
      if (request.status === 202) resolve(JSON.parse(request.responseText) as { id: string });
      else reject(problemOf(request.status, request.responseText));
    };
    request.onerror = () => reject(new Problem("The upload was interrupted. Is the service running?", 0, "unreachable"));
    request.onabort = () => reject(new DOMException("cancelled", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    const form = new FormData();
    form.append("file", file, "cells");
    request.send(form);
  });
}
