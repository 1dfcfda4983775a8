// One box: its charts, what it runs, what it keeps for us, what it read.
import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useMemo } from "react";
import { useTranslation } from "react-i18next";
import type { Box, BoxModel } from "../api/generated";
import { useNow } from "../api/now";
import { boxEventsQuery, boxQuery, boxResultsQuery, type Span, seriesQuery } from "../api/queries";
import { ago, bytes, metric, number, percent } from "../format";
import { Icon } from "../ui/icons";
import { Ago, Card, Clock, Facts, Fault, Loading, Page, Reading, Scroll, Simulated } from "../ui/parts";
import { State, useWord } from "../ui/state";
import { Acceptances } from "./acceptances";
import { Charts, chartMetrics } from "./charts";
import { CareCards, HealthCard } from "./health";
import { Standing } from "./identity";
import { Told } from "./phrase";
import { ServingOf } from "./serving";
import { Shunned } from "./shunned";
import { spanOf, spans } from "./span";
import { Troubles } from "./troubles";

const route = getRouteApi("/boxes/$id");

export function BoxPage() {
  const { t } = useTranslation();
  const { id } = route.useParams();
  const query = useQuery(boxQuery(id));
  const box = query.data;
  if (!box) {
    return (
      <Page title={t("box.title")} aside={id}>
        {query.error ? (
          <Fault error={query.error} retry={() => void query.refetch()} />
        ) : (
          <Loading height={500} />
        )}
      </Page>
    );
  }
  const away = box.link === "silent" || box.link === "never";
  return (
    <Page
      title={
        <>
          {box.name} {box.simulated && <Simulated />}
        </>
      }
      aside={
        <span className="flex flex-wrap items-center gap-x-4 gap-y-1">
          <Link to="/" search={{ q: `site = "${box.site}"` }} className="link">
            {box.site}
          </Link>
          {box.state !== "active" && <State kind="standing" value={box.state} />}
          <State kind="health" value={box.health} old={away} />
          <span>
            <State kind="link" value={box.link} />{" "}
            {box.link !== "live" && (
              <span className="text-sm">
                <Ago time={box.last_seen} />
              </span>
            )}
          </span>
          <State kind="update" value={box.update} old={away} />
        </span>
      }
    >
      {query.error && <Fault error={query.error} retry={() => void query.refetch()} />}
      <Standing box={box} />
      <Shunned box={box} />
      <div className="grid grid-cols-[minmax(0,1fr)] items-start gap-3 lg:grid-cols-[minmax(0,1fr)_minmax(19rem,24rem)] lg:grid-rows-[auto_1fr]">
        <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
          <HealthCard box={box} />
          <ChartCard box={box} />
        </div>
        <div className="grid grid-cols-[minmax(0,1fr)] gap-3 lg:row-span-2">
          <Troubles id={box.id} />
          <Runs box={box} />
          <Settings box={box} />
          <Measured box={box} />
          <CareCards id={box.id} />
          <Acceptances id={box.id} name={box.name} />
          <BufferCard box={box} />
          <Inventory box={box} />
        </div>
        <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
          <Results box={box} />
          <Events box={box} />
        </div>
      </div>
    </Page>
  );
}

/** Labels are those of the token that the box was enrolled with. */
function Labels({ of = {} }: { of?: Record<string, string> }) {
  const words = Object.entries(of).map(([key, value]) => `${key}=${value}`);
  if (words.length === 0) return <>–</>;
  return (
    <span className="flex flex-wrap gap-1">
      {words.sort().map((word) => (
        <span key={word} className="tag code break-all">
          {word}
        </span>
      ))}
    </span>
  );
}

