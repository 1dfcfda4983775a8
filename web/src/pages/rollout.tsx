// One rollout: how it stands, what can be done about it, its waves, its boxes.
import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";
import type { Rollout, Target, Wave } from "../api/generated";
import { rolloutQuery } from "../api/queries";
import { bytes, duration } from "../format";
import { Icon } from "../ui/icons";
import { Ago, Card, Clock, Facts, Fault, Loading, Page, Scroll } from "../ui/parts";
import { lookOf, State, useWord } from "../ui/state";
import { Gates } from "./gates";
import { Told } from "./phrase";
import { Bar, shownAs, tally, useTallyWords } from "./progress";
import { Actions } from "./rolloutactions";
import { Target as TargetName } from "./rollouts";
import { Sentence } from "./sentence";

const route = getRouteApi("/rollouts/$id");

export function RolloutPage() {
  const { t } = useTranslation();
  const { id } = route.useParams();
  const query = useQuery(rolloutQuery(id));
  const rollout = query.data;
  if (!rollout) {
    return (
      <Page title={t("rollouts.title")} aside={id}>
        {query.error ? (
          <Fault error={query.error} retry={() => void query.refetch()} />
        ) : (
          <Loading height={400} />
        )}
      </Page>
    );
  }
  return (
    <Page
      title={<TargetName rollout={rollout} />}
      aside={
        <>
          {t("rollout.to", { count: tally(rollout.waves).total })} ·{" "}
          <span className="code">{rollout.id}</span>
        </>
      }
    >
      {query.error && <Fault error={query.error} retry={() => void query.refetch()} />}
      <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
        <Standing rollout={rollout} />
        <ol className="grid gap-3 sm:grid-cols-2 lg:grid-cols-[repeat(auto-fit,minmax(220px,1fr))]">
          {rollout.waves.map((wave, index) => (
            <li key={index} className="min-w-0">
              <WaveCard wave={wave} index={index} rollout={rollout} />
            </li>
          ))}
        </ol>
        <Gates rollout={rollout} />
        <Targets rollout={rollout} />
        <LeftOut rollout={rollout} />
        <Plan rollout={rollout} />
      </div>
    </Page>
  );
}

const frames: Record<string, string> = {
  halted: "border-hot bg-hot-tint",
  paused: "border-warm bg-warm-tint",
  done: "border-ok bg-ok-tint",
  running: "border-busy bg-busy-tint",
};

function Standing({ rollout }: { rollout: Rollout }) {
  const { t } = useTranslation();
  const look = lookOf("rollout", rollout.state);
  return (
    <section className={`rounded-lg border-2 p-3 ${frames[rollout.state] ?? "border-line bg-card"}`}>
      <div className="flex gap-2.5">
        <span className={`pt-0.5 ${look.colour}`}>
          <Icon name={look.icon} size={20} />
        </span>
        <div className="min-w-0">
          <Sentence rollout={rollout} strong />
          {rollout.affected && (
            <p className="mt-1">
              <Told text={rollout.affected} said={rollout.affected_said} />
            </p>
          )}
          <Others id={rollout.rollback_of} word="rollout.backOf" />
          {rollout.rolled_back_by?.map((id) => (
            <Others key={id} id={id} word="rollout.backBy" />
          ))}
          {rollout.state === "draft" && rollout.warnings.length > 0 && (
            <ul className="mt-1 list-disc pl-5" aria-label={t("rollout.warnings")}>
              {rollout.warnings.map((warning, i) => (
                <li key={warning}>
                  <Told text={warning} said={rollout.warnings_said?.[i]} />
                </li>
              ))}
            </ul>
          )}
        </div>
      </div>
      <Actions rollout={rollout} />
    </section>
  );
}

