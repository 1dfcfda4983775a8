// The form for the settings of a site, or of all. Each setting is either set
// here or left to the defaults; the controller checks what is written.
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { type FormEvent, type ReactNode, useEffect, useId, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import { newKey, post, url } from "../api/client";
import type { Site, SiteChange, SiteDefaults, SiteList, SiteSettings } from "../api/generated";
import { paths } from "../api/queries";
import { Icon } from "../ui/icons";
import { Fault } from "../ui/parts";
import { useRate } from "./sites";

/** Draft is what stands in the form. */
export type Draft = {
  rate: { own: boolean; text: string }; // kB/s
  quiet: { own: boolean; text: string }; // a time a line
  zone: { own: boolean; text: string };
};

export function draftOf(settings: SiteSettings): Draft {
  const rate = settings.backlog_bytes_per_second;
  return {
    rate: { own: rate !== undefined, text: rate === undefined ? "" : String(rate / 1000) },
    quiet: { own: settings.quiet !== undefined, text: (settings.quiet ?? []).join("\n") },
    zone: { own: settings.time_zone !== undefined, text: settings.time_zone ?? "" },
  };
}

/** changeOf is the request that makes was into what the draft says. */
export function changeOf(draft: Draft, was: SiteSettings): SiteChange {
  const set: SiteSettings = {};
  const unset: NonNullable<SiteChange["unset"]> = [];
  if (draft.rate.own) set.backlog_bytes_per_second = Math.round(Number(draft.rate.text || "0") * 1000);
  else if (was.backlog_bytes_per_second !== undefined) unset.push("backlog_bytes_per_second");
  if (draft.quiet.own) {
    set.quiet = draft.quiet.text
      .split("\n")
      .map((line) => line.trim())
      .filter(Boolean);
  } else if (was.quiet !== undefined) unset.push("quiet");
  if (draft.zone.own) set.time_zone = draft.zone.text.trim();
  else if (was.time_zone !== undefined) unset.push("time_zone");
  return { set, unset };
}

const zones = (): string[] => ["UTC", ...Intl.supportedValuesOf("timeZone").filter((z) => z !== "UTC")];

/** SiteForm edits one site; the empty name stands for the defaults. */
export function SiteForm({ list, name, done }: { list: SiteList; name: string; done: () => void }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const rate = useRate();
  const id = useId();
  const dialog = useRef<HTMLDialogElement>(null);
  const settings =
    name === "" ? list.defaults.settings : (list.items.find((s) => s.name === name)?.settings ?? {});
  const [draft, change] = useState(() => draftOf(settings));
  const save = useMutation({
    mutationFn: () =>
      post<Site | SiteDefaults>(
        name === "" ? paths.siteDefaults : url(paths.siteSettings, { site: name }),
        changeOf(draft, settings),
        newKey(),
      ),
    onSuccess: async () => {
      await client.invalidateQueries({ queryKey: ["sites"] });
      dialog.current?.close();
    },
  });
  useEffect(() => dialog.current?.showModal(), []);
  // What holds where nothing is set here: for the defaults, what is built in.
  const rest =
    name === "" ? { backlog_bytes_per_second: 0, quiet: [], time_zone: "UTC" } : list.defaults.effect;
  const submit = (event: FormEvent) => {
    event.preventDefault();
    save.mutate();
  };
  const set = (key: keyof Draft, value: Partial<Draft["rate"]>) =>
    change((d) => ({ ...d, [key]: { ...d[key], ...value } }));
  const field = (key: keyof Draft) => ({
    id: `${id}-${key}`,
    "aria-describedby": `${id}-${key}-hint`,
    disabled: !draft[key].own,
    value: draft[key].text,
    onChange: (event: { target: { value: string } }) => set(key, { text: event.target.value }),
  });
  return (
    <dialog
      ref={dialog}
      onClose={done}
      aria-labelledby={`${id}-title`}
      className="card m-auto w-[min(34rem,calc(100vw-1.5rem))] p-4 text-text backdrop:bg-[#0008]"
    >
      <form onSubmit={submit}>
        <h2 id={`${id}-title`}>
          {name === "" ? t("sites.changeDefaults") : t("sites.changeSite", { name })}
        </h2>
        {(
          [
            {
              key: "rate",
              label: t("sites.backlogField"),
              hint: t("sites.backlogHint"),
              rest: rate(rest.backlog_bytes_per_second),
              input: (
                <input type="number" min="0" step="any" className="input w-36" required {...field("rate")} />
              ),
            },
            {
              key: "quiet",
              label: t("sites.quiet"),
              hint: t("sites.quietHint"),
              rest: rest.quiet.join("; ") || t("sites.never"),
              input: (
                <textarea
                  rows={3}
                  spellCheck={false}
                  placeholder="08:00-18:00 mon-fri"
                  className="input code w-full"
                  {...field("quiet")}
                />
              ),
            },
            {
              key: "zone",
              label: t("sites.zone"),
              hint: t("sites.zoneHint"),
              rest: rest.time_zone,
              input: (
                <>
                  <input
                    list={`${id}-zones`}
                    spellCheck={false}
                    placeholder="Europe/Berlin"
                    className="input w-full max-w-64"
                    required
                    {...field("zone")}
                  />
                  <datalist id={`${id}-zones`}>
                    {zones().map((zone) => (
                      <option key={zone} value={zone} />
                    ))}
                  </datalist>
                </>
              ),
            },
          ] satisfies { key: keyof Draft; label: string; hint: string; rest: string; input: ReactNode }[]
        ).map(({ key, label, hint, rest, input }) => (
          <fieldset key={key} className="mt-3 min-w-0 border-t border-line pt-2.5">
            <legend className="sr-only">{label}</legend>
            <div className="flex flex-wrap items-baseline justify-between gap-x-4">
              <label htmlFor={`${id}-${key}`} className="font-semibold">
                {label}
              </label>
              <label className="flex min-h-6 items-center gap-1.5">
                <input
                  type="checkbox"
                  checked={draft[key].own}
                  onChange={(event) => set(key, { own: event.target.checked })}
                />
                {t("sites.setHere")}
              </label>
            </div>
            <div className="mt-1">
              {draft[key].own ? input : <p className="text-soft">{t("sites.otherwise", { value: rest })}</p>}
            </div>
            {draft[key].own && (
              <p id={`${id}-${key}-hint`} className="mt-1 text-xs text-soft">
                {hint}
              </p>
            )}
          </fieldset>
        ))}
        {save.error && <Fault error={save.error} />}
        <div className="mt-4 flex flex-wrap justify-end gap-2">
          <button type="button" className="button" onClick={() => dialog.current?.close()}>
            {t("sites.cancel")}
          </button>
          <button type="submit" className="button primary" disabled={save.isPending}>
            <Icon name="check" />
            {t("sites.save")}
          </button>
        </div>
      </form>
    </dialog>
  );
}