function ChartCard({ box }: { box: Box }) {
  const { t } = useTranslation();
  const search = route.useSearch();
  const navigate = route.useNavigate();
  const span: Span = useMemo(() => spanOf(search), [search]);
  const series = useQuery(seriesQuery(box.id, chartMetrics, span));
  const chosen = search.from ? undefined : (search.t ?? "1h");
  return (
    <Card
      title={t("box.charts")}
      aside={
        <fieldset className="flex flex-wrap gap-1">
          <legend className="sr-only">{t("box.range")}</legend>
          {Object.keys(spans).map((key) => (
            <button
              key={key}
              type="button"
              aria-pressed={key === chosen}
              onClick={() => void navigate({ search: { t: key }, resetScroll: false })}
              className={`min-h-7 rounded border px-2 ${key === chosen ? "border-accent bg-accent text-accent-ink" : "border-edge hover:bg-sunk text-text"}`}
            >
              {t(`range.${key}`)}
            </button>
          ))}
        </fieldset>
      }
    >
      {series.error && !series.data ? (
        <Fault error={series.error} retry={() => void series.refetch()} />
      ) : series.data ? (
        <Charts
          reply={series.data}
          range={span.range()}
          zoom={(from, to) =>
            void navigate({ search: { from: from.toISOString(), to: to.toISOString() }, resetScroll: false })
          }
        />
      ) : (
        <Loading height={620} />
      )}
    </Card>
  );
}

function Runs({ box }: { box: Box }) {
  const { t } = useTranslation();
  const behind = box.desired_generation !== box.running_generation;
  return (
    <Card
      title={t("box.runs")}
      aside={
        behind
          ? t("box.behind", { running: box.running_generation, desired: box.desired_generation })
          : undefined
      }
    >
      {box.models.length === 0 ? (
        <p className="px-3 pb-3 text-soft">{t("box.noModel")}</p>
      ) : (
        <ul className="px-3 pb-2">
          {box.models.map((model) => (
            <ModelLine key={model.name} model={model} />
          ))}
        </ul>
      )}
    </Card>
  );
}

function ModelLine({ model }: { model: BoxModel }) {
  const { t } = useTranslation();
  const word = useWord();
  const { running_version: running, desired_version: desired } = model;
  const same = model.running_digest === model.desired_digest;
  return (
    <li className="border-t border-line py-1.5 first:border-0 first:pt-0">
      <div className="flex flex-wrap justify-between gap-x-3">
        <span className="font-semibold">{model.name}</span>
        <span className="num inline-flex items-center gap-1">
          {running || t("box.notRunning")}
          {same ? (
            <span className="chip text-ok">
              <Icon name="check" size={14} />
              <span className="sr-only">{t("update.current")}</span>
            </span>
          ) : (
            desired && <span className="text-busy">→ {desired}</span>
          )}
        </span>
      </div>
      {!same && model.phase && (
        <p className="text-xs text-soft">{t("box.phase", { phase: word("phase", model.phase) })}</p>
      )}
      <Told text={model.err} said={model.err_said} className="block text-xs text-hot" />
      <ServingOf model={model} />
    </li>
  );
}

/** Settings are the documents of the fleet on this box, and how far it is with them. */
function Settings({ box }: { box: Box }) {
  const { t } = useTranslation();
  const word = useWord();
  const { config } = box;
  if (!config) return null;
  return (
    <Card title={t("box.settings")}>
      <ul className="px-3 pb-2">
        {config.documents.map((doc) => {
          const same = doc.running === doc.version;
          return (
            <li key={doc.name} className="border-t border-line py-1.5 first:border-0 first:pt-0">
              <div className="flex flex-wrap justify-between gap-x-3">
                <span className="font-semibold">{doc.name}</span>
                <span className="num">
                  {doc.out ? t("box.settingsOut") : doc.running || t("box.notRunning")}
                  {!same && <span className="text-busy"> → {doc.version}</span>}
                </span>
              </div>
              {doc.phase && doc.phase !== "active" && (
                <p className="text-xs text-soft">{t("box.phase", { phase: word("phase", doc.phase) })}</p>
              )}
              {doc.err && (
                <p className="text-xs text-hot" lang="en">
                  {doc.err}
                </p>
              )}
            </li>
          );
        })}
        {config.pending?.map((doc) => (
          <li key={`${doc.name}-pending`} className="border-t border-line py-1.5 first:border-0 first:pt-0">
            <div className="flex flex-wrap justify-between gap-x-3">
              <span className="font-semibold">{doc.name}</span>
              <span className="text-busy">
                {doc.out ? t("box.settingsToLeave") : t("box.settingsToCome", { version: doc.version })}
              </span>
            </div>
            <p className="text-xs text-soft" lang="en">
              {doc.why}
            </p>
          </li>
        ))}
      </ul>
      {config.local && config.local.length > 0 && (
        <p className="code px-3 pb-3 text-xs text-soft">
          {t("box.settingsLocal", { list: config.local.join(", ") })}
        </p>
      )}
    </Card>
  );
}

