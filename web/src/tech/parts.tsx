/** @jsxImportSource preact */
// Small parts of the pages.
import type { ComponentChildren } from "preact";
import type { Box, Visit } from "../api/generated";
import { queue, signIn, useNet, who } from "./net";
import { ago, t, word } from "./words";

const shapes = {
  back: "M10 2.5 4.5 8l5.500 5.500",
  next: "M6 2.500 11.500 8 6 13.500",
  ok: "M8 1.800a6.200 6.200 0 1 0 0 12.400A6.200 6.200 0 0 0 8 1.800ZM5.200 8.200l2 2 3.600-4",
  todo: "M8 1.800a6.200 6.200 0 1 0 0 12.400A6.200 6.200 0 0 0 8 1.800Z",
  fault: "M8 1.500 14.500 8 8 14.500 1.500 8zM8 5v3.600M8 10.700v.4",
  urgent: "M8 2 14.500 13.500h-13zM8 6.300v3.400M8 11.500v.4",
  silent: "M2.500 2.500h11v11h-11zM2.500 2.500l11 11M13.500 2.500l-11 11",
  waiting: "M8 1.800a6.200 6.200 0 1 0 0 12.400A6.200 6.200 0 0 0 8 1.800ZM8 4.500V8l2.400 1.600",
  refused:
    "M8 1.800a6.200 6.200 0 1 0 0 12.400A6.200 6.200 0 0 0 8 1.800ZM5.600 5.600l4.800 4.800M10.400 5.600l-4.800 4.800",
  camera:
    "M1.500 4.500h3l1-1.800h5l1 1.800h3v8.500h-13zM8 6a2.600 2.600 0 1 0 0 5.200A2.600 2.600 0 0 0 8 6Z",
  list: "M2 3.500h1M5.500 3.500H14M2 8h1M5.500 8H14M2 12.500h1M5.500 12.500H14",
  noNet:
    "M2 2l12 12M1.500 6.500a9.500 9.500 0 0 1 3-2M8 3.700a9.500 9.500 0 0 1 6.500 2.800M4 9.200a6 6 0 0 1 3-1.600M8 12.800v.2",
  plus: "M8 3v10M3 8h10",
} as const;
export type IconName = keyof typeof shapes;

export const Icon = ({ name }: { name: IconName }) => (
  <svg class="icon" viewBox="0 0 16 16" aria-hidden="true">
    <path d={shapes[name]} />
  </svg>
);

/** Frame is every page: the way back, the way to what waits, and what is the matter. */
export function Frame({
  title,
  home,
  children,
}: {
  title: string;
  home?: boolean;
  children: ComponentChildren;
}) {
  useNet();
  document.title = `${title} · edgeherd`;
  const waiting = queue.items.filter((a) => a.state === "queued").length;
  const refused = queue.items.filter((a) => a.state === "rejected").length;
  return (
    <>
      <header>
        {home ? (
          <a href="/t/">edgeherd</a>
        ) : (
          <a href="/t/">
            <Icon name="back" />
            {t("home")}
          </a>
        )}
        <a href="/t/steps">
          <Icon name="list" />
          {t("out.title")}
          {waiting + refused > 0 && <span class={refused ? "hot" : "warm"}>({waiting + refused})</span>}
        </a>
      </header>
      <main>
        <div role="status">
          {queue.way === "offline" && <Note icon="noNet">{t("offline")}</Note>}
          {waiting > 0 && (
            <Note icon="waiting" look="warm">
              {t("out.waiting", { count: waiting })}
            </Note>
          )}
          {refused > 0 && (
            <Note icon="refused" look="hot">
              <a href="/t/steps" class="hot">
                {t("out.rejected", { count: refused })}
              </a>
            </Note>
          )}
        </div>
        {who === null && (
          <div class="card">
            <strong>{t("signIn.need")}</strong>
            <p>{t("signIn.why")}</p>
            <button type="button" class="button main" onClick={signIn}>
              {t("signIn.go")}
            </button>
          </div>
        )}
        <h1>{title}</h1>
        {children}
      </main>
    </>
  );
}

export const Note = ({
  icon,
  look = "",
  children,
}: {
  icon: IconName;
  look?: string;
  children: ComponentChildren;
}) => (
  <p class={`note ${look}`}>
    <Icon name={icon} />
    <span>{children}</span>
  </p>
);

/** Age says how old what is shown is, when it is not of now. */
export const Age = ({
  at,
  problem,
}: {
  at?: number | undefined;
  problem?: { message: string } | undefined;
}) =>
  problem && at ? (
    <p>
      <small>{t("asOf", { ago: ago(at) })}</small>
    </p>
  ) : null;

/** Missing stands where there is nothing to show yet. */
export function Missing({ problem }: { problem?: { status: number; message: string } | undefined }) {
  if (!problem) return <p class="soft">{t("loading")}</p>;
  if (problem.status === 401) return null;
  return <p>{problem.status === 0 ? t("nothingKept") : t("failed", { why: problem.message })}</p>;
}

const looks: Record<string, [IconName, string]> = {
  healthy: ["ok", "ok"],
  live: ["ok", "ok"],
  watch: ["fault", "warm"],
  ticket: ["fault", "warm"],
  urgent: ["urgent", "hot"],
  late: ["waiting", "warm"],
  silent: ["silent", "hot"],
  never: ["todo", "soft"],
  unknown: ["todo", "soft"],
};

export function State({ group, name }: { group: "health" | "link"; name: string }) {
  const [icon, look] = looks[name] ?? ["todo", "soft"];
  return (
    <span class={`state ${look}`}>
      <Icon name={icon} />
      {word(group, name)}
    </span>
  );
}

export const BoxRow = ({ box }: { box: Box }) => (
  <a class="row" href={`/t/b/${box.id}`}>
    <span>
      <strong>{box.name}</strong> <small>{box.site}</small>
      <span class="states">
        <State group="link" name={box.link} />
        <State group="health" name={box.health} />
      </span>
    </span>
    <Icon name="next" />
  </a>
);

export const dayOf = (visit: Visit): string =>
  t("visit.day", { day: visit.day, state: word("visitState", visit.state) });
