// How one model serves on a box: its variants as a ladder with the step that it
// is on, what each costs there, and how a new version is doing.
import { useTranslation } from "react-i18next";
import type { BoxModel, Serving, ServingShadow, ServingVariant } from "../api/generated";
import { bytes, number, percent } from "../format";
import { Icon } from "../ui/icons";
import { useWord } from "../ui/state";

/** steps are those of agent/activate, in the order in which a version takes them. */
export const steps = ["fetching", "probing", "shadow", "switching", "trial", "active"];

/** shareOf is what a variant costs against the best one: by heat, where both were measured. */
export function shareOf(v: ServingVariant, best: ServingVariant | undefined): number {
  if (!best) return 0;
  const [own, all] =
    v.joules_per_item && best.joules_per_item
      ? [v.joules_per_item, best.joules_per_item]
      : [v.seconds_per_item, best.seconds_per_item];
  return all > 0 ? Math.min(own / all, 1) : 0;
}

export function ServingOf({ model }: { model: BoxModel }) {
  const { serving, tried } = model;
  const same = model.running_digest === model.desired_digest;
  return (
    <>
      {!same && model.phase && <Steps at={model.phase} />}
      {serving && <Ladder serving={serving} />}
      {tried && <Tried shadow={tried} going={!same} />}
    </>
  );
}

/** Steps is the way of a version, with the step that it is on. */
function Steps({ at }: { at: string }) {
  const { t } = useTranslation();
  const word = useWord();
  const here = steps.indexOf(at);
  return (
    <ol className="mt-1 flex gap-1" aria-label={t("serving.steps")}>
      {steps.map((step, i) => (
        <li key={step} className="min-w-0 flex-1" aria-current={i === here ? "step" : undefined}>
          <span
            className={`block h-1.5 rounded ${i < here ? "bg-ok" : i === here ? "bg-busy" : here < 0 ? "hatched bg-line" : "bg-line"}`}
            title={word("phase", step)}
          />
          <span className="sr-only">
            {word("phase", step)}
            {i === here && ` (${t("serving.here")})`}
          </span>
        </li>
      ))}
    </ol>
  );
}

function Ladder({ serving }: { serving: Serving }) {
  const { t, i18n } = useTranslation();
  const variants = serving.variants ?? [];
  if (variants.length === 0) return null;
  const [best] = variants;
  const several = variants.length > 1;
  const cause = serving.cause ? t(`serving.cause.${serving.cause}`, { defaultValue: serving.cause }) : "";
  return (
    <>
      {several && (
        <p className="mt-1 text-xs">
          <span className={serving.cause === "hot" ? "text-hot" : "text-soft"}>
            {t("serving.now", { variant: serving.variant })}
            {cause && `: ${cause}`}
          </span>
        </p>
      )}
      <ol className="mt-1 grid gap-1" aria-label={t("serving.ladder")}>
        {variants.map((v, i) => {
          const on = v.name === (serving.variant ?? "");
          return (
            <li
              key={v.name}
              style={{ marginInlineStart: several ? `${Math.min(i, 4) * 0.75}rem` : 0 }}
              className={`rounded border px-2 py-1 text-xs ${on && several ? "border-accent bg-sunk" : "border-line"}`}
              aria-current={on && several ? "true" : undefined}
            >
              <div className="flex flex-wrap items-center justify-between gap-x-3">
                <span className={`inline-flex items-center gap-1 ${on ? "font-semibold" : ""}`}>
                  {on && several && (
                    <>
                      <Icon name="play" size={12} />
                      <span className="sr-only">{t("serving.serves")}</span>
                    </>
                  )}
                  {v.skipped && <Icon name="cross" size={12} />}
                  {v.name || t("serving.onlyForm")}
                </span>
                <span className="num text-soft">
                  {costs(v, i18n.language, t("serving.measuredBy", { from: v.heat_from ?? "" }))}
                </span>
              </div>
              {several && (
                <div className="mt-1 h-1.5 overflow-hidden rounded bg-line" aria-hidden="true">
                  <div
                    className={`h-full ${v.skipped ? "hatched bg-line" : on ? "bg-accent" : "bg-soft"}`}
                    style={{ width: `${100 * shareOf(v, best)}%` }}
                  />
                </div>
              )}
              {v.skipped && (
                <p className="mt-0.5 text-soft">
                  {t("serving.skipped")} <span lang="en">{v.skipped}</span>
                </p>
              )}
            </li>
          );
        })}
      </ol>
      {serving.refused ? (
        <p className="mt-1 text-xs text-warm">{t("serving.refused", { count: serving.refused })}</p>
      ) : null}
    </>
  );
}

/** costs of one item: time unless the variant never ran, heat where a sensor saw it, memory. */
function costs(v: ServingVariant, language: string, from: string): string {
  const time = 1000 * v.seconds_per_item;
  const parts = time > 0 ? [`${number(time, language, time < 10 ? 2 : 0)} ms`] : [];
  if (v.joules_per_item) parts.push(`${number(v.joules_per_item, language, 2)} J ${from}`);
  if (v.watts) parts.push(`+${number(v.watts, language, 1)} W`);
  if (v.peak_rss_bytes > 0) parts.push(bytes(v.peak_rss_bytes, language));
  return parts.join(" · ");
}

function Tried({ shadow, going }: { shadow: ServingShadow; going: boolean }) {
  const { t, i18n } = useTranslation();
  const words = [
    shadow.compared > 0
      ? t("serving.agrees", {
          count: shadow.compared,
          percent: percent(shadow.agreement, 1, i18n.language),
        })
      : t("serving.notCompared"),
  ];
  if (shadow.latency_ratio > 0) {
    words.push(t("serving.ratio", { ratio: number(shadow.latency_ratio, i18n.language, 2) }));
  }
  if (shadow.failures > 0) words.push(t("serving.failed", { count: shadow.failures }));
  return (
    <p className={`mt-1 text-xs ${shadow.failures > 0 ? "text-hot" : "text-soft"}`}>
      {t(going ? "serving.beside" : "serving.stood", { version: shadow.version ?? "" })} {words.join(", ")}
    </p>
  );
}
