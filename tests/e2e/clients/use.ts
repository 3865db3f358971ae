// Uses the generated client. `node use.js URL CELLS.json FILE.h5ad` prints what the service answered as JSON.
import { readFileSync } from "node:fs";

import { annotate, embed, getJob, getJobResult, ic50, listModels } from "./client";
import { createClient, createConfig, formDataBodySerializer } from "./client/client";
import type { EmbedCells, EmbedErrors, EmbedForm, EmbedResponses, Problem } from "./client";

const [baseUrl, json, h5ad] = process.argv.slice(2);
// The answer to a file is a file, unless JSON is asked for.
const client = createClient(createConfig({ baseUrl, headers: { Accept: "application/json" } }));

const cells: EmbedCells = JSON.parse(readFileSync(json, "utf-8"));

function failed(problem: Problem): Error {
  return new Error(`${problem.status} ${problem.title}: ${problem.detail}`);
}

// Functions of this generator take the first kind of body, JSON. A form is sent with the same types.
async function upload(file: Blob): Promise<number[][]> {
  const body: EmbedForm = { file, output: "f" };
  const { data, error } = await client.post<EmbedResponses, EmbedErrors>({
    ...formDataBodySerializer,
    url: "/embed",
    body,
    headers: { "Content-Type": null },
  });
  if (error) throw failed(error);
  if (!data || !("values" in data)) throw new Error("This is a job.");
  return data.values;
}

async function runAsJob(): Promise<{ names: string[]; values: number }> {
  const accepted = await embed({ client, body: cells, headers: { Prefer: "respond-async" } });
  if (accepted.error) throw failed(accepted.error);
  if (!("id" in accepted.data)) throw new Error("This is no job.");
  const job_id = accepted.data.id;
  for (;;) {
    const { data, error } = await getJob({ client, path: { job_id } });
    if (error) throw failed(error);
    if (data.state === "failed") throw new Error(data.error ?? "failed");
    if (data.state === "succeeded") break;
    await new Promise((done) => setTimeout(done, 20));
  }
  const result = await getJobResult({ client, path: { job_id } });
  if (result.error) throw failed(result.error);
  if (!(result.data && "obs_names" in result.data)) throw new Error("The result is not JSON.");
  return { names: result.data.obs_names, values: result.data.values.length };
}

async function main(): Promise<void> {
  const direct = await embed({ client, body: cells });
  if (direct.error) throw failed(direct.error);
  if (!("values" in direct.data)) throw new Error("This is a job.");

  const response = await ic50({ client, body: { ...cells, drugs: ["Cisplatin"] } });
  if (response.error) throw failed(response.error);
  if (!("ic50_lower" in response.data)) throw new Error("This is a job.");
  const { values, ic50_lower, ic50_upper, cell_distance, domain, drug_response } = response.data;

  const types = await annotate({ client, body: cells });
  if (types.error) throw failed(types.error);
  if (!("label" in types.data)) throw new Error("This is a job.");
  const labels: string[] = types.data.label;
  const probabilities: number[] = types.data.probability;

  const refused = await embed({ client, body: { ...cells, data: cells.data.map((value) => -value) } });
  const problem: Problem | undefined = refused.error;

  const models = await listModels({ client });
  console.log(
    JSON.stringify({
      embedding: direct.data.values,
      uploaded: await upload(new Blob([readFileSync(h5ad)])),
      ic50: [values, ic50_lower.values, ic50_upper.values].map((rows) => rows[0][0]),
      distance: cell_distance.values[0][0],
      domain,
      units: drug_response.units,
      drug: drug_response.drugs[0].pubchem_id,
      labels,
      probabilities,
      job: await runAsJob(),
      problem: { status: problem?.status, gene: problem?.gene, title: problem?.title },
      models: models.data?.models.map((model) => model.name),
    }),
  );
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
