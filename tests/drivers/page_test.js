// Opens the verifier's page in a real browser, hands it what a person would, prints what it shows as JSON lines.
// Usage: node page_test.js PAGE TRUST FOLDER-OR-PROOF…
const { chromium } = require("playwright-core");
const { statSync } = require("fs");
const { execFileSync } = require("child_process");

const [page, trust, ...subjects] = process.argv.slice(2);

async function main() {
  const executablePath = execFileSync("sh", ["-c", "command -v chromium || command -v google-chrome"]).toString().trim();
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const context = await browser.newContext({ offline: true });
  const tab = await context.newPage();
  const requests = [];
  const told = [];
  tab.on("request", (request) => requests.push(request.url()));
  tab.on("console", (message) => told.push(message.text()));
  tab.on("pageerror", (problem) => told.push(String(problem)));
  for (const subject of subjects) {
    requests.length = 0;
    told.length = 0;
    await tab.goto(`file://${page}`);
    if (trust !== "-") await tab.setInputFiles("#trust", trust);
    await tab.setInputFiles(statSync(subject).isDirectory() ? "#folder" : "#file", subject);
    await tab.click("#check");
    await tab.waitForSelector("#result:not([hidden])", { timeout: 60000 });
    const shown = await tab.evaluate(() => ({
      code: Number(document.getElementById("result").dataset.code),
      verdict: document.querySelector("#verdict strong").textContent,
      proven: [...document.querySelectorAll(".proven li")].map((li) => li.textContent),
      claimed: [...document.querySelectorAll(".claimed li")].map((li) => li.textContent),
      wrong: [...document.querySelectorAll(".wrong li")].map((li) => li.textContent),
      text: document.getElementById("lines").textContent,
    }));
    // Nothing may be told to anybody: not by the page, and not by what runs in it.
    const escaped = await tab.evaluate(() =>
      Promise.all(["http://127.0.0.1:9/", "data:text/plain,x"].map((url) => fetch(url).then(() => true, () => false))));
    console.log(JSON.stringify({ ...shown, requests: requests.filter((url) => !url.startsWith("file:") && !url.startsWith("blob:")), told, escaped }));
    if (process.env.SCREENSHOT) {
      for (const colorScheme of ["light", "dark"]) {
        for (const [name, width] of [["desktop", 1100], ["phone", 390]]) {
          await tab.emulateMedia({ colorScheme });
          await tab.setViewportSize({ width, height: 800 });
          await tab.screenshot({ path: `${process.env.SCREENSHOT}-${subjects.indexOf(subject)}-${colorScheme}-${name}.png`, fullPage: true });
        }
      }
    }
  }
  await browser.close();
}

main().catch((problem) => {
  console.error(problem);
  process.exit(1);
});
