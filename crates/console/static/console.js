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

for (const button of document.querySelectorAll("[data-approve]")) {
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

for (const button of document.querySelectorAll("[data-enrol]")) {
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

for (const time of document.querySelectorAll("time")) {
  const at = new Date(time.dateTime);
  if (!Number.isNaN(at.getTime())) time.textContent = at.toLocaleString(undefined, { dateStyle: "medium", timeStyle: time.closest(".when") ? "medium" : "short" });
}
