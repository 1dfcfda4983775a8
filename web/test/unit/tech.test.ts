// The pages under /t/: what is queued on a phone, and its words.
import { describe, expect, test } from "vitest";
import { takeThen } from "../../src/api/then";
import { fit } from "../../src/tech/photo";
import { type Action, Queue, type Reply, type Shelf } from "../../src/tech/queue";
import { codeOf, tokenOf } from "../../src/tech/way";
import { workKinds, worksOf } from "../../src/tech/work";

/** memory is a shelf that outlives its queue, as the phone's disk does. */
function memory(): Shelf & { rows: Map<string, Action> } {
  const rows = new Map<string, Action>();
  return {
    rows,
    all: async () => structuredClone([...rows.values()]),
    put: async (a) => void rows.set(a.id, structuredClone(a)),
    remove: async (id) => void rows.delete(id),
  };
}

const made = Date.now();
const step = (id: string, by = "tom") => ({
  id,
  by,
  made: made + Number(id),
  kind: "claim" as const,
  about: id,
  path: "/claims",
  body: { id, photo: "picture" },
});

/** controller counts what reaches it; replies are taken in turn, the last one stays. */
function controller(...replies: (Reply | "gone")[]) {
  const heard: string[] = [];
  return {
    heard,
    send: async (a: Action): Promise<Reply> => {
      heard.push(a.id);
      const reply = replies.length > 1 ? replies.shift() : replies[0];
      if (reply === "gone" || !reply) throw new TypeError("no network");
      return reply;
    },
  };
}
const queueAt = (shelf: Shelf, send: (a: Action) => Promise<Reply>) => new Queue(shelf, send, () => {});
const states = (q: Queue) => q.items.map((a) => `${a.id} ${a.state}`).join(", ");

describe("the queue", () => {
  test("survives a reload, and is sent once in the order it was made", async () => {
    const shelf = memory();
    const off = queueAt(shelf, controller("gone").send);
    await off.add(step("2"));
    await off.add(step("1"));
    await off.flush("tom");
    expect([states(off), off.way]).toEqual(["1 queued, 2 queued", "offline"]);
    const on = controller({ status: 201 });
    const q = queueAt(shelf, on.send);
    await Promise.all([q.flush("tom"), q.flush("tom")]); // both events of a phone that comes back
    await q.flush("tom");
    expect([on.heard, states(q), q.way]).toEqual([["1", "2"], "1 sent, 2 sent", "open"]);
  });

  test("a lost answer is asked for again with the same id", async () => {
    const far = controller("gone", { status: 201 });
    const q = queueAt(memory(), far.send);
    await q.add(step("1"));
    await q.flush("tom");
    await q.flush("tom");
    expect([far.heard, states(q)]).toEqual([["1", "1"], "1 sent"]);
  });

  test("a refused step is kept with its sentence and holds up no other", async () => {
    const shelf = memory();
    const far = controller({ status: 409, detail: "no machine shows it", hint: "Compare." }, { status: 201 });
    const q = queueAt(shelf, far.send);
    await q.add(step("1"));
    await q.add(step("2"));
    await q.flush("tom");
    expect(states(q)).toBe("1 rejected, 2 sent");
    expect(shelf.rows.get("1")).toMatchObject({ why: "no machine shows it", hint: "Compare." });
    await q.flush("tom");
    expect(far.heard).toEqual(["1", "2"]); // a refused step is not sent by itself
    await q.again("1");
    await q.flush("tom");
    expect(states(q)).toBe("1 sent, 2 sent");
    expect(shelf.rows.get("1")?.why).toBeUndefined();
  });

  test("a dropped step is gone for good", async () => {
    const shelf = memory();
    const q = queueAt(shelf, controller({ status: 404 }).send);
    await q.add(step("1"));
    await q.flush("tom");
    await q.drop("1");
    const after = queueAt(shelf, controller({ status: 201 }).send);
    await after.flush("tom");
    expect(states(after)).toBe("");
  });

  test.each([
    [{ status: 503 }, "offline"],
    [{ status: 507 }, "offline"],
    [{ status: 429 }, "offline"],
    [{ status: 409, detail: "a request with this Idempotency-Key is being answered" }, "offline"],
    [{ status: 401 }, "signed-out"],
  ])("%j is no refusal: the step waits", async (reply, way) => {
    const q = queueAt(memory(), controller(reply).send);
    await q.add(step("1"));
    await q.flush("tom");
    expect([states(q), q.way]).toEqual(["1 queued", way]);
  });

  test("nothing is sent in the name of somebody else", async () => {
    const far = controller({ status: 201 });
    const q = queueAt(memory(), far.send);
    await q.add(step("1", "anna"));
    await q.add(step("2", ""));
    await q.flush("tom");
    expect([far.heard, states(q)]).toEqual([["2"], "1 queued, 2 sent"]);
    expect(q.items[1]?.by).toBe("tom");
    await q.flush("anna");
    expect(far.heard).toEqual(["2", "1"]);
  });

  test("what was sent leaves its picture, and after a day itself", async () => {
    const shelf = memory();
    const q = queueAt(shelf, controller({ status: 201 }).send);
    await q.add(step("1"));
    expect(JSON.stringify(shelf.rows.get("1"))).toContain("picture");
    await q.flush("tom");
    expect(JSON.stringify(shelf.rows.get("1"))).not.toContain("picture");
    await q.load(made + 25 * 3600_000);
    expect([states(q), shelf.rows.size]).toEqual(["", 0]);
  });
});