/** Others names a rollout that this one takes back, or that takes this one back. */
function Others({ id, word }: { id: string | undefined; word: string }) {
  const { t } = useTranslation();
  if (!id) return null;
  return (
    <p className="mt-1">
      {t(word)}{" "}
      <Link to="/rollouts/$id" params={{ id }} className="link code">
        {id}
      </Link>
    </p>
  );
}

/** useSize says how large a wave is: "1 box", "25%" or "rest". */
function useSize(): (size: string) => string {
  const { t } = useTranslation();
  return (size) =>
    size === "rest"
      ? t("rollout.rest")
      : /^\d+$/.test(size)
        ? t("count.boxes", { count: Number(size) })
        : size;
}

function WaveCard({ wave, index, rollout }: { wave: Wave; index: number; rollout: Rollout }) {
  const { t } = useTranslation();
  const words = useTallyWords();
  const counts = tally([wave]);
  const size = rollout.request.waves?.[index];
  const sizeWord = useSize();
  return (
    <section className="card h-full px-3 py-2.5">
      <div className="flex flex-wrap items-baseline justify-between gap-x-2">
        <h2>
          {t("rollout.wave", { number: index + 1 })}
          {size && <span className="ml-1.5 font-normal text-soft">{sizeWord(size)}</span>}
        </h2>
        <State kind="wave" value={wave.state} className="text-xs" />
      </div>
      <div className="my-2">
        <Bar counts={counts} />
      </div>
      <p className="num">{words(counts)}</p>
      {wave.reason && (
        <p className="text-soft">
          <Told text={wave.reason} said={wave.reason_said} />
        </p>
      )}
      {(wave.ended ?? wave.started) && (
        <p className="text-xs text-soft">
          <Ago time={wave.ended ?? wave.started} />
        </p>
      )}
    </section>
  );
}

function Targets({ rollout }: { rollout: Rollout }) {
  const { t } = useTranslation();
  const word = useWord();
  const { state } = route.useSearch();
  const navigate = route.useNavigate();
  const counts = tally(rollout.waves);
  const rows = rollout.waves.flatMap((wave, index) =>
    wave.targets.map((target) => ({ target, wave: index + 1 })),
  );
  const shown = state ? rows.filter((row) => shownAs(row.target) === state) : rows;
  return (
    <Card title={t("rollout.boxes")} aside={t("count.boxes", { count: shown.length })}>
      <fieldset className="flex flex-wrap gap-1.5 px-3 pb-2">
        <legend className="sr-only">{t("rollout.show")}</legend>
        {[["", counts.total] as [string, number], ...counts.by].map(([value, count]) => (
          <button
            key={value}
            type="button"
            aria-pressed={(state ?? "") === value}
            onClick={() => void navigate({ search: { state: value || undefined }, resetScroll: false })}
            className={`min-h-7 rounded-full border px-2.5 text-xs ${(state ?? "") === value ? "border-accent bg-accent text-accent-ink" : "border-edge bg-card hover:bg-sunk"}`}
          >
            {value ? word("target", value) : t("rollout.all")} {count}
          </button>
        ))}
      </fieldset>
      <Scroll stack label={t("rollout.boxes")}>
        <table className="grid-table">
          <thead>
            <tr>
              <th scope="col">{t("column.name")}</th>
              <th scope="col" className="hidden sm:table-cell">
                {t("rollout.waveColumn")}
              </th>
              <th scope="col">{t("column.state")}</th>
              <th scope="col">{t("rollout.report")}</th>
              <th scope="col" className="hidden md:table-cell">
                {t("rollout.measured")}
              </th>
              <th scope="col" className="hidden md:table-cell">
                {t("rollout.changed")}
              </th>
            </tr>
          </thead>
          <tbody>
            {shown.map(({ target, wave }) => (
              <TargetRow key={target.box} target={target} wave={wave} />
            ))}
          </tbody>
        </table>
      </Scroll>
    </Card>
  );
}

