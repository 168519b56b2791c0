// People at the console, each in a browser of their own with an authenticator of their own. Reads commands as JSON lines, answers each with one.
// Usage: node console_test.js ORIGIN
const { chromium } = require("playwright-core");
const { execFileSync } = require("child_process");
const { readFileSync } = require("fs");
const http = require("http");
const readline = require("readline");
const { createHash, randomBytes } = require("crypto");

const origin = process.argv[2];
const people = new Map();
const errors = [];
const entered = new Map();
let browser;

async function person(name) {
  if (people.has(name)) return people.get(name);
  const context = await browser.newContext();
  const page = await context.newPage();
  const cdp = await context.newCDPSession(page);
  await cdp.send("WebAuthn.enable");
  const { authenticatorId } = await cdp.send("WebAuthn.addVirtualAuthenticator", {
    options: { protocol: "ctap2", transport: "internal", hasResidentKey: true, hasUserVerification: true, isUserVerified: true, automaticPresenceSimulation: true },
  });
  page.on("console", (message) => message.type() === "error" && message.location().url.startsWith(origin) && errors.push(message.text()));
  page.on("pageerror", (problem) => errors.push(String(problem)));
  const who = { context, page, cdp, authenticatorId, sent: [] };
  page.on("request", (request) => request.method() === "POST" && request.url().endsWith("/approve") && who.sent.push(request.postData()));
  people.set(name, who);
  return who;
}

// Logs in without a browser, following what a browser would: the cookie of the console that comes of it.
async function enter(name) {
  const jars = new Map();
  const hop = async (url, form) => {
    const jar = jars.get(url.origin) ?? new Map();
    jars.set(url.origin, jar);
    const cookie = [...jar].map(([n, v]) => `${n}=${v}`).join("; ");
    const headers = { cookie, ...(form ? { origin: url.origin } : {}) };
    const answer = await fetch(url, { method: form ? "POST" : "GET", body: form, headers, redirect: "manual" });
    for (const line of answer.headers.getSetCookie()) {
      const [pair] = line.split(";");
      const at = pair.indexOf("=");
      jar.set(pair.slice(0, at), pair.slice(at + 1));
    }
    return answer;
  };
  let url = new URL("/login", origin);
  let form;
  for (let step = 0; step < 20; step++) {
    const answer = await hop(url, form);
    const text = await answer.text();
    form = undefined;
    if (answer.status === 429) await new Promise((resolve) => setTimeout(resolve, 1000));
    else if (answer.headers.get("location")) url = new URL(answer.headers.get("location"), url);
    else if (url.origin === origin) return [...jars.get(origin)].filter(([, v]) => v).map(([n, v]) => `${n}=${v}`).join("; ");
    else {
      url = new URL(text.match(/action="([^"]+)"/)[1], url);
      form = new URLSearchParams(text.includes('name="login"') ? { prompt: "login", login: name, password: "any" } : { prompt: "consent" });
    }
  }
  throw new Error(`${name} cannot log in`);
}

const seen = async (page, answer) => ({ status: answer?.status(), url: page.url(), text: await page.locator("body").innerText() });