function Measured({ box }: { box: Box }) {
  const { t, i18n } = useTranslation();
  const { thermal, reads } = box;
  const resistance = thermal.known ? (
    t("box.aboveClean", { percent: number(thermal.resistance_percent, i18n.language) })
  ) : (
    <span className="text-soft">
      {t("box.unknown")}
      {thermal.reason_code && `: ${t(`health.short.${thermal.reason_code}`, { defaultValue: "" })}`}
    </span>
  );
  const value = (name: string): [string, React.ReactNode] => [
    t(`metric.${name}`),
    <Reading key={name} name={name} value={box.latest[name]} inline />,
  ];
  return (
    <Card title={t("box.now")}>
      <Facts
        items={[
          value("temp_die_celsius"),
          value("temp_inlet_celsius"),
          [t("metric.thermal_resistance_kelvin_per_watt"), resistance],
          value("fan_rpm"),
          value("power_watts"),
          value("cpu_busy_ratio"),
          [
            t("box.reads"),
            reads.total === 0 ? (
              <span className="text-soft">{t("box.noReads")}</span>
            ) : (
              <>
                {t("count.reads", { count: reads.total })}
                {reads.checked > 0 &&
                  `, ${t("box.right", { percent: percent(reads.right, reads.checked, i18n.language) })}`}
              </>
            ),
          ],
        ]}
      />
    </Card>
  );
}

function BufferCard({ box }: { box: Box }) {
  const { t, i18n } = useTranslation();
  const now = useNow();
  const { buffer, link } = box;
  const away = link === "silent" || link === "never";
  const age = box.last_seen ? ago(box.last_seen, now, i18n.language) : "–";
  const oldest =
    buffer.oldest_unix_ms > 0 ? ago(new Date(buffer.oldest_unix_ms).toISOString(), now, i18n.language) : age;
  return (
    <Card title={t("buffer.title")}>
      <div className="px-3 pb-3">
        <p className={away ? "text-warm" : ""}>
          {away
            ? t("buffer.away", { age })
            : buffer.blocks > 1
              ? t("buffer.waiting", {
                  count: buffer.blocks,
                  age: oldest,
                  size: bytes(buffer.bytes, i18n.language),
                })
              : t("buffer.synced", { count: buffer.blocks, age })}
        </p>
        {away && buffer.blocks > 0 && (
          <p className="text-soft">
            {t("buffer.lastKnown", { count: buffer.blocks, size: bytes(buffer.bytes, i18n.language) })}
          </p>
        )}
        <p className="text-xs text-soft">{t("buffer.window", { count: buffer.window })}</p>
        {buffer.dropped_blocks > 0 && (
          <p className="mt-1 flex items-center gap-1.5 text-hot">
            <Icon name="fault" size={14} /> {t("buffer.dropped", { count: buffer.dropped_blocks })}
          </p>
        )}
      </div>
    </Card>
  );
}

function Inventory({ box }: { box: Box }) {
  const { t, i18n } = useTranslation();
  const word = useWord();
  const { inventory } = box;
  const hardware = [inventory.vendor, inventory.product].filter(Boolean).join(" ");
  return (
    <Card title={t("box.hardware")}>
      <Facts
        items={[
          [t("box.labels"), <Labels key="labels" of={box.labels} />],
          [t("box.class"), word("class", inventory.class)],
          [t("box.product"), hardware || "–"],
          [
            t("box.serial"),
            <span key="serial" className="code">
              {inventory.serial || "–"}
            </span>,
          ],
          [t("box.cpu"), `${t("count.cpus", { count: inventory.cpus })}, ${inventory.arch}`],
          [t("box.memory"), bytes(inventory.memory_bytes, i18n.language)],
          [
            t("box.agent"),
            [inventory.agent, inventory.slot && t("box.slot", { slot: inventory.slot })]
              .filter(Boolean)
              .join(", "),
          ],
          [t("box.runner"), inventory.runner || <span className="text-hot">{t("box.runnerAway")}</span>],
          [t("box.runtime"), inventory.runtime || "–"],
          [
            t("box.id"),
            <span key="id" className="code">
              {box.id}
            </span>,
          ],
        ]}
      />
    </Card>
  );
}

