// Drives the built pages in Chromium: layout, accessibility, keys, languages.
// Without EDGEHERD_URL it starts the mock controller; with EDGEHERD_URL, a
// one-time login URL or an address that needs none, it checks a live server.
// EDGEHERD_SHOTS names a folder for pictures of every page.
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { chromium } from "playwright-core";
import { peopleParts } from "./browserpeople.mjs";
import { rolloutParts } from "./browserrollout.mjs";
import { startMock } from "./mock.mjs";

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const shots = process.env.EDGEHERD_SHOTS;
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
if (!existsSync(executablePath)) {
  console.error(`browser test: no ${executablePath}; install it (apt-get install chromium) or set CHROMIUM`);
  process.exit(1);
}

let failures = 0;
function check(what, ok, detail = "") {
  if (!ok) failures++;
  if (!ok || process.env.VERBOSE)
    console.log(`${ok ? "ok  " : "FAIL"} ${what}${!ok && detail ? `\n     ${detail}` : ""}`);
}

const mock = process.env.EDGEHERD_URL ? undefined : await startMock();
const start = process.env.EDGEHERD_URL ?? mock.url;
const origin = new URL(start).origin;
const patience = 180_000; // of a machine that tests everything else as well
const browser = await chromium.launch({
  executablePath,
  timeout: patience,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

// A login link works once: all contexts share the cookies that it gave.
const door = await browser.newContext({ ignoreHTTPSErrors: true });
door.setDefaultTimeout(patience);
await (await door.newPage()).goto(start);
const storageState = await door.storageState();
await door.close();

/** open makes a page of its own; complaints collects what the browser logs. */
async function open({ width = 1440, height = 900, scheme = "light", locale = "en-GB" } = {}) {
  const context = await browser.newContext({
    viewport: { width, height },
    colorScheme: scheme,
    locale,
    storageState,
    ignoreHTTPSErrors: true,
    reducedMotion: "reduce",
  });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("pageerror", (err) => complaints.push(String(err)));
  return { page, context, complaints };
}

async function visit(page, path) {
  await page.goto(origin + path, { waitUntil: "load" });
  await page.locator("h1").first().waitFor();
  await page.waitForFunction(() => !document.querySelector("main [role=status][style*=min-height]"));
  if (path.startsWith("/boxes/")) await page.locator("main h2").nth(3).waitFor();
}

const api = async (page, path) => page.evaluate(async (p) => (await fetch(p)).json(), path);

async function allPages() {
  const { page, context } = await open();
  await visit(page, "/");
  const boxes = (await api(page, "/api/v1/boxes?page_size=1000")).items;
  const rollouts = (await api(page, "/api/v1/rollouts")).items;
  const tickets = (await api(page, "/api/v1/tickets?page_size=1000")).items;
  await context.close();
  const list = {
    fleet: "/",
    "fleet-resistance": "/?fill=resistance",
    "fleet-level": "/?fill=level",
    models: "/models",
    rollouts: "/rollouts",
    sites: "/sites",
    tickets: "/tickets",
    "tickets-all": "/tickets?state=all&order=low_days",
    visits: "/tickets?view=visits",
    people: "/people",
    audit: "/audit",
    secrets: "/secrets",
    "sign-in": "/sign-in",
    "set-password": "/set-password#first",
    parts: "/tickets?view=parts",
    notices: "/tickets?view=notices",
    numbers: "/tickets?view=numbers",
    "no-such-page": "/no-such-page",
  };
  for (const t of tickets) list[`ticket-${t.state}`] ??= `/tickets/${t.id}`;
  const whole = tickets.find((t) => !t.box && !t.site);
  if (whole) list["ticket-sku"] = `/tickets/${whole.id}`;
  if (boxes.length > 0) list.box = `/boxes/${boxes[0].id}`;
  const silent = boxes.find((b) => b.link === "silent");
  if (silent) list["box-silent"] = `/boxes/${silent.id}`;
  const first = (what, test) => {
    const box = boxes.find(test);
    if (box) list[`box-${what}`] = `/boxes/${box.id}`;
  };
  first("quarantined", (b) => b.state === "quarantined");
  first("urgent", (b) => b.health === "urgent");
  first("learning", (b) => b.thermal.reason_code === "learning");
  first("unjudged", (b) => !b.thermal.known && b.thermal.reason_code !== "learning");
  for (const r of rollouts) list[`rollout-${r.state}`] ??= `/rollouts/${r.id}`;
  return list;
}

/** stackedNames are links in tables whose words are cut so small that they take five lines or more. */
function stackedNames() {
  return [...document.querySelectorAll("td a")]
    .filter((a) => a.getClientRects().length > 4)
    .map((a) => a.textContent);
}

/** fits: at the width that the page has, no name is broken and nothing scrolls sideways. */
async function fits(page, what) {
  // What follows a new width by script may take a frame more on a busy machine.
  const narrow = () => document.documentElement.scrollWidth <= document.documentElement.clientWidth;
  await page.waitForFunction(narrow, undefined, { timeout: 60_000 }).catch(() => {});
  const stacked = await page.evaluate(stackedNames);
  check(`${what} breaks no name into bits`, stacked.length === 0, `${stacked}`);
  const over = await page.evaluate(
    () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
  );
  check(`${what} has no sideways scroll`, over <= 0, `${over} px too wide`);
  const wide = await page.evaluate(() =>
    [...document.querySelectorAll(".stack")]
      .filter((e) => innerWidth < 640 && e.scrollWidth > e.clientWidth)
      .map((e) => e.ariaLabel),
  );
  check(`${what} stacks its tables`, wide.length === 0, `${wide}`);
}

async function axeClean(page, what) {
  const found = await page.evaluate(() =>
    globalThis.axe.run(document, {
      runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    }),
  );
  const words = found.violations.map(
    (v) =>
      `${v.id}: ${v.nodes.map((n) => `${n.target} ${n.failureSummary?.split("\n")[1] ?? ""}`).slice(0, 4)}`,
  );
  check(`${what}: axe finds nothing`, words.length === 0, words.join("\n     "));
}

async function picture(page, name, width) {
  if (!shots) return;
  mkdirSync(shots, { recursive: true });
  // Taller first: a full-page picture resizes while it is taken.
  const height = await page.evaluate(() => document.documentElement.scrollHeight);
  await page.setViewportSize({ width, height: Math.max(844, height + 80) });
  await page.waitForTimeout(400);
  await page.screenshot({ path: `${shots}/${name}.png` });
}

/** resize returns when the page has been drawn at another width, with what it measures of itself. */
async function resize(page, width) {
  await page.setViewportSize({ width, height: 900 });
  await page.waitForFunction((want) => innerWidth === want, width);
  await page.evaluate(
    () =>
      new Promise((drawn) =>
        requestAnimationFrame(() =>
          requestAnimationFrame(() => setTimeout(() => requestAnimationFrame(drawn))),
        ),
      ),
  );
}

/**
 * everyPage looks at all pages. Each is loaded once for a language and then has one window
 * after the other; most of the time of this test was loading the same page anew.
 */
async function everyPage(list) {
  // German and Polish words are the longest; 1024 px is where the rail has come and the room is least.
  const windows = [
    { locale: "de-DE", widths: [320, 1024] },
    { locale: "pl-PL", widths: [320, 1440], scheme: "dark" },
    { locale: "en-GB", widths: [390, 1440], axe: ["light", "dark"] },
  ];
  await Promise.all(windows.map((window) => everyPageIn(list, window)));
}

async function everyPageIn(list, { locale, widths, scheme, axe = [] }) {
  const { page, context, complaints } = await open({ width: widths[0], locale, scheme });
  for (const [name, path] of Object.entries(list)) {
    await resize(page, widths[0]);
    await visit(page, path);
    // Outside the page's policy: evaluate runs in the debugger's world.
    if (axe.length > 0) await page.evaluate(axeSource);
    for (const width of widths) {
      await resize(page, width);
      await fits(page, `${name} at ${width} px (${locale})`);
      for (const colorScheme of axe) {
        // Colours are the same at every width; pictures are wanted of all.
        if (colorScheme === "dark" && width !== 1440 && !shots) continue;
        await page.emulateMedia({ colorScheme });
        await axeClean(page, `${name}, ${colorScheme}, ${width} px`);
        await picture(page, `${name}-${colorScheme}-${width}`, width);
      }
    }
    if (axe.length > 0) await page.emulateMedia({ colorScheme: "light" });
  }
  check(`no complaints in the console (${locale})`, complaints.length === 0, complaints.join("\n     "));
  await context.close();
}

async function mapKeys() {
  const { page, context } = await open();
  await visit(page, "/");
  const map = page.locator("canvas[role=application]");
  await map.waitFor();
  const live = page.locator("[aria-live=polite]").last();
  await map.focus();
  const spoken = async () => (await live.textContent()) ?? "";
  await page.waitForFunction(() => [...document.querySelectorAll("[aria-live=polite]")].at(-1)?.textContent);
  const first = await spoken();
  check("the focused box is spoken", first !== "");
  const { total } = await api(page, "/api/v1/summary");
  if (total > 1) {
    await page.keyboard.press("ArrowRight");
    await page.waitForFunction(
      (old) => [...document.querySelectorAll("[aria-live=polite]")].at(-1)?.textContent !== old,
      first,
    );
    check("an arrow key moves to another box", (await spoken()) !== first);
  }
  const unwell = (await api(page, "/api/v1/boxes?page_size=1000")).items.filter(
    (b) => b.health === "urgent" || b.link === "silent" || b.link === "never",
  );
  if (unwell.length > 0) {
    await page.keyboard.press("n");
    await page.waitForFunction(
      (names) =>
        names.some((n) =>
          [...document.querySelectorAll("[aria-live=polite]")].at(-1)?.textContent.startsWith(`${n},`),
        ),
      unwell.map((b) => b.name),
    );
    check("n goes to a box that is unwell", true);
  }
  await page.keyboard.press("Enter");
  await page.waitForURL(/\/boxes\/d-/);
  check("Enter opens the box", true);
  await context.close();
}

/** siteForm changes a site by its form. A real fleet keeps its settings. */
async function siteForm() {
  if (!mock) return;
  const { page, context, complaints } = await open({ width: 390 });
  await visit(page, "/sites");
  const table = page.getByRole("region", { name: "Lines and quiet times" });
  const button = table.locator("tbody button").first();
  await button.click();
  const dialog = page.locator("dialog[open]");
  await dialog.waitFor();
  for (const box of await dialog.locator("input[type=checkbox]").all()) await box.check();
  await page.evaluate(axeSource);
  const found = await page.evaluate(() => globalThis.axe.run(document.querySelector("dialog[open]")));
  check(
    "the form of a site: axe finds nothing",
    found.violations.length === 0,
    JSON.stringify(found.violations.map((v) => v.id)),
  );
  const over = await dialog.evaluate((d) => d.scrollWidth - d.clientWidth);
  check("the form of a site has no sideways scroll at 390 px", over <= 0, `${over} px too wide`);
  if (shots) await page.screenshot({ path: `${shots}/site-form-light-390.png` });
  const [rate, zone] = [dialog.locator("input[type=number]"), dialog.locator("input[list]")];
  await rate.fill("12.5");
  await dialog.locator("textarea").fill("07:30-08:00 mon,wed");
  await zone.fill("Mars");
  await page.keyboard.press("Enter");
  await dialog.locator("[role=alert]").waitFor();
  check(
    "an unknown time zone is named",
    (await dialog.locator("[role=alert]").textContent())?.includes("time_zone"),
  );
  await zone.fill("Europe/Berlin");
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "detached" });
  const row = table.locator("tbody tr").first();
  await row.getByText("07:30-08:00 mon,wed").waitFor();
  check(
    "the table shows what was saved",
    (await row.textContent())?.includes("12.5") || (await row.textContent())?.includes("13 kB"),
  );
  // The 422 of the wrong zone is in the console, as it must be.
  const others = complaints.filter((c) => !c.includes("422"));
  check("no complaints of the form", others.length === 0, others.join("\n     "));
  await context.close();
}

