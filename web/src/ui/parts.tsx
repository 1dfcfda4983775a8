// Small pieces that every page uses: values with age, and the three states of
// a page that has nothing to show.
import { type ReactNode, useEffect, useRef } from "react";
import { useTranslation } from "react-i18next";
import { Problem } from "../api/client";
import type { Value } from "../api/generated";
import { useNow } from "../api/now";
import { ago, clock, day, isOld, metric, stamp } from "../format";
import { Icon } from "./icons";
import { usePrefs } from "./prefs";

/** Reading is a measured value; an old one is grey and says its age. */
export function Reading({
  name,
  value,
  inline,
}: {
  name: string;
  value: Value | undefined;
  inline?: boolean;
}) {
  const { i18n } = useTranslation();
  const now = useNow();
  if (!value) return <span className="text-soft">–</span>;
  const text = metric(name, value.value, i18n.language);
  if (!isOld(value.time, now)) return <span className="num whitespace-nowrap">{text}</span>;
  return (
    <span className="num whitespace-nowrap text-soft">
      {text}
      <span className={inline ? "ml-1 text-xs" : "block text-xs"}>{ago(value.time, now, i18n.language)}</span>
    </span>
  );
}

/** Ago is the age of a moment, with the moment itself as title. */
export function Ago({ time }: { time: string | undefined }) {
  const { i18n } = useTranslation();
  const { zone } = usePrefs();
  const now = useNow();
  if (!time) return <span>–</span>;
  return (
    <time dateTime={time} title={stamp(time, i18n.language, zone)} className="whitespace-nowrap">
      {ago(time, now, i18n.language)}
    </time>
  );
}

/** Clock is a moment as time of day, with the full stamp as title. */
export function Clock({ time }: { time: string }) {
  const { i18n } = useTranslation();
  const { zone } = usePrefs();
  const now = useNow(60_000);
  return (
    <time dateTime={time} title={stamp(time, i18n.language, zone)} className="num whitespace-nowrap">
      {clock(time, now, i18n.language, zone)}
    </time>
  );
}

/** Day is a date, with the full stamp as title. */
export function Day({ time }: { time: string }) {
  const { i18n } = useTranslation();
  const { zone } = usePrefs();
  const title = time.includes("T") ? stamp(time, i18n.language, zone) : undefined;
  return (
    <time dateTime={time} title={title} className="num whitespace-nowrap">
      {day(time, i18n.language, zone)}
    </time>
  );
}

export function Simulated() {
  const { t } = useTranslation();
  return <span className="tag">{t("simulated")}</span>;
}

export function Page({
  title,
  aside,
  children,
}: {
  title: ReactNode;
  aside?: ReactNode;
  children: ReactNode;
}) {
  const heading = useRef<HTMLHeadingElement>(null);
  // A browser full of tabs tells them apart by this; tags behind a name are left out.
  useEffect(() => {
    document.title = `${heading.current?.firstChild?.textContent} · edgeherd`;
  });
  return (
    <>
      <div className="mb-3 flex flex-wrap items-baseline gap-x-4 gap-y-1">
        <h1 ref={heading} className="min-w-0">
          {title}
        </h1>
        {aside && <div className="min-w-0 text-soft">{aside}</div>}
      </div>
      {children}
    </>
  );
}

export function Card(props: {
  title?: ReactNode;
  aside?: ReactNode;
  children: ReactNode;
  className?: string;
}) {
  return (
    <section className={`card ${props.className ?? ""}`}>
      {props.title && (
        <div className="flex flex-wrap items-baseline justify-between gap-x-3 px-3 pt-2.5 pb-1.5">
          <h2>{props.title}</h2>
          {props.aside && <div className="text-xs text-soft">{props.aside}</div>}
        </div>
      )}
      {props.children}
    </section>
  );
}

