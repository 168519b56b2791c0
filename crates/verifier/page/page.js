// Takes a bundle's files from the person, hands them to the verifier, shows what it says. `build.mjs` puts WORKER in.
const at = (id) => document.getElementById(id);
const WORDS = {
  PROVEN: "Proven: this follows from the files alone",
  CLAIMED: "Claimed: the operator says so, the files do not prove it",
  WRONG: "Wrong: this does not hold",
  NOTE: "Notes",
};
const VERDICTS = [
  ["holds", "It holds", "Every check of this program passed. What is only claimed is listed apart."],
  ["fails", "It does not hold", "Do not rely on anything in these files."],
  ["unknown", "It cannot be checked like this", "The program says why below."],
];
const UNTRUSTED = ["unknown", "It hangs together", "Whose signatures these are was not checked: you named nobody whom you believe (step 2)."];
let chosen = [];

function chose(files, name) {
  chosen = files;
  const bytes = files.reduce((sum, { file }) => sum + file.size, 0);
  const size = bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`;
  at("chosen").textContent = files.length ? `${name}: ${files.length} ${files.length === 1 ? "file" : "files"}, ${size}` : "Nothing chosen yet";
  at("check").disabled = files.length === 0;
}

/** What was dropped, folders with all that is in them. */
async function dropped(entry, files) {
  if (entry.isFile) {
    const file = await new Promise((take, fail) => entry.file(take, fail));
    files.push({ path: entry.fullPath.replace(/^\//, ""), file });
    return files;
  }
  const reader = entry.createReader();
  // A reader gives its entries in parts, and an empty part is the end.
  for (;;) {
    const part = await new Promise((take, fail) => reader.readEntries(take, fail));
    if (part.length === 0) return files;
    for (const inner of part) await dropped(inner, files);
  }
}

/** The folder or file that the verifier is told to check: what holds all the others. */
function subject() {
  const [first] = chosen;
  return first.path.includes("/") ? first.path.split("/")[0] : first.path;
}

function show(code, lines, trusted) {
  const [state, title, text] = code === 0 && !trusted ? UNTRUSTED : (VERDICTS[code] ?? VERDICTS[2]);
  const verdict = at("verdict");
  verdict.className = state;
  verdict.replaceChildren(element("strong", title), element("p", text));
  const groups = new Map();
  for (const line of lines) {
    const [, kind, rest] = /^(PROVEN|CLAIMED|WRONG|NOTE) +(.*)$/.exec(line) ?? [null, "", line];
    if (!groups.has(kind)) groups.set(kind, []);
    groups.get(kind).push(rest);
  }
  const shown = [];
  for (const kind of ["WRONG", "PROVEN", "CLAIMED", "NOTE"]) {
    if (!groups.has(kind)) continue;
    const list = element("ul");
    list.className = kind.toLowerCase();
    list.append(...groups.get(kind).map((line) => element("li", line)));
    shown.push(element("h3", WORDS[kind]), list);
  }
  if (groups.has("")) shown.push(element("pre", groups.get("").join("\n")));
  at("lines").replaceChildren(...shown);
  at("result").hidden = false;
  at("result").dataset.code = code;
  at("result").focus();
}

function element(name, text) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  return made;
}

async function program() {
  const bytes = Uint8Array.from(atob(at("program").textContent.trim()), (c) => c.charCodeAt(0));
  return WebAssembly.compile(bytes);
}

async function check(event) {
  event.preventDefault();
  at("check").disabled = true;
  at("result").hidden = true;
  at("busy").hidden = false;
  const args = [];
  const files = [...chosen];
  const [trust] = at("trust").files;
  // A name of its own, beside whatever the bundle holds.
  if (trust) {
    files.push({ path: ".trust/policy", file: trust });
    args.push("--trust", "/.trust/policy");
  }
  const vkey = at("vkey").value.trim();
  if (vkey) args.push("--vkey", vkey);
  args.push(`/${subject()}`);
  const worker = new Worker(URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" })));
  const told = await new Promise((take) => {
    worker.onmessage = ({ data }) => take(data);
    worker.onerror = ({ message }) => take({ code: 2, lines: [`the check broke off: ${message}`] });
    program().then(
      (module) => worker.postMessage({ module, args, files }),
      (problem) => take({ code: 2, lines: [`this browser cannot run the verifier: ${problem}`] }),
    );
  });
  worker.terminate();
  at("busy").hidden = true;
  at("check").disabled = false;
  show(told.code, told.lines, Boolean(trust || vkey));
}

at("folder").addEventListener("change", ({ target }) => {
  const files = [...target.files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
  chose(files, files.length ? files[0].path.split("/")[0] : "");
});
at("file").addEventListener("change", ({ target }) => {
  const files = [...target.files].map((file) => ({ path: file.name, file }));
  chose(files, files.length ? files[0].path : "");
});
const drop = at("drop");
for (const name of ["dragenter", "dragover"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
}
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", async (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const entry = event.dataTransfer.items[0]?.webkitGetAsEntry();
  if (entry) chose(await dropped(entry, []), entry.name);
});
at("form").addEventListener("submit", check);
chose([], "");
