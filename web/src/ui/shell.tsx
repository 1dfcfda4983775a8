// The frame of every page: rail on the left, or bar at the bottom of a phone.
import { useQuery } from "@tanstack/react-query";
import { Link, Outlet, useLocation } from "@tanstack/react-router";
import { useId } from "react";
import { useTranslation } from "react-i18next";
import { useOnline } from "../api/live";
import { can, leave, type Verb } from "../api/people";
import { sessionQuery, summaryQuery, trustRolesQuery } from "../api/queries";
import type { Zone } from "../format";
import { type Language, languages, setLanguage } from "../i18n";
import { Icon, type IconName } from "./icons";
import { Page } from "./parts";
import { setTheme, setZone, type ThemeChoice, usePrefs } from "./prefs";

const doors: { to: "/" | "/tickets" | "/models" | "/rollouts" | "/sites"; icon: IconName; word: string }[] = [
  { to: "/", icon: "fleet", word: "nav.fleet" },
  { to: "/tickets", icon: "tickets", word: "nav.tickets" },
  { to: "/models", icon: "models", word: "nav.models" },
  { to: "/rollouts", icon: "rollouts", word: "nav.rollouts" },
  { to: "/sites", icon: "sites", word: "nav.sites" },
];

/** Places without a session show nothing of the fleet, and ask nothing about it. */
const open = ["/sign-in", "/set-password"];

export function Shell() {
  const { t } = useTranslation();
  if (open.includes(useLocation().pathname)) return <Porch />;
  return (
    <div className="min-h-dvh md:pl-44 print:pl-0">
      <a
        href="#main"
        className="sr-only focus:not-sr-only focus:fixed focus:top-2 focus:left-2 focus:z-50 focus:bg-card focus:p-2"
      >
        {t("nav.skip")}
      </a>
      <header className="frame sticky top-0 z-20 flex h-12 items-center gap-3 border-b border-line bg-card px-3 md:px-5">
        <Link to="/" className="flex items-center gap-2 font-semibold md:hidden">
          <Brand short />
        </Link>
        <Development />
        <TrustEnds />
        <div className="ml-auto flex items-center gap-2">
          <Live />
          <Settings />
        </div>
      </header>
      <nav
        aria-label={t("nav.label")}
        className="frame fixed inset-x-0 bottom-0 z-30 flex border-t border-line bg-card md:inset-y-0 md:right-auto md:w-44 md:flex-col md:border-t-0 md:border-r md:p-2"
      >
        <Link to="/" className="mb-3 hidden items-center gap-2 px-2 pt-1.5 font-semibold md:flex">
          <Brand />
        </Link>
        {doors.map((door) => (
          <Link
            key={door.to}
            to={door.to}
            activeOptions={{ exact: door.to === "/", includeSearch: false }}
            activeProps={{ className: "text-accent bg-sunk font-semibold" }}
            inactiveProps={{ className: "text-soft hover:bg-sunk" }}
            className="flex min-h-12 flex-1 flex-col items-center justify-center gap-0.5 rounded text-xs md:min-h-9 md:flex-none md:flex-row md:justify-start md:gap-2.5 md:px-2 md:text-sm"
          >
            <Icon name={door.icon} />
            {t(door.word)}
          </Link>
        ))}
        <About />
      </nav>
      <main
        id="main"
        tabIndex={-1}
        className="mx-auto max-w-[1600px] px-3 pt-4 pb-20 outline-none md:px-5 md:pb-8"
      >
        <Outlet />
      </main>
    </div>
  );
}

/** Porch is the frame of the pages before somebody has come in. */
function Porch() {
  return (
    <div className="min-h-dvh">
      <header className="flex h-12 items-center gap-2 border-b border-line bg-card px-3 font-semibold md:px-5">
        <Brand />
        <div className="ml-auto font-normal">
          <Settings />
        </div>
      </header>
      <main id="main" tabIndex={-1} className="px-3 pb-8 outline-none">
        <Outlet />
      </main>
    </div>
  );
}

/** Brand is the mark and the name; short, a narrow header has room for the mark alone. */
function Brand({ short }: { short?: boolean }) {
  return (
    <>
      <svg viewBox="0 0 16 16" width="20" height="20" aria-hidden="true">
        <rect width="16" height="16" rx="3" fill="#155e75" />
        <path d="M3 3h4v4H3zM9 3h4v4H9zM3 9h4v4H3z" fill="#a5f3fc" />
        <path d="M9 13l2-4 2 4z" fill="#fdba74" />
      </svg>
      <span className={short ? "sr-only sm:not-sr-only" : ""}>edgeherd</span>
    </>
  );
}

function Development() {
  const { t } = useTranslation();
  const { data } = useQuery(summaryQuery);
  if (!data?.development) return null;
  return (
    <span
      className="inline-flex min-w-0 items-center gap-1.5 rounded bg-warm-tint px-2 py-0.5 text-xs text-warm"
      title={t("development.why")}
    >
      <Icon name="key" size={14} />
      <span className="truncate">{t("development.tag")}</span>
    </span>
  );
}