async function languages() {
  const { page, context } = await open({ locale: "de-DE" });
  await visit(page, "/");
  check("a German browser gets German", (await page.locator("h1").first().textContent()) === "Flotte");
  for (const [label, title, lang] of [
    ["Polski", "Flota", "pl"],
    ["中文", "设备群", "zh"],
    ["English", "Fleet", "en"],
  ]) {
    await page.locator("header").getByRole("button").click();
    await page.getByRole("radio", { name: label }).click();
    await page.waitForFunction((want) => document.querySelector("h1")?.textContent === want, title);
    await page.locator(`html[lang=${lang}]`).waitFor();
    check(`${label} changes the page and its lang`, true);
    await page.keyboard.press("Escape");
  }
  await page.reload();
  await page.locator("h1").first().waitFor();
  check(
    "the chosen language survives a reload",
    (await page.locator("h1").first().textContent()) === "Fleet",
  );
  await context.close();
}

async function filterAndSort() {
  const { page, context } = await open();
  await visit(page, "/");
  const total = (await api(page, "/api/v1/summary")).total;
  const rows = page.locator("tbody tr:not([aria-hidden])");
  await page.getByRole("searchbox").fill('name = "no-such-box"');
  await page.keyboard.press("Enter");
  await page.waitForURL(/q=/);
  await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 0);
  check("a filter that fits no box shows no row", (await rows.count()) === 0);
  await page.getByRole("searchbox").fill("this is !! no filter");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").first().waitFor();
  check("a bad filter is explained", true);
  await page.goto(`${origin}/?order=temp_die%20desc`);
  await page.locator("th[aria-sort=descending]").waitFor();
  check("the order in the address is the order of the table", true);
  check("the total is shown", (await page.locator("h1 + div").textContent())?.includes(String(total)));
  await context.close();
}