test("a token is read as it is scanned or typed, and nothing else is one", () => {
  expect(["7K2M5QXA", "7k2m-5qxa", " 7K2M 5QXA "].map(tokenOf)).toEqual(Array(3).fill("7K2M5QXA"));
  expect(["", "7K2M5QX", "7K2M5QX0", "7K2M5QXAA", "../7K2M5"].map(tokenOf)).toEqual(Array(5).fill(""));
});

test("a code is written as the machine shows it", () => {
  expect(["", "4", "481", "4819", "481902", "481-902", "481 902 7"].map(codeOf)).toEqual([
    "",
    "4",
    "481",
    "481-9",
    "481-902",
    "481-902",
    "481-902",
  ]);
});

test("pictures get smaller and keep their shape", () => {
  expect(fit(4000, 3000, 1280)).toEqual([1280, 960]);
  expect(fit(300, 200, 1280)).toEqual([300, 200]);
  expect(fit(1, 9000, 1280)).toEqual([1, 1280]);
});

test("work is sent in the controller's words, with parts where they were given", () => {
  expect(worksOf("d-x", { "fan-replaced": " F-9 ", cleaned: "" })).toEqual([
    { box: "d-x", kind: "cleaned" },
    { box: "d-x", kind: "fan-replaced", part: "F-9" },
  ]);
});

test("work kinds are those of the controller", async () => {
  const { default: api } = await import("../../openapi.json");
  expect([...workKinds].sort()).toEqual([...api.components.schemas.Work.properties.kind.enum].sort());
});

describe("after signing in", () => {
  const stored = new Map<string, string>();
  Object.assign(globalThis, {
    localStorage: {
      getItem: (k: string) => stored.get(k) ?? null,
      removeItem: (k: string) => stored.delete(k),
    },
  });
  const back = (then: unknown) => {
    stored.set("edgeherd.then", typeof then === "string" ? then : JSON.stringify(then));
    return takeThen(1000);
  };
  test("one comes back to where one was, once", () => {
    expect(back({ path: "/t/c/7K2M5QXA", until: 2000 })).toBe("/t/c/7K2M5QXA");
    expect(takeThen(1000)).toBe("/");
  });
  test.each([
    { path: "//evil.example/t/", until: 2000 },
    { path: "https://evil.example/t/", until: 2000 },
    { path: "/t/../sign-in", until: 2000 },
    { path: "/people", until: 2000 },
    { path: "/t/", until: 999 },
    "no json",
  ])("%j leads to the dashboard", (then) => expect(back(then)).toBe("/"));
});
