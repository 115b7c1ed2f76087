// Drives one headless Chromium for all tests of a process. Each line of standard input is a request,
// {code, page, init, given}: the body of an async function of (page, tools, given), run with that
// file open; init runs before the file's own scripts. Its answer is a line: {value} or {error}.
const fs = require("fs");
const path = require("path");
const readline = require("readline");
const { pathToFileURL } = require("url");
const { chromium } = require("playwright-core");

const ARGUMENTS = [
  "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
  "--disable-background-networking", "--disable-component-update",
  "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
];
const PATIENCE = 600000;                  // milliseconds: a busy machine fails nothing
const DESK = { width: 1200, height: 900 }, PHONE = { width: 360, height: 740 };
const file = (name) => path.join(process.env.NODE_PATH, name);
const settle = (page) => page.evaluate(() => new Promise((done) =>
  requestAnimationFrame(() => requestAnimationFrame(() => done()))));

// What must hold for every page in every setting, as lists of what does not.
const SIDEWAYS = () => {
  const isWide = (e) => e.scrollWidth > e.clientWidth + 1;
  const scrolls = (e) => isWide(e) && getComputedStyle(e).overflowX !== "visible";
  return [...(isWide(document.documentElement) ? ["the page"] : []),
    ...[...document.querySelectorAll("main *")].filter(scrolls).map((e) => e.className || e.tagName)];
};
const sideways = (page) => page.evaluate(SIDEWAYS);
const UNPRINTED = () => [...document.querySelectorAll("main *")].filter((e) =>
  (e.tagName === "TH" && e.textContent && !e.innerText.trim())
  || (getComputedStyle(e).overflowY !== "visible" && e.scrollHeight > e.clientHeight + 1))
  .map((e) => e.className || e.textContent);
async function check(page) {
  const found = { pictures: [], papers: [], wide: [], axe: [] };
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    for (const size of [DESK, PHONE]) {
      await page.setViewportSize(size);
      await settle(page);
      const setting = `${colorScheme}, ${size.width} px`;
      const wide = await sideways(page);
      const isAllowed = (name) => size === DESK && name !== "the page";   // tables scroll in their boxes
      found.wide.push(...wide.filter((name) => !isAllowed(name)).map((name) => `${setting}: ${name}`));
      // Once, for it takes its time; that words stand out in light is tested by the style itself.
      if (size === DESK && colorScheme === "dark") found.axe = await axe(page);
    }
    found.papers.push(await page.evaluate(() => getComputedStyle(document.body).backgroundColor));
  }
  await page.emulateMedia({ media: "print" });
  found.unprinted = await page.evaluate(UNPRINTED);
  found.pictures = await page.evaluate(() => [...document.images]
    .filter((i) => !i.complete || !i.naturalWidth).map((i) => i.alt));
  return found;
}
async function axe(page) {
  await page.evaluate(fs.readFileSync(file("axe-core/axe.min.js"), "utf8"));
  const { violations } = await page.evaluate(() => axe.run({ resultTypes: ["violations"] }));
  return violations.filter((v) => ["serious", "critical"].includes(v.impact))
    .map((v) => `${v.id}: ${v.help} (${v.nodes.map((n) => n.target).slice(0, 3)})`);
}

async function answer(browser, { code, page: name, init, given }) {
  const context = await browser.newContext({ viewport: DESK, acceptDownloads: true });
  const page = await context.newPage(), complaints = [], requests = [];
  page.on("console", (message) => { if (message.type() === "error") complaints.push(message.text()); });
  page.on("pageerror", (error) => complaints.push(`${error}`));
  page.on("request", (r) => {
    if (!/^(file|data|blob):/.test(r.url())) requests.push(r.url());
  });
  page.setDefaultTimeout(PATIENCE);
  try {
    if (init) await page.addInitScript(init);
    await page.goto(name ? pathToFileURL(name).href : "about:blank");
    const body = new (async () => {}).constructor("page", "tools", "given", code);
    const value = await body(page, { check, settle, sideways, file, fs, DESK, PHONE }, given);
    return { value: value ?? null, complaints, requests };
  } finally {
    await context.close();
  }
}

(async () => {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM, args: ARGUMENTS, timeout: PATIENCE,
  });
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const reply = await answer(browser, JSON.parse(line)).catch((error) => ({ error: `${error.stack}` }));
    console.log(JSON.stringify(reply));
  }
  await browser.close();
})();