async function liveValues() {
  const { page, context } = await open();
  await visit(page, "/");
  await page.locator("header [role=status]", { hasText: "live" }).waitFor();
  check("the page says that it is live", true);
  if (mock) {
    const cell = page.locator("tbody tr", { hasText: "berlin-1-1" }).locator("td").nth(4);
    const before = await cell.textContent();
    await page.waitForFunction(
      (old) =>
        [...document.querySelectorAll("tbody tr")]
          .find((tr) => tr.textContent.includes("berlin-1-1"))
          ?.querySelectorAll("td")[4]?.textContent !== old,
      before,
    );
    check("a live sample changes the table in place", true);
  }
  await context.close();
}

/** On every page a word says that what people signed ends soon, and leads to what to do. */
async function trustEnds() {
  const { page, context } = await open();
  const roles = (...stages) => ({
    development: false,
    items: stages.map((stage, i) => ({
      role: `role-${i}`,
      version: 1,
      expires: "2026-06-01T00:00:00Z",
      stage,
      need: 1,
      keys: ["3f0c1a92"],
      signed: ["3f0c1a92"],
      do: `edgeherd trust renew role-${i} --key FILE`,
    })),
  });
  for (const [stages, word, named] of [
    [["good", "good"], null, ""],
    [["good", "soon"], "Signatures end soon", "role-1"],
    [["soon", "last_week"], "Signatures: renew now", "role-0, role-1"],
    [["good", "ended"], "Signatures: renew now", "role-1"],
  ]) {
    await page.route("**/api/v1/trust/roles", (route) => route.fulfill({ json: roles(...stages) }));
    const asked = page.waitForResponse("**/api/v1/trust/roles");
    await visit(page, "/sites");
    await (await asked).finished();
    const chip = page.locator("header a[href='/models']");
    if (word) {
      await chip.waitFor();
      const says = `${await chip.textContent()} (${await chip.getAttribute("title")})`;
      check(`the trust chip of ${stages} says ${word}`, says === `${word} (${named})`, says);
      await chip.click();
      await page
        .getByText(`edgeherd trust renew ${named.split(", ")[0]} --key FILE`)
        .first()
        .waitFor();
      const stopped = await page.getByText("It has ended: boxes install nothing new").count();
      check(
        `the card of ${stages} says whether boxes install now`,
        stopped === Number(stages.includes("ended")),
      );
    } else {
      check(`no trust chip where all is ${stages[0]}`, (await chip.count()) === 0);
    }
    await page.unroute("**/api/v1/trust/roles");
  }
  await context.close();
}