function Results({ box }: { box: Box }) {
  const { t, i18n } = useTranslation();
  const results = useQuery(boxResultsQuery(box.id));
  return (
    <Card title={t("results.title")} aside={t("results.newest")}>
      {results.error && !results.data ? (
        <Fault error={results.error} retry={() => void results.refetch()} />
      ) : !results.data ? (
        <Loading />
      ) : results.data.items.length === 0 ? (
        <p className="px-3 pb-3 text-soft">{t("results.empty")}</p>
      ) : (
        <div className="max-h-96 overflow-y-auto">
          <Scroll stack label={t("results.title")}>
            <table className="grid-table">
              <thead>
                <tr>
                  <th scope="col">{t("results.time")}</th>
                  <th scope="col">{t("results.text")}</th>
                  <th scope="col">{t("results.truth")}</th>
                  <th scope="col" className="text-right">
                    {t("results.score")}
                  </th>
                  <th scope="col" className="text-right">
                    {t("results.latency")}
                  </th>
                </tr>
              </thead>
              <tbody>
                {results.data.items.map((result) => (
                  <tr key={`${result.time}/${result.item}`}>
                    <td>
                      <Clock time={result.time} />
                      <span className="block text-xs text-soft">{result.input}</span>
                    </td>
                    <td className="code max-w-60 min-w-28" title={result.models.join(", ")}>
                      {result.text || <span className="text-soft">{t("results.nothing")}</span>}
                    </td>
                    <td>
                      <Truth text={result.text} want={result.want} />
                    </td>
                    <td className="num text-right">{number(result.score, i18n.language, 2)}</td>
                    <td className="num text-right whitespace-nowrap">
                      {metric("inference_latency_seconds", result.latency_seconds, i18n.language)}
                    </td>
                  </tr>
                ))}
              </tbody>
            </table>
          </Scroll>
        </div>
      )}
    </Card>
  );
}

/** Truth compares a read with what is really on the label, if that is known. */
function Truth({ text, want }: { text: string; want: string | undefined }) {
  const { t } = useTranslation();
  if (!want) return <span className="text-soft">{t("results.unknown")}</span>;
  if (text === want) {
    return (
      <span className="chip text-ok">
        <Icon name="check" size={14} />
        {t("results.right")}
      </span>
    );
  }
  return (
    <>
      <span className="chip text-hot">
        <Icon name="cross" size={14} />
        {t("results.wrong")}
      </span>
      <span className="code block text-xs text-soft">{want}</span>
    </>
  );
}

function Events({ box }: { box: Box }) {
  const { t } = useTranslation();
  const events = useQuery(boxEventsQuery(box.id));
  return (
    <Card title={t("events.title")} aside={t("results.newest")}>
      {events.error && !events.data ? (
        <Fault error={events.error} retry={() => void events.refetch()} />
      ) : !events.data ? (
        <Loading />
      ) : events.data.items.length === 0 ? (
        <p className="px-3 pb-3 text-soft">{t("events.empty")}</p>
      ) : (
        // biome-ignore lint/a11y/noNoninteractiveTabindex: a list that scrolls must take focus (WCAG 2.1.1)
        <ol className="max-h-96 overflow-y-auto px-3 pb-2" aria-label={t("events.title")} tabIndex={0}>
          {events.data.items.map((event) => (
            <li
              key={`${event.time}/${event.type}/${event.text}`}
              className="grid grid-cols-[7.5rem_minmax(0,1fr)] gap-x-3 border-t border-line py-1.5 first:border-0"
            >
              <span className="text-soft">
                <Clock time={event.time} />
              </span>
              <span>
                <span lang="en">{event.text}</span>
                <span className="block text-xs text-soft">
                  {t(`event.${event.type.replace(".", "-")}`, { defaultValue: event.type })}
                </span>
              </span>
            </li>
          ))}
        </ol>
      )}
    </Card>
  );
}