/** LeftOut are boxes that the filter matches and that get nothing, or get it last, and why. */
function LeftOut({ rollout }: { rollout: Rollout }) {
  const { t } = useTranslation();
  const skipped = rollout.sheet?.skipped ?? [];
  if (skipped.length === 0) return null;
  return (
    <Card title={t("rollout.leftOut")} aside={t("count.boxes", { count: skipped.length })}>
      <ul className="grid gap-1 px-3 pb-3">
        {skipped.map((skip) => (
          <li key={skip.box}>
            <Link to="/boxes/$id" params={{ id: skip.box }} className="link font-medium">
              {skip.name}
            </Link>{" "}
            {skip.later && <span className="text-soft">{t("rollout.last")}</span>}{" "}
            <Told text={skip.why} said={skip.why_said} className="text-soft" />
          </li>
        ))}
      </ul>
    </Card>
  );
}

function TargetRow({ target, wave }: { target: Target; wave: number }) {
  const { t } = useTranslation();
  const word = useWord();
  const state = shownAs(target);
  return (
    <tr>
      <td>
        <Link to="/boxes/$id" params={{ id: target.box }} className="link font-medium">
          {target.name}
        </Link>
        <span className="block text-xs text-soft">
          {target.site}
          <span className="sm:hidden"> · {t("rollout.wave", { number: wave })}</span>
        </span>
      </td>
      <td className="num hidden sm:table-cell">{wave}</td>
      <td>
        <State kind="target" value={state} />
      </td>
      <td className={`max-w-96 sm:min-w-40 ${target.err || target.waits ? "whole" : ""}`}>
        {target.phase ? word("phase", target.phase) : target.waits ? "" : "–"}
        <Told text={target.waits} said={target.waits_said} className="block text-soft" />
        {target.bad && target.bad.length > 0 && (
          <span className="block text-hot">
            {t("gate.over", { list: target.bad.map((gate) => word("gate", gate)).join(", ") })}
          </span>
        )}
        <Told
          text={target.err}
          said={target.err_said}
          className={`block ${lookOf("target", state).colour}`}
        />
      </td>
      <td className="num hidden whitespace-nowrap md:table-cell">
        <Measured target={target} />
      </td>
      <td className="hidden md:table-cell">{target.changed ? <Clock time={target.changed} /> : "–"}</td>
    </tr>
  );
}

function Measured({ target }: { target: Target }) {
  const { t, i18n } = useTranslation();
  const probe = target.probe;
  if (!probe) return <>–</>;
  return (
    <>
      {t("rollout.golden", { passed: probe.golden_passed, total: probe.golden_total })}
      <span className="block text-xs text-soft">
        {t("rollout.perItem", { time: duration(probe.seconds_per_item, i18n.language) })},{" "}
        {bytes(probe.peak_rss_bytes, i18n.language)}
      </span>
    </>
  );
}

function Plan({ rollout }: { rollout: Rollout }) {
  const { t, i18n } = useTranslation();
  const { request } = rollout;
  const size = useSize();
  const seconds = (value: number | undefined) => duration(value ?? 0, i18n.language);
  return (
    <Card title={t("rollout.plan")}>
      <Facts
        items={[
          [
            t("rollout.filter"),
            request.filter ? <span className="code">{request.filter}</span> : t("rollout.allBoxes"),
          ],
          [t("rollout.waves"), (request.waves ?? ["1", "rest"]).map(size).join(", ")],
          [t("rollout.soak"), seconds(request.soak_seconds)],
          [t("rollout.maxFailed"), String(request.max_failed ?? 0)],
          [t("rollout.unreachableAfter"), seconds(request.unreachable_after_seconds || 600)],
          [t("rollout.download"), bytes(rollout.bytes_per_box, i18n.language)],
          [t("rollout.created"), <Ago key="created" time={rollout.created} />],
          [
            t("rollout.digest"),
            <span key="digest" className="code break-all">
              {rollout.target.digest}
            </span>,
          ],
        ]}
      />
    </Card>
  );
}
