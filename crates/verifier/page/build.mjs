// Puts the verifier and its page into one HTML file that names every script and style that it runs by its hash.
// Usage: node build.mjs PROGRAM.wasm VERSION OUT.html
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { build } from "esbuild";

const [program, version, out] = process.argv.slice(2);
const sha256 = (bytes, encoding) => createHash("sha256").update(bytes).digest(encoding);
const here = (name) => new URL(name, import.meta.url).pathname;

async function bundle(entry, define) {
  const made = await build({ entryPoints: [here(entry)], bundle: true, write: false, minify: true, format: "iife", charset: "utf8", define });
  // What a script's element holds must not end it.
  return made.outputFiles[0].text.trim().replaceAll("</script", "<\\/script");
}

const wasm = readFileSync(program);
const worker = await bundle("worker.js", {});
const script = await bundle("page.js", { WORKER: JSON.stringify(worker) });
const style = readFileSync(here("page.css"), "utf8").trim();
const policy = [
  "default-src 'none'",
  `script-src 'sha256-${sha256(script, "base64")}' 'wasm-unsafe-eval'`,
  `style-src 'sha256-${sha256(style, "base64")}'`,
  "worker-src blob:",
  "base-uri 'none'",
  "form-action 'none'",
].join("; ");
const parts = {
  CSP: `<meta http-equiv="Content-Security-Policy" content="${policy}">`,
  STYLE: `<style>${style}</style>`,
  VERSION: version,
  DIGEST: sha256(wasm, "hex"),
  PROGRAM: wasm.toString("base64"),
  SCRIPT: `<script>${script}</script>`,
};
const page = readFileSync(here("index.html"), "utf8").replace(/<!--([A-Z]+)-->/g, (_, name) => parts[name]);
writeFileSync(out, page);
console.log(`${out}: ${Math.round(page.length / 1000)} kB, program ${parts.DIGEST}`);
