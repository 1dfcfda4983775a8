// Browser tests of sign-in, users, tokens and the audit log, and of names that
// want to be programs. Given what browser.mjs uses itself.
const payload =
  '"><img src=x onerror="window.pwned=1"><svg/onload=window.pwned=2>javascript:window.pwned=3{{7*7}}';

export function peopleParts({ open, visit, check, dialogClean }) {
  /** signIn comes in by a wrong and a right password, on a phone, by keys. */
  async function signIn() {
    const { page, context } = await open({ width: 390 });
    await visit(page, "/sign-in");
    check(
      "the provider has a button",
      (await page.getByRole("link", { name: "Sign in with Example Login" }).getAttribute("href")) ===
        "/login/oidc",
    );
    await page.getByLabel("Name").fill("anna");
    await page.getByLabel("Password").fill("guess");
    await page.keyboard.press("Enter");
    await page.getByRole("alert").getByText("The name or the password is wrong.").waitFor();
    await page.getByLabel("Password").fill("four small green boats");
    await page.keyboard.press("Enter");
    await page.waitForURL((url) => url.pathname === "/");
    check("a right password leads to the fleet", true);
    await context.close();
  }

  async function setPassword() {
    const { page, context } = await open({ width: 390 });
    await visit(page, "/set-password#first");
    await page.getByLabel("Name").fill("anna");
    await page.getByLabel("New password").fill("four small green boats");
    await page.getByLabel("The same again").fill("four small green boat");
    await page.getByText("The two are not the same.").waitFor();
    await page.getByLabel("The same again").fill("four small green boats");
    await page.keyboard.press("Enter");
    await page.waitForURL((url) => url.pathname === "/");
    check("the first administrator sets a password", true);
    await page.goto("about:blank");
    await visit(page, "/set-password#used");
    await page.getByText("Ask an administrator for a new one.").waitFor();
    check("an address that was used says so", true);
    await context.close();
  }

  async function users() {
    const { page, context, complaints } = await open({ width: 390 });
    await visit(page, "/");
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("link", { name: "Users and tokens" }).click();
    await page.getByRole("button", { name: "Invite a user" }).click();
    const dialog = await dialogClean(page, "the form of an invitation");
    await dialog.getByLabel("Name").fill("zoe");
    await dialog.getByLabel("Role").selectOption("tech");
    await dialog.getByLabel("all sites").uncheck();
    await dialog.getByRole("checkbox").nth(1).check();
    await page.keyboard.press("Enter");
    await page.getByText("zoe is invited").waitFor();
    check(
      "the invitation is shown once",
      (await page.locator("[data-secret]").textContent())?.includes("/set-password#"),
    );
    await page.getByRole("button", { name: "I have it" }).click();
    await page.getByRole("button", { name: "Disable zoe" }).click();
    await page.getByRole("button", { name: "Enable zoe" }).waitFor();
    await page.getByRole("button", { name: "New token" }).click();
    const token = await dialogClean(page, "the form of a token");
    await token.getByLabel("Name").fill("robot");
    await page.keyboard.press("Enter");
    await page.getByText("eht_aaaa2222_secret").waitFor();
    await page.getByRole("button", { name: "End robot aaaa2222" }).click();
    await page.locator("dialog[open]").getByRole("button", { name: "End", exact: true }).click();
    await page.getByRole("button", { name: "End robot aaaa2222" }).waitFor({ state: "detached" });
    check("a token is made and ended", true);
    check("no complaints of users and tokens", complaints.length === 0, complaints.join("\n     "));
    await context.close();
  }

  async function secrets() {
    const { page, context, complaints } = await open({ width: 390 });
    await visit(page, "/secrets");
    await page.getByRole("button", { name: "3 of 4 have it" }).click();
    await page.getByText("not reached yet").waitFor();
    await page.getByRole("button", { name: "New secret" }).click();
    const dialog = await dialogClean(page, "the form of a secret");
    await dialog.getByLabel(/^Name/).fill("hook");
    await dialog.getByLabel(/^For/).selectOption("label");
    await dialog.getByLabel(/^Label/).fill("line=b");
    await dialog.getByLabel(/^Value/).fill("Łódź-4711");
    const sent = page.waitForRequest((r) => r.method() === "POST" && r.url().endsWith("/api/v1/secrets"));
    await page.keyboard.press("Enter");
    const { name, label, value } = (await sent).postDataJSON();
    check(
      "a secret is sent as the bytes of its value",
      name === "hook" && label === "line=b" && Buffer.from(value, "base64").toString() === "Łódź-4711",
    );
    await page.getByRole("button", { name: "Remove hook" }).click();
    await page.locator("dialog[open]").getByRole("button", { name: "Remove", exact: true }).click();
    await page.getByRole("button", { name: "Remove hook" }).waitFor({ state: "detached" });
    check("no complaints of secrets", complaints.length === 0, complaints.join("\n     "));
    await context.close();
  }

  async function audit() {
    const { page, context } = await open();
    await visit(page, "/audit");
    await page.getByText("4 records; none was changed after it was written").waitFor();
    for (const text of [
      "What records 3 to 5 said before is lost",
      "1 box shows what no controller signed",
      "2 boxes have seen what the log cannot judge",
    ])
      await page.getByText(text).waitFor();
    await page.getByRole("button", { name: "bert@example.com" }).click();
    await page.waitForURL(/actor=bert/);
    await page.getByText("What bert@example.com did").waitFor();
    await page.waitForFunction(() => document.querySelectorAll("tbody tr").length === 1);
    check("the log is filtered by who did it", true);
    await context.close();
  }

  /** T19: texts that boxes and people send are shown and never run. */
  async function hostileNames(list) {
    const { page, context, complaints } = await open();
    const poison = (value, key) => {
      if (Array.isArray(value)) return value.map((v) => poison(v, key));
      if (value && typeof value === "object") {
        return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, poison(v, k)]));
      }
      const shown =
        /^(name|site|text|note|actor|object|sentence|affected|description|reason|detail|user|box_name|err|why|by|do|place|assignee|want|input|pipeline|region|version|head|broken|source|verb|made_by|issuer|licence)$/;
      return typeof value === "string" && shown.test(key ?? "") ? value + payload : value;
    };
    let poisoned = 0;
    await page.route(/\/api\/v1\/(?!events)/, async (route) => {
      const response = await route.fetch();
      if (!response.headers()["content-type"]?.includes("json")) return route.fulfill({ response });
      poisoned++;
      await route.fulfill({ response, json: poison(await response.json()) });
    });
    for (const [name, path] of Object.entries(list)) {
      if (/^(set-password|sign-in)/.test(name)) continue;
      await visit(page, path);
      const hit = await page.evaluate(
        () =>
          window.pwned ?? [...document.querySelectorAll("[onerror],[onload],a[href^='javascript:']")].length,
      );
      check(`T19: ${name} runs nothing of what it shows`, hit === 0, `${hit}`);
    }
    check("T19: names were hostile", poisoned > 4);
    const ours = complaints.filter((c) => /Content Security Policy|pwned/.test(c));
    check("T19: nothing even tried to run", ours.length === 0, ours.join("\n     "));
    await page.unrouteAll({ behavior: "ignoreErrors" }); // one may be under way
    await context.close();
  }

  return { signIn, setPassword, users, secrets, audit, hostileNames };
}
