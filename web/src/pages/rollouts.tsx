// Rollouts, the newest first: each says in a sentence how it stands.
import { useInfiniteQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";
import type { Rollout } from "../api/generated";
import { rolloutsQuery } from "../api/queries";
import { Ago, Card, Command, Empty, Fault, Loading, Page } from "../ui/parts";
import { State } from "../ui/state";
import { Bar, tally, useTallyWords } from "./progress";
import { RestoresPanel } from "./restores";
import { Sentence } from "./sentence";

export function RolloutsPage() {
  const { t } = useTranslation();
  const rollouts = useInfiniteQuery(rolloutsQuery);
  const items = rollouts.data?.pages.flatMap((page) => page.items);
  const total = rollouts.data?.pages[0]?.total_size ?? 0;
  return (
    <Page title={t("rollouts.title")} aside={items && t("count.rollouts", { count: total })}>
      {rollouts.error && <Fault error={rollouts.error} retry={() => void rollouts.refetch()} />}
      <RestoresPanel />
      {rollouts.isPending && <Loading height={300} />}
      {items?.length === 0 && (
        <Card>
          <Empty title={t("rollouts.empty")}>
            <p>{t("rollouts.emptyHint")}</p>
            <Command>edgeherd rollout start my-model:1.0.0</Command>
          </Empty>
        </Card>
      )}
      <ul className="grid grid-cols-[minmax(0,1fr)] gap-2">
        {items?.map((rollout) => (
          <li key={rollout.id}>
            <Row rollout={rollout} />
          </li>
        ))}
      </ul>
      {rollouts.hasNextPage && (
        <div className="p-2 text-center">
          <button
            type="button"
            className="button"
            disabled={rollouts.isFetchingNextPage}
            onClick={() => void rollouts.fetchNextPage()}
          >
            {rollouts.isFetchingNextPage ? t("loading") : t("table.more")}
          </button>
        </div>
      )}
    </Page>
  );
}

function Row({ rollout }: { rollout: Rollout }) {
  const words = useTallyWords();
  const counts = tally(rollout.waves);
  return (
    <article className="card grid gap-x-6 gap-y-1.5 px-3 py-2.5 md:grid-cols-[minmax(0,1fr)_minmax(14rem,22rem)]">
      <div className="min-w-0">
        <h2 className="flex flex-wrap items-baseline gap-x-3">
          <Link to="/rollouts/$id" params={{ id: rollout.id }} className="link">
            <Target rollout={rollout} />
          </Link>
          <State kind="rollout" value={rollout.state} className="text-sm" />
        </h2>
        <Sentence rollout={rollout} />
      </div>
      <div className="min-w-0 self-center">
        <Bar counts={counts} />
        <p className="mt-1 flex flex-wrap justify-between gap-x-3 text-xs text-soft">
          <span>{words(counts)}</span>
          <Ago time={rollout.ended ?? rollout.started ?? rollout.created} />
        </p>
      </div>
    </article>
  );
}

/** Target names what a rollout brings. */
export function Target({ rollout }: { rollout: Rollout }) {
  const { t } = useTranslation();
  const { name, version } = rollout.target;
  if (rollout.kind === "agent") return <>{t("rollout.agent", { version })}</>;
  if (rollout.kind === "config") return <>{t("rollout.config", { name, version })}</>;
  return <>{`${name} ${version}`}</>;
}
