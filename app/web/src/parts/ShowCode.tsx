// What the page does, as code to copy.
import { useState } from "preact/hooks";
import { apiKey } from "../data/api";
import { facts, fileName } from "../data/state";

type Language = "Python" | "curl" | "Shell";

const LANGUAGES: Language[] = ["Python", "curl", "Shell"];

/** A name in quotes for the shell. */
function quoted(name: string): string {
  return /^[\w.-]+$/.test(name) ? name : `'${name.replaceAll("'", `'\\''`)}'`;
}

function codeOf(language: Language, file: string, url: string, key: boolean): string {
  if (language === "Python") {
    return `${key ? "import os\n" : ""}import anndata
import scpalm

adata = anndata.read_h5ad(${JSON.stringify(file)})
client = scpalm.Client(${JSON.stringify(url.replace(/\/$/, ""))}${key ? ', key=os.environ["SCPALM_KEY"]' : ""})
# or, without a server:  client = scpalm.load()

client.annotate(adata)      # obs["scpalm_label"], obs["scpalm_probability"], ...
client.umap(adata)          # obsm["X_scpalm_umap"], obs["scpalm_cluster"]
client.pathways(adata)      # obsm["X_scpalm_pathways"]
client.impute(adata, ["CD3D", "LYZ"])
client.ic50(adata, by="scpalm_cluster")      # counts summed by group`;
  }
  const auth = key ? ` -H "Authorization: Bearer $SCPALM_KEY"` : "";
  if (language === "curl") {
    return `# at once: the file with the results added
curl -fsS${auth} -F file=@${quoted(file)} '${url}annotate?also=umap,pathways' -o result.h5ad

# as a job, like this page
JOB=$(curl -fsS${auth} -F file=@${quoted(file)} -H 'Prefer: respond-async' '${url}annotate?also=umap' | sed 's/.*"id":"\\([^"]*\\)".*/\\1/')
curl -fsSN${auth} '${url}jobs/'$JOB/events
curl -fsS${auth} '${url}jobs/'$JOB/result -o result.h5ad

# one gene of a finished job, for all cells
curl -fsS${auth} '${url}jobs/'$JOB'/column?source=gene&name=CD3D'`;
  }
  return `# without a server
scpalm annotate ${quoted(file)} -o annotated.h5ad
scpalm umap ${quoted(file)} -o map.h5ad
scpalm pathways ${quoted(file)} -o codes.h5ad
scpalm impute ${quoted(file)} --genes CD3D --genes LYZ -o imputed.csv`;
}

export function ShowCode() {
  const [language, setLanguage] = useState<Language>("Python");
  const [copied, setCopied] = useState(false);
  const url = new URL(".", location.href).href;
  const code = codeOf(language, fileName.value || "cells.h5ad", url, Boolean(apiKey.value || facts.value?.needs_key));
  const copy = () => void navigator.clipboard.writeText(code).then(() => setCopied(true));
  return (
    <div class="code">
      <div class="choices" role="group" aria-label="Language">
        {LANGUAGES.map((one) => (
          <button key={one} type="button" aria-pressed={one === language} onClick={() => (setLanguage(one), setCopied(false))}>
            {one}
          </button>
        ))}
        <button type="button" class="right" onClick={copy}>
          {copied ? "Copied" : "Copy"}
        </button>
      </div>
      <pre tabIndex={0}>
        <code>{code}</code>
      </pre>
    </div>
  );
}