/** titles tell the tabs of a browser apart. */
async function titles() {
  const { page, context } = await open();
  const titled = async (path, want) => {
    await visit(page, path);
    check(`${path} is titled`, (await page.title()) === `${want} · edgeherd`, await page.title());
  };
  await titled("/", "Fleet");
  await titled("/models", "Models");
  const [box] = (await api(page, "/api/v1/boxes?page_size=1")).items;
  await titled(`/boxes/${box.id}`, box.name);
  await titled("/no-such-page", "There is no such page");
  await context.close();
}

/** settingsKeys: the settings open, choose and close by keys. */
async function settingsKeys() {
  const { page, context } = await open({ width: 390 });
  await visit(page, "/");
  const button = page.getByRole("button", { name: "Settings" });
  await button.focus();
  await page.keyboard.press("Enter");
  const panel = page.getByRole("dialog", { name: "Settings" });
  await panel.waitFor();
  await page.evaluate(axeSource);
  const found = await page.evaluate(() => globalThis.axe.run(document.querySelector("#settings")));
  const words = found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target)}`);
  check("the settings: axe finds nothing", words.length === 0, words.join("; "));
  await panel.getByRole("radio", { name: "Light" }).focus();
  await page.keyboard.press("ArrowDown");
  check(
    "an arrow key chooses the dark theme",
    (await page.locator("html").getAttribute("data-theme")) === "dark",
  );
  await page.keyboard.press("Escape");
  await panel.waitFor({ state: "hidden" });
  check("Escape closes the settings", true);
  await context.close();
}

/** dialogClean checks the open dialog: axe, and no sideways scroll. */
async function dialogClean(page, what) {
  const dialog = page.locator("dialog[open]");
  await dialog.waitFor();
  await page.evaluate(axeSource);
  const found = await page.evaluate(() => globalThis.axe.run(document.querySelector("dialog[open]")));
  const words = found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.target)}`);
  check(`${what}: axe finds nothing`, words.length === 0, words.join("; "));
  const over = await dialog.evaluate((d) => d.scrollWidth - d.clientWidth);
  check(`${what} has no sideways scroll`, over <= 0, `${over} px too wide`);
  if (shots) await page.screenshot({ path: `${shots}/${what.replaceAll(/[^a-z]+/g, "-")}.png` });
  return dialog;
}

