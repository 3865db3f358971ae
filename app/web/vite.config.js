import preact from "@preact/preset-vite";
import license from "rollup-plugin-license";
import { defineConfig } from "vite";

// The built files are committed, so that serving needs no node. Names have a hash of the content: browsers keep them.
export default defineConfig({
  base: "./",
  plugins: [preact({ devToolsEnabled: false, prefreshEnabled: false })],
  build: {
    outDir: "built",
    assetsDir: "page",
    target: "es2022",
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rollupOptions: {
      plugins: [
        license({
          thirdParty: {
            output: { file: "built/page/licenses.txt", encoding: "utf-8" },
          },
        }),
      ],
    },
  },
  server: { proxy: Object.fromEntries(["/jobs", "/annotate", "/ic50", "/models", "/drugs", "/sample", "/page/facts.json", "/docs", "/openapi.json"].map((path) => [path, "http://localhost:8000"])) },
});