/** Scroll keeps a wide table inside its card; focusable, so that keys scroll it. */
export function Scroll({ label, stack, children }: { label: string; stack?: boolean; children: ReactNode }) {
  const ref = useRef<HTMLElement>(null);
  // Each cell of a stacked table bears the head of its column.
  useEffect(() => {
    for (const table of stack ? (ref.current?.querySelectorAll("table") ?? []) : []) {
      const heads = [...(table.tHead?.rows[0]?.cells ?? [])].map((head) => head.textContent ?? "");
      for (const row of [...table.tBodies].flatMap((body) => [...body.rows])) {
        for (const cell of row.cells) {
          if (cell.colSpan === 1) cell.dataset.label = heads[cell.cellIndex];
        }
      }
    }
  });
  return (
    // biome-ignore lint/a11y/noNoninteractiveTabindex: a region that scrolls must take focus (WCAG 2.1.1)
    <section ref={ref} className={`scroll relative ${stack ? "stack" : ""}`} aria-label={label} tabIndex={0}>
      {children}
    </section>
  );
}

/** Command is a line to paste into a terminal. */
export function Command({ children }: { children: string }) {
  return (
    <code className="code my-1 block overflow-x-auto rounded bg-sunk px-2 py-1 text-left">{children}</code>
  );
}

export function Empty({ title, children }: { title: string; children?: ReactNode }) {
  return (
    <div className="mx-auto max-w-xl px-4 py-8 text-center">
      <p className="mb-2 font-semibold">{title}</p>
      <div className="text-soft">{children}</div>
    </div>
  );
}

/** Loading reserves the room of what will come, so that nothing jumps. */
export function Loading({ height = 160 }: { height?: number }) {
  const { t } = useTranslation();
  return (
    <div role="status" className="grid place-items-center text-soft" style={{ minHeight: height }}>
      {t("loading")}
    </div>
  );
}

/** Fault says what went wrong and what to do. */
export function Fault({ error, retry }: { error: unknown; retry?: () => void }) {
  const { t } = useTranslation();
  const problem = error instanceof Problem ? error : new Problem(-1, String(error));
  if (problem.status === 401) return <SignedOut />;
  const title =
    problem.status === 0
      ? t("fault.unreachable")
      : problem.status === 403
        ? t("fault.forbidden")
        : problem.status === 404
          ? t("fault.missing")
          : t("fault.other");
  const advice =
    problem.hint ||
    (problem.status === 0
      ? t("fault.unreachableHint")
      : problem.status === 403
        ? t("fault.forbiddenHint")
        : "");
  return (
    <div role="alert" className="m-3 rounded-md border border-hot bg-hot-tint p-3">
      <p className="flex items-center gap-2 font-semibold text-hot">
        <Icon name="fault" /> {title}
      </p>
      {problem.status !== 0 && (
        <p className="mt-1" lang="en">
          {problem.message}
        </p>
      )}
      {advice && <p className="mt-1">{advice}</p>}
      {retry && (
        <button type="button" className="button mt-2" onClick={retry}>
          {t("retry")}
        </button>
      )}
    </div>
  );
}

function SignedOut() {
  const { t } = useTranslation();
  return (
    <div role="alert" className="card mx-auto my-8 max-w-xl p-5">
      <p className="mb-2 flex items-center gap-2 text-base font-semibold">
        <Icon name="key" /> {t("signedOut.title")}
      </p>
      <p className="mb-3">
        <a href="/sign-in" className="button primary">
          {t("signIn.title")}
        </a>
      </p>
      <p>{t("signedOut.how")}</p>
      <Command>edgeherd login --url</Command>
      <p className="text-soft">{t("signedOut.after")}</p>
    </div>
  );
}

/** Facts is a list of names and values in two columns. */
export function Facts({ items }: { items: [string, ReactNode][] }) {
  return (
    <dl className="grid grid-cols-[fit-content(46%)_minmax(0,1fr)] gap-x-4 gap-y-1 px-3 pb-3">
      {items.map(([name, value]) => (
        <div key={name} className="contents">
          <dt className="text-soft">{name}</dt>
          <dd className="min-w-0">{value}</dd>
        </div>
      ))}
    </dl>
  );
}