/** ticketFilters choose by the lists and the cards; the address holds it and brings it back. */
async function ticketFilters() {
  const { page, context } = await open();
  await visit(page, "/tickets");
  const { items } = await api(page, "/api/v1/tickets?page_size=1000&filter=open%20%3D%20true");
  if (items.length === 0) return context.close();
  const rows = page.locator("tbody tr");
  await rows.first().waitFor();
  check("all open tickets are listed", (await rows.count()) === items.length);
  const { cause } = items[0];
  const want = items.filter((t) => t.cause === cause).length;
  await page.getByLabel("Cause").selectOption(cause);
  await page.waitForURL(new RegExp(`cause=${cause}`));
  const shows = (count) =>
    page.waitForFunction((n) => document.querySelectorAll("tbody tr").length === n, count);
  await shows(want);
  check("a cause shows its tickets only", true);
  await page.reload();
  await shows(want);
  check("a pasted address brings the same tickets", (await page.getByLabel("Cause").inputValue()) === cause);
  await page.getByRole("button", { name: "Show all" }).click();
  await shows(items.length);
  await page.goBack();
  await shows(want);
  check("the back button takes back a filter", true);
  await page.goto(`${origin}/tickets?site=no-such-site`);
  await page.getByText("No ticket fits").waitFor();
  check("a filter that fits nothing says so", true);
  await context.close();
}

