// What a page cannot do without a script: passkeys, and moments in the reader's own zone.
"use strict";

const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

const send = async (path, what) => {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(what),
    redirect: "error",
  });
  if (!answer.ok) throw new Error(await answer.text());
  return answer.text();
};

// One press, one try: what went wrong is said where the button is.
const press = (button, work) => {
  const told = button.parentElement.querySelector(".told");
  button.addEventListener("click", async () => {
    if (!window.PublicKeyCredential) {
      told.textContent = "This browser has no passkeys. Use another one, or the command line.";
      return;
    }
    button.disabled = true;
    told.textContent = "Your device asks you now.";
    try {
      await work(told);
    } catch (problem) {
      told.textContent = problem.name === "NotAllowedError" ? "Nothing was signed: your device was not asked to the end, or has no passkey for this place." : problem.message;
    }
    button.disabled = false;
  });
};

// What a page has, now or once it has followed.
const attach = (root) => {
  for (const button of root.querySelectorAll("[data-approve]")) {
    const { approve, challenge, relyingParty, token } = button.dataset;
    press(button, async () => {
      const credential = await navigator.credentials.get({
        publicKey: { challenge: bytes(challenge), rpId: relyingParty, userVerification: "required", timeout: 120000 },
      });
      const { authenticatorData, clientDataJSON, signature } = credential.response;
      await send(approve, {
        token,
        assertion: { authenticatorData: text(authenticatorData), clientDataJSON: text(clientDataJSON), signature: text(signature) },
      });
      location.reload();
    });
  }

  for (const button of root.querySelectorAll("[data-enrol]")) {
    const { enrol, name, relyingParty, token } = button.dataset;
    press(button, async (told) => {
      const credential = await navigator.credentials.create({
        publicKey: {
          rp: { id: relyingParty, name: "Ringfence" },
          user: { id: crypto.getRandomValues(new Uint8Array(16)), name, displayName: name },
          challenge: crypto.getRandomValues(new Uint8Array(32)),
          pubKeyCredParams: [{ type: "public-key", alg: -7 }],
          authenticatorSelection: { residentKey: "required", userVerification: "required" },
          timeout: 120000,
        },
      });
      document.getElementById("line").value = await send(enrol, { token, spki: text(credential.response.getPublicKey()) });
      told.textContent = "Made. Give the line to whoever keeps the registry.";
    });
  }

  for (const time of root.querySelectorAll("time")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) time.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: time.closest(".when") ? "medium" : "short" });
  }
};
attach(document);

// Pages follow what happens, unless somebody is writing: then they are told, and decide.
const live = document.getElementById("live");
if (live && window.EventSource) {
  const isBusy = () => document.activeElement?.closest("main form, dialog") || [...document.querySelectorAll("main option")].some((o) => o.selected !== (o.defaultSelected || (o.index === 0 && !o.parentElement.querySelector("option[selected]")))) || [...document.querySelectorAll("main input:not([type=hidden]), main textarea")].some((f) => (f.type === "checkbox" ? f.checked !== f.defaultChecked : f.value !== f.defaultValue)) || document.querySelector("main button:disabled");
  // When what is shown was asked for.
  let asked = performance.getEntriesByType("navigation")[0]?.requestStart ?? 0;
  const follow = async () => {
    asked = performance.now();
    const wait = () => {
      if (isBusy()) live.textContent = "Something has changed meanwhile. Reload when you are done.";
      return isBusy();
    };
    if (wait()) return;
    const answer = await fetch(location.href, { headers: { "ringfence-follows": "1" } }).catch(() => null);
    if (!answer || !answer.ok || answer.redirected) return;
    const html = await answer.text().catch(() => null);
    // Somebody may have begun to write while it came.
    if (html === null || wait()) return;
    const page = new DOMParser().parseFromString(html, "text/html");
    const open = [...document.querySelectorAll("main details[open] > summary")].map((s) => s.textContent);
    const main = document.getElementById("main");
    main.replaceChildren(...page.getElementById("main").childNodes);
    for (const summary of main.querySelectorAll("details > summary")) if (open.includes(summary.textContent)) summary.parentElement.open = true;
    attach(main);
  };
  const events = new EventSource("/events");
  events.addEventListener("change", follow);
  // Something may have changed before this page, or a lost connection, began to listen.
  events.addEventListener("last", (event) => Number(event.data) < performance.now() - asked && follow());
}