const commands = {
  async login({ as }) {
    return commands.visit({ as, url: `${origin}/`, until: origin });
  },
  async open({ as, path }) {
    const { page } = await person(as);
    const answer = await seen(page, await page.goto(origin + path));
    const all = (selector, read) => page.locator(selector).evaluateAll(read);
    return {
      ...answer,
      checked: await all("input[type=checkbox]:checked", (boxes) => boxes.map((b) => b.value)),
      entries: await all("a[href^='/ledger/']", (links) => links.map((a) => a.textContent).filter((t) => /^\d+$/.test(t))),
      approvable: (await page.locator("[data-approve]").count()) > 0,
    };
  },
  // A form filled in as somebody would.
  async submit({ as, path, action, open, fields, uncheck = [] }) {
    const { page } = await person(as);
    await page.goto(origin + path);
    if (open) await page.locator("summary", { hasText: open }).click();
    const form = page.locator(`form[action$="${action}"]`).first();
    for (const [name, value] of Object.entries(fields)) {
      const field = form.locator(`[name="${name}"]`);
      if ((await field.evaluate((f) => f.tagName)) === "SELECT") await field.selectOption(value);
      else await field.fill(value);
    }
    for (const value of uncheck) await form.locator(`input[value="${value}"]`).uncheck();
    const [, answer] = await Promise.all([page.waitForNavigation(), page.waitForResponse((r) => r.request().method() === "POST"), form.locator("button").last().click()]);
    await page.waitForLoadState();
    return { ...(await seen(page)), status: answer.status() };
  },
  // What a form of a page gives as a file, in base64.
  async download({ as, path, action, fields }) {
    const { page, context } = await person(as);
    await page.goto(origin + path);
    const token = await page.inputValue("input[name=token]");
    const answer = await context.request.post(origin + action, { form: { token, ...fields }, headers: { origin } });
    return { status: answer.status(), file: (await answer.body()).toString("base64") };
  },
  // The form of the page that is open, as it is.
  async press({ as, action }) {
    const { page } = await person(as);
    await Promise.all([page.waitForNavigation(), page.locator(`form[action$="${action}"] button`).last().click()]);
    await page.waitForLoadState();
    return seen(page);
  },
  async fetch({ as, path }) {
    const { context } = await person(as);
    const answer = await context.request.get(origin + path);
    return { status: answer.status(), text: await answer.text() };
  },
  // Logs in at the provider for a program, and lets it have what it asks for: by a page, or by a code for a device.
  async visit({ as, url, until = "http://127.0.0.1" }) {
    const { page } = await person(as);
    await page.goto(url);
    for (let step = 0; step < 6; step++) {
      if (page.url().startsWith(until) || page.url().startsWith("chrome-error:") || /signed in|success/i.test(await page.locator("body").innerText())) break;
      if (await page.locator("input[name=login]").count()) {
        await page.fill("input[name=login]", as);
        await page.fill("input[name=password]", "any");
      }
      await Promise.all([page.waitForLoadState("networkidle"), page.locator("button[type=submit]").first().click({ timeout: 5000 })]);
      await page.waitForLoadState("networkidle");
    }
    return seen(page);
  },
  // An ID token for a client, as a program would get one.
  async token({ as, issuer, client, timeless = false }) {
    const { page } = await person(as);
    const verifier = randomBytes(32).toString("base64url");
    const redirect = "http://127.0.0.1:49151/";
    const ask = new URL(`${issuer}/auth`);
    const query = { client_id: client, response_type: "code", redirect_uri: redirect, scope: "openid profile", code_challenge_method: "S256", code_challenge: createHash("sha256").update(verifier).digest("base64url"), claims: JSON.stringify({ id_token: { preferred_username: null, auth_time: { essential: true } } }) };
    if (timeless) query.claims = JSON.stringify({ id_token: { preferred_username: null } });
    for (const [name, value] of Object.entries(query)) ask.searchParams.set(name, value);
    // Nobody listens there: the browser's last step is all that is wanted.
    const back = page.waitForRequest((request) => request.url().startsWith(redirect), { timeout: 20000 });
    await commands.visit({ as, url: ask.href, until: redirect }).catch(() => {});
    const code = new URL((await back).url()).searchParams.get("code");
    const answer = await fetch(`${issuer}/token`, { method: "POST", body: new URLSearchParams({ grant_type: "authorization_code", code, client_id: client, redirect_uri: redirect, code_verifier: verifier }) });
    return { token: (await answer.json()).id_token };
  },
  // Signs out at the provider, in the person's browser.
  async signout({ as, issuer }) {
    const { page } = await person(as);
    await page.goto(`${issuer}/session/end`);
    await Promise.all([page.waitForLoadState("networkidle"), page.locator("button[name=logout], button[type=submit]").first().click()]);
    await page.waitForLoadState("networkidle");
    return seen(page);
  },
  // All of them at once, each with a login and a connection of their own and a second's thought between two pages; milliseconds.
  async load({ users, seconds }) {
    for (const user of users) user.cookie ??= entered.get(user.name) ?? (await enter(user.name));
    for (const user of users) entered.set(user.name, user.cookie);
    const took = [];
    const by = {};
    let wrong = 0;
    const until = Date.now() + seconds * 1000;
    const get = (agent, path, cookie) =>
      new Promise((resolve) => {
        const began = process.hrtime.bigint();
        const request = http.get(origin + path, { agent, headers: { cookie } }, (answer) => {
          answer.resume();
          answer.on("end", () => {
            if (answer.statusCode !== 200) wrong += 1;
            const ms = Number(process.hrtime.bigint() - began) / 1e6;
            took.push(ms);
            (by[path.replace(/R-\w+/, "one")] ??= []).push(ms);
            resolve();
          });
        });
        request.on("error", () => { wrong += 1; resolve(); });
      });
    await Promise.all(
      users.map(async ({ cookie, paths }, n) => {
        const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
        await new Promise((resolve) => setTimeout(resolve, (n / users.length) * 1000));
        while (Date.now() < until) {
          await get(agent, paths[Math.floor(Math.random() * paths.length)], cookie);
          await new Promise((resolve) => setTimeout(resolve, 500 + Math.random() * 1000));
        }
        agent.destroy();
      }),
    );
    const at = (all, share) => Math.round(all.sort((a, b) => a - b)[Math.min(all.length - 1, Math.floor(all.length * share))] * 10) / 10;
    const pages = Object.fromEntries(Object.entries(by).map(([path, all]) => [path, { p50: at(all, 0.5), p99: at(all, 0.99) }]));
    return { pages: took.length, wrong, p50: at(took, 0.5), p90: at(took, 0.9), p99: at(took, 0.99), most: at(took, 1), by: pages };
  },
  // Any request, by no browser.
  async send({ path, method = "POST", headers = {}, body }) {
    const answer = await fetch(origin + path, { method, headers, body, redirect: "manual" });
    return { status: answer.status, text: await answer.text() };
  },
  // Waits, without touching anything, until the page that is open says something.
  async sees({ as, wanted }) {
    const { page } = await person(as);
    await page.waitForFunction((wanted) => document.body.innerText.includes(wanted), wanted, { timeout: 60000 });
    return seen(page);
  },
  // Types, and leaves it so.
  async type({ as, selector, value }) {
    const { page } = await person(as);
    await page.fill(selector, value);
    return {};
  },
  async value({ as, selector }) {
    const { page } = await person(as);
    return { value: await page.inputValue(selector) };
  },
  async enrol({ as }) {
    const { page } = await person(as);
    await page.goto(`${origin}/passkey`);
    await page.click("[data-enrol]");
    await page.waitForFunction(() => document.getElementById("line").value !== "");
    return { line: await page.inputValue("#line") };
  },
  // `present: false` is somebody who does not touch their key.
  async approve({ as, path, verified = true }) {
    const { page, cdp, authenticatorId } = await person(as);
    await cdp.send("WebAuthn.setUserVerified", { authenticatorId, isUserVerified: verified });
    await page.goto(origin + path);
    if (!(await page.locator("[data-approve]").count())) return { offered: false };
    const reloaded = page.waitForEvent("load", { timeout: 15000 }).then(() => true, () => false);
    await page.click("[data-approve]");
    const told = page.waitForFunction(() => { const t = document.querySelector("[data-approve]")?.parentElement.querySelector(".told"); return t && t.textContent && !t.textContent.startsWith("Your device") ? t.textContent : false; }, null, { timeout: 15000 }).then((h) => h.jsonValue(), () => "");
    const first = await Promise.race([reloaded, told]);
    return { offered: true, approved: first === true, told: first === true ? "" : first };
  },
  async form({ as, path, action, reason }) {
    const { page } = await person(as);
    await page.goto(origin + path);
    const form = page.locator(`form[action$="/${action}"]`);
    await form.locator("input[name=reason]").fill(reason);
    await Promise.all([page.waitForNavigation(), form.locator("button").click()]);
    await page.waitForLoadState();
    return seen(page);
  },
  // What somebody can do who has the cookie and a page's token, and no authenticator.
  async steal({ as, path, body, token = true, from = origin }) {
    const { page, context } = await person(as);
    await page.goto(`${origin}/`);
    const csrf = await page.inputValue("input[name=token]");
    const cookies = (await context.cookies(origin)).map((c) => `${c.name}=${c.value}`).join("; ");
    const json = JSON.stringify({ ...body, ...(token ? { token: csrf } : {}) });
    const answer = await fetch(origin + path, { method: "POST", body: json, redirect: "manual", headers: { "content-type": "application/json", cookie: cookies, origin: from } });
    return { status: answer.status, text: await answer.text() };
  },
  async sent({ as }) {
    return { bodies: (await person(as)).sent.map((body) => JSON.parse(body)) };
  },
  async cookies({ as }) {
    return { cookies: await (await person(as)).context.cookies(origin) };
  },
  async raw({ path, headers = {} }) {
    const answer = await fetch(origin + path, { redirect: "manual", headers });
    return { status: answer.status, headers: Object.fromEntries(answer.headers), text: await answer.text() };
  },
  async axe({ as, path }) {
    const { page, context } = await person(as);
    const found = [];
    for (const colorScheme of ["light", "dark"]) {
      await page.emulateMedia({ colorScheme });
      await page.goto(origin + path);
      // Beside the page's own policy, which lets no script of ours in: through the debugger.
      await page.evaluate(readFileSync(require.resolve("axe-core/axe.min.js"), "utf8"));
      const result = await page.evaluate(() => axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
      found.push(...result.violations.map((v) => `${path} ${colorScheme} ${v.id}: ${v.nodes.map((n) => n.target).join(", ")}`));
      if (process.env.SCREENSHOT) {
        const name = path === "/" ? "inbox" : path.split("/").filter(Boolean).join("-").replace(/R-\w+/, "one");
        for (const [device, width] of [["desktop", 1200], ["phone", 390]]) {
          await page.setViewportSize({ width, height: 860 });
          await page.screenshot({ path: `${process.env.SCREENSHOT}-${name}-${as}-${colorScheme}-${device}.png`, fullPage: true });
        }
      }
    }
    await page.emulateMedia({ colorScheme: null });
    // And what a page weighs, with all that it needs.
    const bytes = await page.evaluate(() => performance.getEntries().filter((e) => "transferSize" in e).reduce((n, e) => n + e.decodedBodySize, 0));
    const quiet = await context.browser().newContext({ javaScriptEnabled: false, storageState: await context.storageState() });
    const still = await quiet.newPage();
    await still.goto(origin + path);
    const text = await still.locator("main").innerText();
    await quiet.close();
    return { violations: found, bytes, without_script: text };
  },
  async errors() {
    return { errors };
  },
};

async function main() {
  const executablePath = execFileSync("sh", ["-c", "command -v chromium || command -v google-chrome"]).toString().trim();
  browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  console.log(JSON.stringify({ ready: true }));
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { do: what, ...rest } = JSON.parse(line);
    const answer = await commands[what](rest).catch((problem) => ({ failed: String(problem) }));
    console.log(JSON.stringify(answer));
  }
  await browser.close();
}

main().catch((problem) => {
  console.error(problem);
  process.exit(1);
});
