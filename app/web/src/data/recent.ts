// Names of files by job: the service does not keep them, this browser does.
const ITEM = "scpalm.names";
const MOST = 100;

type Names = Record<string, string>;

function read(): Names {
  try {
    return JSON.parse(localStorage.getItem(ITEM) ?? "{}") as Names;
  } catch {
    return {};
  }
}

export function remember(job: string, name: string): void {
  const entries = Object.entries({ ...read(), [job]: name }).slice(-MOST);
  localStorage.setItem(ITEM, JSON.stringify(Object.fromEntries(entries)));
}

export function nameOf(job: string): string {
  return read()[job] ?? "";
}
