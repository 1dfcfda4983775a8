// Drives the pages under /t/ in Chromium, as a phone, against the real controller
// and real agents of build/bin: claim with a network and without, a refusal, and
// work on a box. EDGEHERD_SHOTS names a folder for pictures.
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const axeSource = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const shots = process.env.EDGEHERD_SHOTS;
if (shots) mkdirSync(shots, { recursive: true });
const bin = fileURLToPath(new URL("../../build/bin/", import.meta.url));
if (!existsSync(`${bin}edgeherd`)) {
  console.error(`browser test of /t/: no ${bin}edgeherd; run make build`);
  process.exit(1);
}

let failures = 0;
function check(what, ok, detail = "") {
  if (!ok) failures++;
  if (!ok || process.env.VERBOSE)
    console.log(`${ok ? "ok  " : "FAIL"} ${what}${!ok ? `\n     ${detail}` : ""}`);
}

const patience = 180_000; // of a machine that tests everything else as well
const dir = mkdtempSync(join(tmpdir(), "eh"));
const children = [];
const env = { ...process.env, EDGEHERD_CONTEXT: join(dir, "server/context.json") };

/** start runs a program until the test ends; its words go into a file. */
function start(name, program, args, more = {}) {
  const log = join(dir, `${name}.log`);
  const out = openSync(log, "w");
  const child = spawn(bin + program, args, { env: { ...env, ...more }, stdio: ["ignore", out, out] });
  children.push(child);
  return { child, said: () => readFileSync(log, "utf8") };
}

function run(...args) {
  const done = spawnSync(`${bin}edgeherd`, args, { env, encoding: "utf8" });
  if (done.status !== 0) throw new Error(`edgeherd ${args.join(" ")}: ${done.stderr}`);
  return done.stdout;
}

