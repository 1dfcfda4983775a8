// The people of the mock controller: sign-in, users, tokens and the audit log.
const ways = { provider: "Example Login", setup: false };

export const peopleSample = {
  users: [
    {
      name: "anna",
      role: "admin",
      sites: ["*"],
      disabled: false,
      waiting: false,
      sessions: 1,
      created: "2025-11-02T08:00:00Z",
      last_login: "2026-01-15T09:12:00Z",
    },
    {
      name: "bert@example.com",
      role: "ops",
      sites: ["*"],
      issuer: "https://login.example.com",
      disabled: false,
      waiting: false,
      sessions: 0,
      created: "2025-12-01T08:00:00Z",
      last_login: "2026-01-14T16:00:00Z",
    },
    {
      name: "tom",
      role: "tech",
      sites: ["berlin-1", "hamburg-3"],
      disabled: false,
      waiting: true,
      sessions: 0,
      created: "2026-01-14T08:00:00Z",
    },
    {
      name: "wanda",
      role: "viewer",
      sites: ["krakow-2"],
      disabled: true,
      waiting: false,
      sessions: 0,
      created: "2025-12-11T08:00:00Z",
      last_login: "2025-12-20T08:00:00Z",
    },
  ],
  tokens: [
    {
      id: "k7m2qx4a",
      name: "ci",
      role: "ops",
      sites: ["*"],
      scope: ["artefact.push"],
      made_by: "anna",
      created: "2025-12-20T08:00:00Z",
      expires: "2026-03-20T08:00:00Z",
      used: "2026-01-15T11:50:00Z",
    },
    {
      id: "b3x9w2mz",
      name: "prometheus",
      role: "viewer",
      sites: ["*"],
      scope: [],
      made_by: "anna",
      created: "2025-12-20T08:00:00Z",
      expires: "2026-12-20T08:00:00Z",
      used: "2026-01-15T11:59:00Z",
    },
  ],
  records: [
    {
      seq: 4,
      time: "2026-01-15T11:30:00Z",
      actor: "bert@example.com",
      role: "ops",
      source: "192.0.2.7",
      verb: "rollout.start",
      object: "rollout r-abcdefghij",
      note: "start by bert@example.com",
    },
    {
      seq: 3,
      time: "2026-01-15T11:20:00Z",
      actor: "anna",
      role: "admin",
      source: "192.0.2.4",
      verb: "user.role",
      object: "tom",
      note: "viewer of berlin-1 → tech of berlin-1, hamburg-3",
    },
    { seq: 2, time: "2026-01-15T09:13:00Z", actor: "nobody", source: "198.51.100.9", verb: "login.failed" },
    {
      seq: 1,
      time: "2026-01-15T09:12:00Z",
      actor: "anna",
      source: "192.0.2.4",
      verb: "login",
      object: "anna",
    },
  ],
  secrets: [
    {
      name: "camera-dock",
      box: "d-mw5dnos7nv4eq",
      box_name: "berlin-1-1",
      boxes: 1,
      held: 1,
      changed: "2026-01-15T10:40:00Z",
      by: "anna",
      lost: false,
    },
    {
      name: "proxy",
      site: "berlin-1",
      boxes: 4,
      held: 3,
      changed: "2026-01-12T08:00:00Z",
      by: "bert@example.com",
      lost: false,
    },
    {
      name: "webhook",
      label: "line=a",
      boxes: 0,
      held: 0,
      changed: "2025-12-20T08:00:00Z",
      by: "anna",
      lost: true,
    },
  ],
  state: {
    records: 4,
    head: "9f2c".repeat(16),
    broken: "",
    seals: 2,
    witnesses: 2,
    sealed: "2026-01-15T11:40:00Z",
    witnessed: 4,
    restores: [{ seq: 3, time: "2026-01-15T10:00:00Z", lost: 5 }],
    forged: [head("d-mw5dnos7nv4e3", "berlin-1-3", 2)],
    unjudged: [head("d-mw5dnos7nv4eq", "berlin-1-1", 7), head("d-mw5dnos7nv4e2", "berlin-1-2", 7)],
  },
};

function head(box, name, seq) {
  return { box, name, seq, hash: "4b1d".repeat(16), told: "2026-01-15T11:00:00Z" };
}

/** answerPeople answers what belongs here; undefined is for others. */
export function answerPeople(path, query, body, { shift, refuse, now }) {
  const [, kind, id] = /^\/api\/v1\/([\w-]+(?::\w+)?)(?:\/([^/]+))?/.exec(path) ?? [];
  const { users, tokens, records, secrets, state } = peopleSample;
  switch (kind) {
    case "sign-in":
      return ways;
    case "sessions":
    case "passwords":
      if (body.password !== "four small green boats") throw refuse(401, "the name or the password is wrong");
      return { user: body.name || "tom", role: "admin", sites: ["*"], can: ["people.manage"], person: true };
    case "passwords:check":
      if (body.secret === "used") throw refuse(401, "the address was used already or has expired");
      return body.secret === "first" ? { user: "", role: "admin" } : { user: "tom", role: "tech" };
    case "users": {
      if (body === undefined) return shift({ items: users });
      let user = users.find((u) => u.name === decodeURIComponent(id ?? ""));
      if (!user) {
        user = { ...body, disabled: false, waiting: true, sessions: 0, created: now() };
        users.push(user);
      } else if (body.action === "disable" || body.action === "enable")
        user.disabled = body.action === "disable";
      else if (body.action === "role") Object.assign(user, { role: body.role, sites: body.sites });
      const invites = !id || body.action === "reset";
      return shift({
        user,
        ...(invites && { invitation: { path: "/set-password#secret", expires: now() } }),
      });
    }
    case "tokens": {
      if (id)
        tokens.splice(
          tokens.findIndex((t) => t.id === id),
          1,
        );
      if (!body) return shift({ items: tokens });
      const token = {
        id: "aaaa2222",
        name: body.name,
        role: body.role,
        sites: body.sites,
        scope: [],
        made_by: "admin",
        created: now(),
        expires: now(),
        used: now(),
      };
      tokens.unshift(token);
      return shift({ ...token, secret: "eht_aaaa2222_secret" });
    }
    case "secrets": {
      if (!body) return shift({ items: secrets });
      const { value, ...at } = body;
      if (!value) throw refuse(422, "no value");
      const same = (s) =>
        s.name === at.name && s.box === at.box && s.site === at.site && s.label === at.label;
      const was = secrets.find(same);
      if (was) Object.assign(was, { held: 0, changed: now() });
      else secrets.push({ ...at, boxes: 1, held: 0, changed: now(), by: "anna", lost: false });
      return shift({ items: secrets });
    }
    case "secrets:remove":
      secrets.splice(
        secrets.findIndex((s) => s.name === body.name),
        1,
      );
      return shift({ items: secrets });
    case "secrets:boxes": {
      const box = (id, name, state) => ({ box: id, name, site: "berlin-1", state });
      if (query.get("name") !== "proxy") return { items: [box("d-mw5dnos7nv4eq", "berlin-1-1", "held")] };
      return {
        items: [
          box("d-mw5dnos7nv4eq", "berlin-1-1", "held"),
          box("d-mw5dnos7nv4e2", "berlin-1-2", "held"),
          box("d-mw5dnos7nv4e3", "berlin-1-3", "held"),
          box("d-mw5dnos7nv4e4", "berlin-1-4", "waiting"),
        ],
      };
    }
    case "audit":
      return shift({
        items: records.filter((r) => !query.get("actor") || r.actor === query.get("actor")),
        next: 0,
      });
    case "audit:verify":
      return shift(state);
  }
  return undefined;
}
