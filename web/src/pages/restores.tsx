// After a restore: boxes that the controller has not heard since, and those that
// follow what it has never signed; a person chooses whether to keep what they run.
import { useMutation, useQuery, useQueryClient } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import { post } from "../api/client";
import type { RestoreChoice, RestoreConflict, RestoreState } from "../api/generated";
import { canEverywhere } from "../api/people";
import { paths, restoresQuery, sessionQuery } from "../api/queries";
import { Ask, Field } from "../ui/dialog";
import { Ago, Card } from "../ui/parts";

type Choice = RestoreChoice["choice"];

export function RestoresPanel() {
  const { t } = useTranslation();
  const client = useQueryClient();
  const state = useQuery(restoresQuery).data;
  const session = useQuery(sessionQuery).data;
  const [asked, setAsked] = useState<{ choice: Choice; boxes: RestoreConflict[] }>();
  const [reason, setReason] = useState("");
  const choose = useMutation({
    mutationFn: (c: RestoreChoice) => post<RestoreState>(paths.restores, c),
    onSuccess: () => setAsked(undefined),
    onSettled: () => void client.invalidateQueries({ queryKey: ["rollouts"] }),
  });
  if (!state || (state.awaiting_reconnect === 0 && state.conflicts.length === 0)) return null;
  const may = canEverywhere(session, "rollout.run");
  const ask = (choice: Choice, boxes: RestoreConflict[]) => {
    choose.reset();
    setReason("");
    setAsked({ choice, boxes });
  };
  return (
    <div className="mb-2">
      <Card title={t("restores.title")} aside={state.restored && <Ago time={state.restored} />}>
        <div className="grid gap-2 px-3 pb-3">
          {state.awaiting_reconnect > 0 && <p>{t("restores.awaits", { count: state.awaiting_reconnect })}</p>}
          {state.conflicts.length > 0 && (
            <>
              <p>{t("restores.conflicts", { count: state.conflicts.length })}</p>
              <ul>
                {state.conflicts.map((c) => (
                  <li
                    key={c.box}
                    className="flex flex-wrap items-center gap-x-4 gap-y-1 border-t border-line py-2"
                  >
                    <span className="min-w-0 flex-1 basis-64">
                      <Link
                        to="/boxes/$id"
                        params={{ id: c.box }}
                        className="link inline-block min-h-7 font-medium"
                      >
                        {c.name || c.box}
                      </Link>{" "}
                      <span className="text-soft">{c.site}</span>
                      <span className="block break-words text-sm">
                        {t("restores.runs", { what: c.runs.join(", ") || "–" })}
                      </span>
                      <span className="block break-words text-sm text-soft">
                        {t("restores.wished", { what: c.wished.join(", ") || "–" })}
                      </span>
                    </span>
                    {may && <Choices of={c.name || c.box} ask={(choice) => ask(choice, [c])} />}
                  </li>
                ))}
              </ul>
              {may && state.conflicts.length > 1 && (
                <Choices
                  of={t("restores.all", { count: state.conflicts.length })}
                  shown
                  ask={(choice) => ask(choice, state.conflicts)}
                />
              )}
              {!may && <p className="text-xs text-soft">{t("restores.readOnly")}</p>}
            </>
          )}
        </div>
        {asked && (
          <Ask
            title={t(`restores.${asked.choice}Title`, { count: asked.boxes.length })}
            does={t(`restores.${asked.choice}`)}
            danger={asked.choice === "reimpose"}
            busy={choose.isPending}
            error={choose.error}
            submit={() =>
              choose.mutate({
                choice: asked.choice,
                reason: reason || undefined,
                expect_count: asked.boxes.length,
                filter: asked.boxes.length === 1 ? `id = "${asked.boxes[0]?.box}"` : undefined,
              })
            }
            close={() => setAsked(undefined)}
          >
            <p>{t(`restores.${asked.choice}Hint`)}</p>
            <Field label={t("restores.reason")}>
              <input
                className="input w-full"
                value={reason}
                maxLength={500}
                onChange={(e) => setReason(e.target.value)}
              />
            </Field>
          </Ask>
        )}
      </Card>
    </div>
  );
}

/** Choices are what a person can do about one box, or all. */
function Choices(props: { of: string; shown?: boolean; ask: (choice: Choice) => void }) {
  const { t } = useTranslation();
  return (
    <span className="flex flex-wrap items-center gap-2">
      {props.shown && <span className="font-medium">{props.of}</span>}
      {(["adopt", "reimpose"] as const).map((choice) => (
        <button
          key={choice}
          type="button"
          className="button"
          aria-label={`${t(`restores.${choice}`)}: ${props.of}`}
          onClick={() => props.ask(choice)}
        >
          {t(`restores.${choice}`)}
        </button>
      ))}
    </span>
  );
}