/** ticketWork moves a ticket from open to done by the keyboard; a real fleet keeps its tickets. */
async function ticketWork() {
  if (!mock) return;
  const { page, context, complaints } = await open({ width: 390 });
  await visit(page, "/tickets?state=open");
  await page.locator("tbody a", { hasText: "krakow-market-3" }).click();
  await page.waitForURL(/\/tickets\/T-/);
  const button = (name) => page.getByRole("button", { name, exact: true });
  const press = async (locator) => {
    await locator.focus();
    await page.keyboard.press("Enter");
  };
  const current = (word) => page.locator("[aria-current=step]", { hasText: word }).waitFor();
  await button("Acknowledge").waitFor();
  await press(button("Acknowledge"));
  await current("seen");
  check("a ticket is acknowledged at once", true);
  await press(button("Send somebody"));
  let dialog = await dialogClean(page, "the question who goes");
  await page.keyboard.press("Escape");
  await dialog.waitFor({ state: "detached" });
  await current("seen");
  check("Escape changes nothing", true);
  await press(button("Send somebody"));
  dialog = page.locator("dialog[open]");
  await dialog.getByLabel("Who goes").fill("Olek");
  await page.keyboard.press("Enter");
  await current("somebody goes");
  await press(button("Work is done"));
  dialog = await dialogClean(page, "the question what was done");
  check(
    "the work that the cause asks for is offered",
    (await dialog.getByRole("combobox").inputValue()) === "cleaned",
  );
  await dialog.getByRole("button", { name: "Work is done" }).click();
  await current("awaits proof");
  await page.getByRole("list", { name: "Timeline" }).filter({ hasText: "cleaned" }).waitFor();
  check("the work is in the timeline", true);
  await press(button("Close without work"));
  dialog = await dialogClean(page, "the question why it is closed");
  await dialog.getByRole("button", { name: "Close without work" }).click();
  check(
    "a ticket is not closed without a reason",
    await dialog.getByRole("combobox").evaluate((s) => !s.checkValidity()),
  );
  await page.keyboard.press("Escape");
  check("no complaints of tickets", complaints.length === 0, complaints.join("\n     "));
  await context.close();
}

/** visits plan the route and cancel one of its visits. */
async function visits() {
  if (!mock) return;
  const { page, context } = await open({ width: 390 });
  await visit(page, "/tickets?view=visits");
  await page.getByRole("button", { name: "Plan a visit to shanghai-pudong-north" }).click();
  const one = await dialogClean(page, "the plan of a visit");
  await one.getByRole("button", { name: "Plan a visit" }).click();
  await one.waitFor({ state: "detached" });
  await page.getByRole("button", { name: /^Send on this route/ }).click();
  const dialog = await dialogClean(page, "the plan of a route");
  await dialog.getByLabel("Who goes").fill("Kim");
  await dialog.getByRole("button", { name: /^Send on this route/ }).click();
  await dialog.waitFor({ state: "detached" });
  await page.getByText("No route needed today").waitFor();
  check("what is on its way is due no more", true);
  const cancels = page.getByRole("button", { name: /^Cancel the visit/ });
  await cancels.nth(2).waitFor();
  check("the visits of the route are listed", true);
  const before = await cancels.count();
  await cancels.first().click();
  await dialogClean(page, "the question before a visit is canceled");
  await page.locator("dialog[open]").getByRole("button", { name: "Cancel the visit" }).click();
  await page.waitForFunction(
    (n) =>
      [...document.querySelectorAll("button")].filter((b) => b.ariaLabel?.startsWith("Cancel")).length < n,
    before,
  );
  check("a canceled visit is gone from the list", true);
  await page
    .getByRole("button", { name: /^Visit is over/ })
    .first()
    .click();
  await dialogClean(page, "the question what a visit did");
  await context.close();
}

/** boxHealth: what the page of a box says of its cooling, and the form of its upkeep. */
async function boxHealth() {
  if (!mock) return;
  const { page, context } = await open({ width: 390 });
  await visit(page, "/");
  const boxes = (await api(page, "/api/v1/boxes?page_size=1000")).items;
  const id = (test) => boxes.find(test).id;
  await visit(page, `/boxes/${id((b) => b.name === "berlin-2-3")}`);
  const card = page.locator("section", { has: page.getByRole("heading", { name: "Cooling and wear" }) });
  await card.getByText("91 % sure").waitFor();
  check(
    "the forecast is an interval in words",
    (await card.textContent())?.includes("May throttle in 3 to 16 days"),
  );
  check(
    "the chart has a text",
    (await card.getByRole("img").getAttribute("aria-label"))?.startsWith("Resistance from"),
  );
  await page.getByRole("button", { name: "Write down" }).click();
  const dialog = await dialogClean(page, "the form of the upkeep");
  await dialog.getByLabel("Place").fill("cellar");
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "detached" });
  await page.getByText("cellar", { exact: true }).waitFor();
  check("what was written down is shown", true);
  await visit(page, `/boxes/${id((b) => b.name === "krakow-market-4")}`);
  await page.getByText("Not judged yet: learning the clean box").first().waitFor();
  check("a box that learns says so", true);
  for (const [name, rest] of [
    ["berlin-1-1", "No box of its site is sent to it for files now."],
    ["gdansk-harbour-2", "others of the site still do"],
  ]) {
    const { shunned } = await api(page, `/api/v1/boxes/${id((b) => b.name === name)}`);
    await visit(page, `/boxes/${shunned.box}`);
    const notice = page.locator("section", { has: page.getByRole("heading", { name: /^Gave wrong parts/ }) });
    const says = (await notice.textContent()) ?? "";
    check(
      `the page of ${name} names who got wrong parts of files, and the way out`,
      [rest, `edgeherd box accept ${name} --level hardware,load`, ...shunned.by].every((w) =>
        says.includes(w),
      ),
      says,
    );
    await notice.getByRole("link", { name: shunned.by[0] }).click();
    await page.waitForURL(`**/boxes/${shunned.by[0]}`);
    await notice.waitFor({ state: "detached" });
  }
  await context.close();
}

