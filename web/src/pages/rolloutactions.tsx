// What people may do about a rollout: each button says for how many boxes, and
// what cannot be taken back by the next click asks first.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { type RefObject, useId, useRef } from "react";
import { useTranslation } from "react-i18next";
import { newKey, post, url } from "../api/client";
import type { Rollout, Session } from "../api/generated";
import { canEverywhere } from "../api/people";
import { paths, rolloutQuery, sessionQuery } from "../api/queries";
import { Icon, type IconName } from "../ui/icons";
import { Fault } from "../ui/parts";
import { countOf, tally, targetsOf } from "./progress";

type Action = { action: string; icon: IconName; className: string; words: string };

/** useActions lists what a person may do, each with how many boxes it is about. */
function useActions(rollout: Rollout, back: number): Action[] {
  const { t } = useTranslation();
  const counts = tally(rollout.waves);
  const waiting = countOf(counts, "scheduled");
  const approval = awaits(rollout);
  const actions: Record<string, Action> = {
    start: {
      action: "start",
      icon: "play",
      className: "primary",
      words: t("rollout.start", { count: counts.total }),
    },
    pause: {
      action: "pause",
      icon: "paused",
      className: "primary",
      words: t("rollout.pause", { count: waiting }),
    },
    resume: {
      action: "resume",
      icon: "play",
      className: "primary",
      words: t("rollout.resume", { count: waiting }),
    },
    approve: {
      action: "approve",
      icon: "check",
      className: "primary",
      words: t("rollout.approve", { number: approval + 1, count: rollout.waves[approval]?.targets.length }),
    },
    rollback: {
      action: "rollback",
      icon: "updating",
      className: "danger",
      words: t("rollout.rollback", { count: back }),
    },
    cancel: {
      action: "cancel",
      icon: "cross",
      className: "danger",
      words: t("rollout.cancel", { count: waiting }),
    },
  };
  const offered: Record<string, string[]> = {
    draft: ["start", "cancel"],
    running: ["approve", "pause", "cancel", "rollback"],
    paused: ["resume", "cancel", "rollback"],
    halted: ["rollback", "cancel"],
    done: ["rollback"],
    canceled: ["rollback"],
  };
  const idle = new Set([approval < 0 && "approve", back === 0 && "rollback"]);
  return (offered[rollout.state] ?? [])
    .filter((name) => !idle.has(name))
    .map((name) => actions[name] as Action);
}

/** awaits is the wave that a person is asked for: a waiting one has a reason only then; -1: none. */
export const awaits = (rollout: Rollout): number =>
  rollout.waves.findIndex((wave) => wave.state === "waiting" && !!wave.reason);

/**
 * takenBack counts the boxes that a rollback is about, as the controller does:
 * those that were offered the version and ran another one before. What was
 * taken back, or overtaken by a later rollout of the same name, is the business
 * of that one: a click on an old page must not bring back what nobody means.
 */
export function takenBack(rollout: Rollout): number {
  if (rollout.overtaken || rollout.rolled_back_by?.length) return 0;
  return targetsOf(rollout).filter(
    ({ offered, state, before }) =>
      offered && state !== "superseded" && before.digest && before.digest !== rollout.target.digest,
  ).length;
}

/** mayAct: what ends or halts a rollout is open to more roles than what brings software to boxes. */
export const mayAct = (session: Session | undefined, action: string): boolean =>
  canEverywhere(session, "rollout.stop") &&
  (action === "pause" || action === "cancel" || canEverywhere(session, "rollout.run"));

export function Actions({ rollout }: { rollout: Rollout }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const session = useQuery(sessionQuery);
  const cancel = useRef<HTMLDialogElement>(null);
  const rollback = useRef<HTMLDialogElement>(null);
  const fresh = useQuery({ ...rolloutQuery(rollout.id), enabled: false });
  const back = takenBack(rollout);
  const actions = useActions(rollout, back);
  // A later rollout may have been started since this page heard of anything.
  const askBack = async () => {
    const { data, error } = await fresh.refetch();
    if (data && !error && takenBack(data) > 0) rollback.current?.showModal();
  };
  const act = useMutation({
    mutationFn: ({ action, key }: { action: string; key: string }) =>
      post<Rollout>(url(paths.rolloutActions, { id: rollout.id }), { action }, key),
    // The answer is the rollout after the action; what boxes do is shown only
    // when they report it.
    onSuccess: (after) => client.setQueryData(rolloutQuery(rollout.id).queryKey, after),
    onSettled: () => client.invalidateQueries({ queryKey: ["rollouts"] }),
  });
  if (actions.length === 0) return null;
  const allowed = actions.filter(({ action }) => mayAct(session.data, action));
  const run = (action: string) => act.mutate({ action, key: newKey() });
  const asks: Record<string, typeof run> = {
    cancel: () => cancel.current?.showModal(),
    rollback: () => void askBack(),
  };
  const counts = tally(rollout.waves);
  const kept = counts.total - countOf(counts, "scheduled");
  return (
    <div className="mt-3">
      <div className="flex flex-wrap gap-2">
        {allowed.map(({ action, icon, className, words }) => (
          <button
            key={action}
            type="button"
            className={`button ${className}`}
            disabled={act.isPending}
            onClick={() => (asks[action] ?? run)(action)}
          >
            <Icon name={icon} />
            {words}
          </button>
        ))}
      </div>
      {session.data && allowed.length === 0 && <p className="mt-1.5 text-soft">{t("rollout.readOnly")}</p>}
      {(act.error ?? fresh.error) && <Fault error={act.error ?? fresh.error} />}
      <Ask
        dialog={cancel}
        title={t("rollout.cancelTitle", { count: counts.total - kept })}
        text={t("rollout.cancelKept", { count: kept })}
        no={t("rollout.keepGoing")}
        yes={t("rollout.cancel", { count: counts.total - kept })}
        run={() => run("cancel")}
      />
      <Ask
        dialog={rollback}
        title={t("rollout.rollbackTitle", { count: back })}
        text={t("rollout.rollbackHow")}
        no={t("rollout.rollbackNot")}
        yes={t("rollout.rollback", { count: back })}
        run={() => run("rollback")}
      />
    </div>
  );
}

type AskProps = {
  dialog: RefObject<HTMLDialogElement | null>;
  title: string;
  text: string;
  no: string;
  yes: string;
  run: () => void;
};

/** Ask asks before what cannot be taken back by the next click. */
function Ask({ dialog, title, text, no, yes, run }: AskProps) {
  const id = useId();
  return (
    <dialog
      ref={dialog}
      aria-labelledby={id}
      className="card m-auto w-[min(30rem,calc(100vw-2rem))] p-4 text-text backdrop:bg-[#0008]"
    >
      <h2 id={id}>{title}</h2>
      <p className="mt-2">{text}</p>
      <div className="mt-4 flex flex-wrap justify-end gap-2">
        <button type="button" className="button" onClick={() => dialog.current?.close()}>
          {no}
        </button>
        <button
          type="button"
          className="button danger"
          onClick={() => {
            dialog.current?.close();
            run();
          }}
        >
          {yes}
        </button>
      </div>
    </dialog>
  );
}