/** TrustEnds is a word on every page while a role wants a signature. */
function TrustEnds() {
  const { t } = useTranslation();
  const near = useQuery(trustRolesQuery).data?.items.filter((r) => r.stage !== "good") ?? [];
  if (near.length === 0) return null;
  const late = near.some((r) => r.stage !== "soon");
  return (
    <Link
      to="/models"
      title={near.map((r) => r.role).join(", ")}
      className={`inline-flex min-h-6 min-w-0 items-center gap-1.5 rounded px-2 py-0.5 text-xs ${late ? "bg-hot-tint text-hot" : "bg-warm-tint text-warm"}`}
    >
      <Icon name="key" size={14} />
      <span className="truncate">{t(late ? "trust.tagLate" : "trust.tag")}</span>
    </Link>
  );
}

function Live() {
  const { t } = useTranslation();
  const online = useOnline();
  return (
    <span role="status" className={`chip text-xs ${online ? "text-ok" : "text-warm"}`}>
      <Icon name={online ? "live" : "late"} size={14} />
      {online ? t("stream.live") : t("stream.waiting")}
    </span>
  );
}

function About() {
  const { t } = useTranslation();
  const session = useQuery(sessionQuery);
  const summary = useQuery(summaryQuery);
  return (
    <div className="mt-auto hidden px-2 pb-1 text-xs text-soft md:block">
      {session.data && (
        <div className="truncate">
          {session.data.user} · {t(`role.${session.data.role}`, { defaultValue: session.data.role })}
        </div>
      )}
      {summary.data && <div className="truncate">{summary.data.version}</div>}
    </div>
  );
}

/** Settings opens by the browser's own means: Escape and a click elsewhere close it. */
function Settings() {
  const { t, i18n } = useTranslation();
  const prefs = usePrefs();
  return (
    <>
      <button type="button" className="button" popoverTarget="settings" aria-label={t("settings.label")}>
        <Icon name="gear" />
        <span className="hidden sm:inline">{t("settings.label")}</span>
      </button>
      <div
        id="settings"
        popover="auto"
        role="dialog"
        aria-label={t("settings.label")}
        className="card inset-auto top-[3.25rem] right-3 max-h-[calc(100dvh-4rem)] w-60 overflow-y-auto p-1 text-text shadow-lg md:right-5"
      >
        <Doors />
        <Choice
          label={t("settings.language")}
          value={i18n.language}
          choose={(value) => void setLanguage(value as Language)}
          options={Object.entries(languages)}
        />
        <Choice
          label={t("settings.theme")}
          value={prefs.theme}
          choose={(value) => setTheme(value as ThemeChoice)}
          options={[
            ["system", t("settings.system")],
            ["light", t("settings.light")],
            ["dark", t("settings.dark")],
          ]}
        />
        <Choice
          label={t("settings.zone")}
          value={prefs.zone}
          choose={(value) => setZone(value as Zone)}
          options={[
            ["local", `${t("settings.local")} (${Intl.DateTimeFormat().resolvedOptions().timeZone})`],
            ["utc", "UTC"],
          ]}
        />
      </div>
    </>
  );
}

const row =
  "flex min-h-8 w-full cursor-pointer items-center gap-2 rounded px-2 hover:bg-sunk hover:text-accent";

/** Doors are the pages that only some may see, and the way out. */
function Doors() {
  const { t } = useTranslation();
  const inside = !open.includes(useLocation().pathname);
  const { data } = useQuery({ ...sessionQuery, enabled: inside });
  if (!inside || !data) return null;
  const rooms: { to: "/people" | "/secrets" | "/audit"; icon: IconName; word: string; verb: Verb }[] = [
    { to: "/people", icon: "person", word: "people.title", verb: "people.manage" },
    { to: "/secrets", icon: "key", word: "secrets.title", verb: "secret.set" },
    { to: "/audit", icon: "draft", word: "auditLog.title", verb: "audit.read" },
  ];
  return (
    <div className="mb-1 border-b border-line pb-1">
      {rooms
        .filter(({ verb }) => can(data, verb))
        .map(({ to, icon, word }) => (
          <Link
            key={to}
            to={to}
            className={row}
            onClick={() => document.getElementById("settings")?.hidePopover()}
          >
            <Icon name={icon} />
            {t(word)}
          </Link>
        ))}
      <button type="button" className={row} onClick={() => void leave()}>
        <Icon name="cross" />
        {t("signIn.leave")}
      </button>
    </div>
  );
}

type ChoiceProps = {
  label: string;
  value: string;
  choose: (value: string) => void;
  options: [string, string][];
};

function Choice({ label, value, choose, options }: ChoiceProps) {
  const name = useId();
  return (
    <fieldset>
      <legend className="px-2 pt-2 pb-1 text-xs text-soft">{label}</legend>
      {options.map(([key, word]) => (
        <label key={key} className={row}>
          <input
            type="radio"
            name={name}
            className="accent-accent"
            checked={key === value}
            onChange={() => choose(key)}
          />
          <span className="min-w-0">{word}</span>
        </label>
      ))}
    </fieldset>
  );
}

export function NotFound() {
  const { t } = useTranslation();
  return (
    <Page title={t("notFound.title")}>
      <Link to="/" className="link">
        {t("notFound.back")}
      </Link>
    </Page>
  );
}