/** partsAndNotices sends a part back and tries the endpoints, by keys alone. */
async function partsAndNotices() {
  if (!mock) return;
  const { page, context, complaints } = await open({ width: 390 });
  await visit(page, "/tickets?view=parts");
  await page.getByRole("button", { name: "Send a part back" }).focus();
  await page.keyboard.press("Enter");
  const dialog = page.locator("dialog[open]");
  await dialog.waitFor();
  await page.evaluate(axeSource);
  const found = await page.evaluate(() => globalThis.axe.run(document.querySelector("dialog[open]")));
  check(
    "the form of a part to send back: axe finds nothing",
    found.violations.length === 0,
    JSON.stringify(found.violations.map((v) => v.id)),
  );
  await dialog.getByLabel("Vendor", { exact: true }).fill("Acme");
  await page.keyboard.press("Enter");
  await dialog.waitFor({ state: "detached" });
  const mine = page.getByRole("button", { name: "It is sent: R-4" });
  await mine.focus();
  await page.keyboard.press("Enter");
  await dialog.waitFor();
  await dialog.getByLabel("Number at the vendor").press("Enter");
  await page.getByRole("button", { name: "It has arrived: R-4" }).waitFor();
  check("a part is sent back by keys", true);
  await visit(page, "/tickets?view=notices");
  for (const [name, told] of [
    ["chat", "told"],
    ["cmms", "not told: the endpoint answers 503"],
  ]) {
    await page.getByRole("button", { name: `Send a test: ${name}` }).click();
    await page.getByRole("status").filter({ hasText: told }).last().waitFor();
  }
  check("a test says who was told and who was not", true);
  check("no complaints of parts and notices", complaints.length === 0, complaints.join("\n     "));
  await context.close();
}

async function signedOut() {
  const closed = await startMock({ signedOut: true });
  const context = await browser.newContext();
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  await page.goto(closed.url);
  await page.getByText("edgeherd login --url").waitFor();
  check("an ended session says how to log in again", true);
  if (shots) await page.screenshot({ path: `${shots}/signed-out.png` });
  await context.close();
  closed.close();
}

let list = await allPages();
if (process.env.PAGES) {
  const wanted = process.env.PAGES.split(",");
  list = Object.fromEntries(Object.entries(list).filter(([name]) => wanted.some((w) => name.startsWith(w))));
}
for (const part of [
  everyPage,
  mapKeys,
  languages,
  filterAndSort,
  liveValues,
  trustEnds,
  titles,
  settingsKeys,
  siteForm,
  ticketFilters,
  ticketWork,
  visits,
  boxHealth,
  partsAndNotices,
  signedOut,
  ...(mock
    ? [peopleParts, rolloutParts].flatMap((parts) =>
        Object.values(parts({ open, visit, check, dialogClean, api })),
      )
    : []),
]) {
  if (process.env.ONLY && !process.env.ONLY.split(",").includes(part.name)) continue;
  const began = Date.now();
  try {
    await part(list);
  } catch (err) {
    check(part.name, false, String(err).split("\n").slice(0, 6).join("\n     "));
  }
  console.log(`${part.name}: ${((Date.now() - began) / 1000).toFixed(1)} s`);
}
await browser.close();
mock?.close();
console.log(
  failures === 0 ? `browser test: all good (${origin})` : `browser test: ${failures} failed (${origin})`,
);
process.exit(failures === 0 ? 0 : 1);
