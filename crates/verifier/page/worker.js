// Runs ringfence-verify, the program of the command line, as WebAssembly over files in memory. It has no network to reach: the
// page's Content-Security-Policy holds here too.
import { ConsoleStdout, Directory, File, OpenFile, PreopenDirectory, WASI } from "@bjorn3/browser_wasi_shim";

/** The folders and files of `files` (path and bytes) as the program sees them. */
function tree(files) {
  const root = new Map();
  for (const { path, bytes } of files) {
    const steps = path.split("/").filter((step) => step !== "" && step !== "." && step !== "..");
    const name = steps.pop();
    let folder = root;
    for (const step of steps) {
      if (!(folder.get(step) instanceof Directory)) folder.set(step, new Directory(new Map()));
      folder = folder.get(step).contents;
    }
    folder.set(name, new File(bytes, { readonly: true }));
  }
  return root;
}

async function read(files) {
  const told = [];
  for (const { path, file } of files) told.push({ path, bytes: new Uint8Array(await file.arrayBuffer()) });
  return told;
}

self.onmessage = async ({ data: { module, args, files } }) => {
  const lines = [];
  try {
    const root = new PreopenDirectory("/", tree(await read(files)));
    const out = ConsoleStdout.lineBuffered((line) => lines.push(line));
    const wasi = new WASI(["ringfence-verify", ...args], [], [new OpenFile(new File([])), out, out, root]);
    const instance = await WebAssembly.instantiate(module, { wasi_snapshot_preview1: wasi.wasiImport });
    self.postMessage({ code: wasi.start(instance), lines });
  } catch (problem) {
    // A program that broke has shown nothing, whatever it printed before.
    self.postMessage({ code: 2, lines: [...lines, `the check broke off: ${problem}`] });
  }
};
