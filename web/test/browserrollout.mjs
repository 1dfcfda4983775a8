// What people do about a rollout, on its page. Only against the mock: a real
// fleet keeps its rollouts.
export function rolloutParts({ open, visit, check, dialogClean, api }) {
  async function rolloutButtons() {
    const { page, context } = await open();
    const { items } = await (async () => {
      await visit(page, "/rollouts");
      return api(page, "/api/v1/rollouts");
    })();
    const running = items.find((r) => r.state === "running");
    let lists = 0;
    page.on("request", (request) => {
      if (/\/api\/v1\/rollouts(\?|$)/.test(request.url())) lists++;
    });
    await visit(page, `/rollouts/${running.id}`);
    await page.getByRole("button", { name: /^Pause \(\d+ box/ }).click();
    await page.getByRole("button", { name: /^Resume \(\d+ box/ }).click();
    await page
      .getByRole("button", { name: /^Cancel for \d+ box/ })
      .first()
      .click();
    const dialog = page.getByRole("dialog");
    check("cancel asks first and says what stays", (await dialog.textContent())?.includes("keep"));
    await dialog.getByRole("button", { name: "Do not cancel" }).click();
    check(
      "not cancelling leaves it running",
      (await page.getByRole("button", { name: /^Pause/ }).count()) === 1,
    );
    // What it is beside the others the controller says with it.
    check("the page of a rollout asks for no list of all", lists === 0, `asked ${lists} times`);
    await context.close();
  }

  /** rolloutJudged: why a rollout halted, what it was judged by, and the way back. */
  async function rolloutJudged() {
    const { page, context, complaints } = await open({ width: 390 });
    await visit(page, "/rollouts");
    const { items } = await api(page, "/api/v1/rollouts");
    const halted = items.find((r) => r.state === "halted");
    await visit(page, `/rollouts/${halted.id}`);
    await page.getByText(halted.affected).waitFor();
    const gates = page.getByRole("region", { name: "What wave 1 is judged by" });
    check("the gates say what was measured", (await gates.textContent())?.includes("1 of 1 failed"));
    await page.getByRole("button", { name: "Roll back 1 box" }).click();
    const dialog = await dialogClean(page, "the question before a rollback");
    await dialog.getByRole("button", { name: "Roll back 1 box" }).click();
    await page.getByText("Taken back by").waitFor();
    check(
      "what was taken back is not offered again",
      (await page.getByRole("button", { name: /^Roll back/ }).count()) === 0,
    );
    const waiting = items.find((r) => r.waves.some((w) => w.state === "waiting" && w.reason));
    await visit(page, `/rollouts/${waiting.id}`);
    const approve = page.getByRole("button", { name: /^Approve wave 3/ });
    await approve.focus();
    await page.keyboard.press("Enter");
    await approve.waitFor({ state: "detached" });
    check("a wave that waits for somebody is approved", true);
    check("no complaints of a rollout", complaints.length === 0, complaints.join("\n     "));
    await context.close();
  }

  return { rolloutButtons, rolloutJudged };
}