async function until(what, ask) {
  const end = Date.now() + patience;
  for (;;) {
    const got = await ask();
    if (got) return got;
    if (Date.now() > end) throw new Error(`not within minutes: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** machine asks with a token and waits; code is what it shows. */
async function machine(name, token) {
  const at = {
    EDGEHERD_STATE: join(dir, name),
    EDGEHERD_ROOT: join(dir, `${name}-root`),
    EDGEHERD_RUNNER: join(dir, "none.sock"),
  };
  mkdirSync(at.EDGEHERD_ROOT);
  const enroll = start(
    `enroll-${name}`,
    "edgeherd-agent",
    ["enroll", token, "--tpm", "off", "--name", name],
    at,
  );
  const code = await until(`${name} shows a code`, () => /\b\d{3}-\d{3}\b/.exec(enroll.said())?.[0]);
  const runs = async () => {
    await until(`${name} is enrolled`, () => enroll.said().includes("Enrolled as"));
    start(`agent-${name}`, "edgeherd-agent", ["run"], at);
  };
  return { code, runs, said: enroll.said };
}

function token(site) {
  const text = /EH1\.[A-Z0-9.:-]+/.exec(run("enroll", "token", "--site", site, "--uses", "9", "--no-qr"))[0];
  return { text, id: text.split(".")[1] };
}

const boxes = () => JSON.parse(run("box", "list", "-o", "json")).items ?? [];

let browser;
async function main() {
  const server = start("controller", "edgeherd", [
    ..."server run --config /dev/null --http 127.0.0.1:0 --device 127.0.0.1:0 --mqtt 127.0.0.1:0".split(" "),
    "--state",
    join(dir, "server"),
  ]);
  await until(
    "the controller is up",
    () => existsSync(env.EDGEHERD_CONTEXT) || server.child.exitCode !== null,
  );
  const invitation = /https?:\/\/\S+#\S+/.exec(
    run("user", "add", "tom", "--role", "tech", "--site", "berlin-1"),
  )[0];
  const origin = new URL(invitation).origin;
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    timeout: patience,
    args: [
      ..."--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking".split(
        " ",
      ),
      ..."--disable-component-update --disable-sync".split(" "),
      "--ignore-certificate-errors", // workers are refused otherwise; the agents check theirs
    ],
  });
  const context = await browser.newContext({
    viewport: { width: 390, height: 844 },
    ignoreHTTPSErrors: true,
    locale: "en-GB",
    hasTouch: true,
    reducedMotion: "reduce",
  });
  context.setDefaultTimeout(patience);
  const page = await context.newPage();
  const strange = [];
  const complaints = [];
  context.on(
    "request",
    (r) => new URL(r.url()).origin !== origin && !r.url().startsWith("data:") && strange.push(r.url()),
  );
  page.on(
    "console",
    (m) => m.type() === "error" && !/Failed to load resource/.test(m.text()) && complaints.push(m.text()),
  );
  page.on("pageerror", (err) => complaints.push(String(err)));
  const world = { context, page, origin, invitation };
  for (const part of [signsIn, claimsOnline, claimsOffline, isRefused, replaces, works, looks]) {
    const began = Date.now();
    await part(world);
    console.log(`${part.name}: ${((Date.now() - began) / 1000).toFixed(1)} s`);
  }
  check("nothing is asked of anybody else", strange.length === 0, strange.join("\n     "));
  check("no complaints in the console", complaints.length === 0, complaints.join("\n     "));
}

const heading = (page, name) => page.getByRole("heading", { level: 1, name }).waitFor();
const press = (page, name) => page.getByRole("button", { name }).click();

/** signsIn opens a label's address as a camera does, and comes back to it after signing in. */
async function signsIn({ page, origin, invitation, context }) {
  await page.goto(invitation);
  await page.locator("input[type=password]").nth(1).waitFor();
  for (const input of await page.locator("input[type=password]").all())
    await input.fill("correct horse battery");
  await page.locator("button[type=submit]").click();
  await heading(page, "Fleet");
  await context.clearCookies();
  const { id } = token("berlin-1");
  await page.goto(`${origin}/T/C/${id}`);
  await page.getByText("Nobody is signed in.").waitFor();
  await picture(page, "signed-out");
  await press(page, "Sign in");
  await page.getByLabel("Name").fill("tom");
  await page.getByLabel("Password").fill("correct horse battery");
  await page.locator("button[type=submit]").click();
  await page.getByText("At site berlin-1").waitFor();
  check("one is back at the label that one scanned", page.url() === `${origin}/t/c/${id}`, page.url());
}

async function fill(page, code, { name, place, photo }) {
  if (name) await page.getByLabel("Name of the box").fill(name);
  if (place) await page.getByLabel("Where it hangs").fill(place);
  if (photo) {
    const data = await page.evaluate(() => {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [3000, 2000];
      const pen = canvas.getContext("2d");
      for (let i = 0; i < 4000; i++) {
        pen.fillStyle = `hsl(${i * 7} 60% ${20 + (i % 60)}%)`;
        pen.fillRect((i * 137) % 3000, (i * 89) % 2000, 160, 120);
      }
      return canvas.toDataURL("image/jpeg", 0.95).split(",")[1];
    });
    const buffer = Buffer.from(data, "base64");
    check("the camera's picture is too large as it is", buffer.length > 200 << 10, String(buffer.length));
    await page.locator("input[type=file]").setInputFiles({ name: "box.jpg", mimeType: "image/jpeg", buffer });
    await page.locator("img.photo").waitFor();
  }
  await page.getByLabel("3. The code on the box").fill(code.replace("-", ""));
}

const done = (page, text) => page.locator("li[data-done]", { hasText: text }).waitFor();

async function claimsOnline({ page, origin }) {
  const t = token("berlin-1");
  const m = await machine("till-9", t.text);
  check(
    "the waiting machine names the page",
    m.said().includes(`${origin.toUpperCase()}/T/C/${t.id}`),
    m.said(),
  );
  await page.goto(`${origin}/T/C/${t.id}`);
  await page.getByText("At site berlin-1").waitFor();
  await picture(page, "claim-empty");
  await fill(page, m.code, { name: "till-3", place: "stock room, north wall", photo: true });
  await picture(page, "claim-filled");
  await press(page, `I see ${m.code} on the box`);
  await done(page, "The controller agrees");
  await picture(page, "claim-follows");
  await done(page, "It is a box: till-3");
  await m.runs();
  await done(page, "It is alive");
  await picture(page, "claim-alive");
  await page.getByRole("link", { name: "Open till-3" }).click();
  await heading(page, "till-3");
  await page.getByText("stock room, north wall").waitFor();
  const size = await (await page.locator("img.photo").elementHandle()).evaluate(async (img) => {
    await img.decode();
    return [img.naturalWidth, img.naturalHeight];
  });
  check(
    "the picture is kept, made smaller",
    size[0] <= 1280 && Math.abs(size[0] / size[1] - 1.5) < 0.01,
    String(size),
  );
}

async function claimsOffline({ page, origin, context }) {
  const t = token("berlin-1");
  const m = await machine("shelf-2", t.text);
  await page.goto(`${origin}/t/`);
  await page.evaluate(async () => {
    for (const scope of ["/t/", "/T/"]) {
      const r = await navigator.serviceWorker.getRegistration(scope);
      const worker = r.active ?? r.waiting ?? r.installing;
      while (worker.state !== "activated")
        await new Promise((resolve) => worker.addEventListener("statechange", resolve, { once: true }));
    }
  });
  await page.getByText("till-3").first().waitFor();
  await context.setOffline(true);
  await page.goto(`${origin}/T/C/${t.id}`); // the camera opens it, without a network
  await page.getByText("No connection: the site of this label").waitFor();
  await fill(page, m.code, { name: "shelf-2", place: "aisle 4", photo: true });
  await press(page, `I see ${m.code} on the box`);
  await done(page, "Saved on this phone");
  await page.getByText("1 step waits to be sent").waitFor();
  await picture(page, "offline-saved");
  await page.reload();
  await page.getByText("1 step waits to be sent").waitFor();
  check("what is queued survives a reload without a network", true);
  await page.goto(`${origin}/t/steps`);
  await page.getByText("queued").waitFor();
  await picture(page, "offline-steps");
  await page.goto(`${origin}/t/`);
  await page.getByText("till-3").first().waitFor();
  await page.getByText(/^As of/).waitFor();
  check("what was seen before is shown with its age", true);
  await picture(page, "offline-home");
  check("the machine still waits", !m.said().includes("Enrolled"));
  const sent = [];
  context.on("request", (r) => r.method() === "POST" && sent.push(r.url()));
  await page.goto(`${origin}/t/steps`);
  await context.setOffline(false);
  await page.getByText("sent", { exact: true }).last().waitFor();
  await page.getByRole("link", { name: `Box ${m.code}` }).click();
  await done(page, "It is a box: shelf-2");
  await m.runs();
  await done(page, "It is alive");
  await page.reload();
  await done(page, "It is alive");
  check("it was sent once", sent.filter((url) => url.endsWith("/claims")).length === 1, sent.join(" "));
}

async function isRefused({ page, origin }) {
  const { id } = token("berlin-1");
  await page.goto(`${origin}/t/c/${id.toLowerCase()}`);
  await page.getByText("At site berlin-1").waitFor();
  await fill(page, "999-999", {});
  await press(page, "I see 999-999 on the box");
  await page.getByText("no machine that shows 999-999").waitFor();
  await picture(page, "refused");
  await page.getByRole("link", { name: "My steps" }).first().click();
  await heading(page, "My steps");
  await picture(page, "steps");
  await press(page, "Drop");
  await press(page, "Really drop it?");
  await page.getByText("no machine that shows").waitFor({ state: "detached" });
  check("a refused step is dropped", true);
  await page.goto(`${origin}/t/c/${token("krakow-1").id}`);
  await page.getByText("is for a site that is not yours").waitFor();
  check("a label of another site is named", true);
}

/** replaces puts a machine into the place of a box. */
async function replaces({ page, origin }) {
  const t = token("berlin-1");
  const before = boxes().find((b) => b.name === "shelf-2").id;
  const m = await machine("spare", t.text);
  await page.goto(`${origin}/t/c/${t.id}`);
  await page.getByText("At site berlin-1").waitFor();
  await page.getByText("Instead of a box").click();
  await page.getByLabel("Which box goes?").selectOption(before);
  await fill(page, m.code, {});
  await press(page, `I see ${m.code} on the box`);
  await done(page, "It is a box: shelf-2");
  check("the machine has the place of the box", boxes().length === 2 && boxes().some((b) => b.id === before));
}

async function works({ page, origin }) {
  run("ticket", "open", "--box", "till-3", "--cause", "airflow");
  await page.goto(`${origin}/t/`);
  await page.getByRole("link", { name: /till-3.*Clean or change the filter/ }).click();
  await heading(page, "till-3");
  await page.getByText("Take along: filter.").waitFor();
  await page.getByLabel("filter changed").check();
  await page.getByLabel("Part number: filter changed").fill("F-120");
  await picture(page, "box-work");
  await press(page, "Work is done");
  await heading(page, "My steps");
  await page.getByText("Work on till-3").waitFor();
  const ticket = () =>
    JSON.parse(run("ticket", "list", "-o", "json", "--filter", 'cause = "airflow"')).items[0];
  await until("the ticket is done", () => ticket().state === "done");
  check("the part is written down", JSON.stringify(ticket()).includes("F-120"), JSON.stringify(ticket()));

  run("ticket", "open", "--box", "till-3", "--cause", "fan-wear");
  run("ticket", "open", "--box", "shelf-2", "--cause", "paste");
  run("visit", "add", "berlin-1", "--assignee", "tom");
  await page.goto(`${origin}/t/`);
  await page.getByRole("link", { name: /berlin-1.*V-/ }).click();
  await heading(page, "Visit at berlin-1");
  await page.getByText("1 × fan").waitFor();
  await press(page, "I am here");
  const section = page.locator("section", { has: page.getByRole("heading", { name: "till-3" }) });
  await section.getByText("What did you do?").click();
  await section.getByLabel("fan changed").check();
  await picture(page, "visit");
  await press(page, "Visit is done");
  await heading(page, "My steps");
  const worn = () =>
    JSON.parse(run("ticket", "list", "-o", "json", "--filter", 'cause = "fan-wear"')).items[0];
  await until("the ticket of the visit is done", () => worn().state === "done");
  check("a visit has its work", JSON.stringify(worn()).includes("fan-replaced"), JSON.stringify(worn()));
  await page.goBack();
  await page.getByText("This visit is over.").waitFor();
}

/** looks: no page scrolls sideways, what is pressed is large enough, axe finds nothing. */
async function looks({ origin, context }) {
  const storageState = await context.storageState();
  run("ticket", "open", "--box", "till-3", "--cause", "undetermined");
  const { id } = token("berlin-1");
  const box = boxes()[0].id;
  for (const [width, locale, scheme] of [
    [320, "de-DE", "light"],
    [320, "pl-PL", "dark"],
    [390, "zh-CN", "light"],
    [390, "en-GB", "dark"],
    [1440, "en-GB", "light"],
  ].slice(0, shots ? 5 : 2)) {
    const phone = await browser.newContext({
      viewport: { width, height: 844 },
      locale,
      colorScheme: scheme,
      storageState,
      ignoreHTTPSErrors: true,
      serviceWorkers: "block",
    });
    phone.setDefaultTimeout(patience);
    const page = await phone.newPage();
    for (const [name, path] of Object.entries({
      home: "/t/",
      scan: "/t/c/",
      claim: `/t/c/${id}`,
      box: `/t/b/${box}`,
      visit: "/t/v/V-2",
      steps: "/t/steps",
      none: "/t/x",
    })) {
      await page.goto(origin + path);
      await page.locator("h1").waitFor();
      await page.waitForLoadState("networkidle");
      const what = `${name} at ${width} px (${locale}, ${scheme})`;
      const over = await page.evaluate(
        () => document.documentElement.scrollWidth - document.documentElement.clientWidth,
      );
      check(`${what} has no sideways scroll`, over <= 0, `${over} px too wide`);
      const small = await page.evaluate(() =>
        [
          ...document.querySelectorAll(
            "a, button, select, textarea, summary, label.check, input:not([type=file], [type=checkbox], [type=radio])",
          ),
        ]
          .filter((e) => e.offsetHeight > 0 && e.offsetHeight < 48)
          .map((e) => `${e.tagName} ${e.textContent} ${e.offsetHeight}`),
      );
      check(`${what}: all that is pressed has 48 px`, small.length === 0, small.join("; "));
      await page.evaluate(axeSource);
      const found = await page.evaluate(() =>
        globalThis.axe.run(document, {
          runOnly: ["wcag2a", "wcag2aa", "wcag2aaa", "wcag21aa", "wcag22aa", "best-practice"],
        }),
      );
      const words = found.violations.map(
        (v) => `${v.id}: ${v.nodes.map((n) => `${n.target} ${n.failureSummary?.split("\n")[1]}`)}`,
      );
      check(`${what}: axe finds nothing`, words.length === 0, words.join("\n     "));
      await picture(page, `look-${name}-${scheme}-${width}`);
    }
    await phone.close();
  }
}

async function picture(page, name) {
  if (shots) await page.screenshot({ path: `${shots}/tech-${name}.png`, fullPage: true });
}

try {
  await main();
} catch (err) {
  check(
    "the browser test of /t/",
    false,
    String(err.stack ?? err)
      .split("\n")
      .slice(0, 12)
      .join("\n     "),
  );
  if (shots)
    for (const p of browser?.contexts().flatMap((c) => c.pages()) ?? [])
      await p.screenshot({ path: `${shots}/tech-failed.png` });
}
await browser?.close();
for (const child of children) child.kill("SIGTERM");
await Promise.all(
  children.map((c) => c.exitCode ?? c.signalCode ?? new Promise((resolve) => c.once("exit", resolve))),
);
if (failures === 0) rmSync(dir, { recursive: true });
console.log(
  failures === 0
    ? "browser test of /t/: all good"
    : `browser test of /t/: ${failures} failed; logs in ${dir}`,
);
process.exit(failures === 0 ? 0 : 1);
