// States as word, shape and colour together. A state that this page does not
// know, from a newer controller, is shown by its own word.
import { useTranslation } from "react-i18next";
import { Icon, type IconName } from "./icons";

type Look = { icon: IconName; colour: string };

const soft = "text-soft";
const looks: Record<string, Record<string, Look>> = {
  health: {
    healthy: { icon: "ok", colour: "text-ok" },
    watch: { icon: "warm", colour: "text-warm" },
    ticket: { icon: "fault", colour: "text-warm" },
    urgent: { icon: "throttling", colour: "text-hot" },
    unknown: { icon: "unknown", colour: soft },
  },
  link: {
    live: { icon: "live", colour: "text-ok" },
    late: { icon: "late", colour: "text-warm" },
    silent: { icon: "silent", colour: "text-hot" },
    never: { icon: "never", colour: soft },
  },
  update: {
    current: { icon: "check", colour: soft },
    updating: { icon: "updating", colour: "text-busy" },
    failed: { icon: "failed", colour: "text-hot" },
    unknown: { icon: "unknown", colour: soft },
    awaiting_reconnect: { icon: "waiting", colour: "text-warm" },
    conflict_paused: { icon: "paused", colour: "text-hot" },
  },
  standing: {
    enrolled: { icon: "waiting", colour: soft },
    active: { icon: "ok", colour: "text-ok" },
    quarantined: { icon: "fault", colour: "text-hot" },
    revoked: { icon: "canceled", colour: "text-hot" },
    retired: { icon: "canceled", colour: soft },
  },
  rollout: {
    draft: { icon: "draft", colour: soft },
    running: { icon: "updating", colour: "text-busy" },
    paused: { icon: "paused", colour: "text-warm" },
    halted: { icon: "throttling", colour: "text-hot" },
    done: { icon: "ok", colour: "text-ok" },
    canceled: { icon: "canceled", colour: soft },
  },
  wave: {
    waiting: { icon: "waiting", colour: soft },
    running: { icon: "updating", colour: "text-busy" },
    soaking: { icon: "waiting", colour: "text-busy" },
    passed: { icon: "ok", colour: "text-ok" },
    halted: { icon: "throttling", colour: "text-hot" },
    skipped: { icon: "canceled", colour: soft },
  },
  gateResult: {
    waiting: { icon: "waiting", colour: soft },
    inconclusive: { icon: "unknown", colour: "text-warm" },
    passed: { icon: "ok", colour: "text-ok" },
    failed: { icon: "failed", colour: "text-hot" },
  },
  target: {
    scheduled: { icon: "waiting", colour: soft },
    offered: { icon: "late", colour: "text-busy" },
    working: { icon: "updating", colour: "text-busy" },
    succeeded: { icon: "ok", colour: "text-ok" },
    failed: { icon: "failed", colour: "text-hot" },
    unreachable: { icon: "silent", colour: "text-warm" },
    "held-up": { icon: "fault", colour: "text-warm" },
    superseded: { icon: "canceled", colour: soft },
    canceled: { icon: "canceled", colour: soft },
  },
  ticket: {
    open: { icon: "fault", colour: "text-warm" },
    reopened: { icon: "updating", colour: "text-hot" },
    acknowledged: { icon: "check", colour: "text-busy" },
    dispatched: { icon: "rollouts", colour: "text-busy" },
    "on-site": { icon: "sites", colour: "text-busy" },
    done: { icon: "waiting", colour: "text-busy" },
    verified: { icon: "ok", colour: "text-ok" },
    closed: { icon: "canceled", colour: soft },
  },
  visit: {
    planned: { icon: "waiting", colour: "text-busy" },
    "on-site": { icon: "sites", colour: "text-busy" },
    done: { icon: "ok", colour: "text-ok" },
    canceled: { icon: "canceled", colour: soft },
  },
  rma: {
    open: { icon: "draft", colour: "text-warm" },
    shipped: { icon: "rollouts", colour: "text-busy" },
    received: { icon: "waiting", colour: "text-busy" },
    closed: { icon: "ok", colour: soft },
  },
  trust: {
    good: { icon: "ok", colour: "text-ok" },
    soon: { icon: "late", colour: "text-warm" },
    last_week: { icon: "fault", colour: "text-hot" },
    ended: { icon: "failed", colour: "text-hot" },
  },
  verdict: {
    passed: { icon: "ok", colour: "text-ok" },
    "passed-with-remarks": { icon: "fault", colour: "text-warm" },
    failed: { icon: "failed", colour: "text-hot" },
    aborted: { icon: "canceled", colour: soft },
  },
};

export type Kind =
  | "health"
  | "link"
  | "update"
  | "standing"
  | "rollout"
  | "wave"
  | "gateResult"
  | "target"
  | "ticket"
  | "visit"
  | "rma"
  | "trust"
  | "verdict";

/** Words of the API that have no look of their own. */
type Plain = "phase" | "class" | "heatCause" | "reset" | "work" | "part" | "gate" | "siteClass" | "reference";

export const lookOf = (kind: Kind, value: string): Look =>
  looks[kind]?.[value] ?? { icon: "unknown", colour: soft };

/** useWord names a state in the reader's language. */
export function useWord(): (kind: Kind | Plain, value: string) => string {
  const { t } = useTranslation();
  return (kind, value) =>
    value ? t(`${kind === "ticket" ? "ticketState" : kind}.${value}`, { defaultValue: value }) : "–";
}

type StateProps = { kind: Kind; value: string; className?: string; old?: boolean };

/** State shows one state; an old one, of a box not heard from, is grey. */
export function State({ kind, value, className = "", old }: StateProps) {
  const word = useWord();
  const look = lookOf(kind, value);
  return (
    <span className={`chip ${old ? soft : look.colour} ${className}`}>
      <Icon name={look.icon} size={14} />
      {word(kind, value)}
    </span>
  );
}
