// Sites: how the boxes of one site share its line, and when they keep quiet.
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useState } from "react";
import { useTranslation } from "react-i18next";
import type { Site, SiteEffect, SiteList } from "../api/generated";
import { can, canEverywhere } from "../api/people";
import { sessionQuery, sitesQuery } from "../api/queries";
import { bytes } from "../format";
import { Icon } from "../ui/icons";
import { Ago, Card, Clock, Command, Empty, Facts, Fault, Loading, Page, Scroll } from "../ui/parts";
import { SiteForm } from "./siteform";
import { SiteUpkeep } from "./upkeep";

export function SitesPage() {
  const { t } = useTranslation();
  const sites = useQuery(sitesQuery);
  const session = useQuery(sessionQuery);
  const [editing, edit] = useState<string>();
  const may = can(session.data, "site.set");
  const mayAll = canEverywhere(session.data, "site.set");
  const items = sites.data?.items;
  return (
    <Page title={t("sites.title")} aside={items && t("count.sites", { count: items.length })}>
      {sites.error && <Fault error={sites.error} retry={() => void sites.refetch()} />}
      {sites.isPending && <Loading height={300} />}
      {sites.data && (
        <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
          <Defaults list={sites.data} edit={mayAll ? () => edit("") : undefined} />
          {sites.data.items.length === 0 ? (
            <Card>
              <Empty title={t("sites.empty")}>
                <p>{t("sites.emptyHint")}</p>
                <Command>edgeherd box enrol --name N --site S --dir DIR</Command>
              </Empty>
            </Card>
          ) : (
            <>
              <SiteUpkeep />
              <Table items={sites.data.items} edit={may ? edit : undefined} />
            </>
          )}
          {session.data && !may && <p className="text-soft">{t("sites.readOnly")}</p>}
          {editing !== undefined && (
            <SiteForm key={editing} list={sites.data} name={editing} done={() => edit(undefined)} />
          )}
        </div>
      )}
    </Page>
  );
}

/** useRate says how much may go up in a second. */
export function useRate() {
  const { t, i18n } = useTranslation();
  return (rate: number) =>
    rate === 0 ? t("sites.noLimit") : t("sites.rate", { size: bytes(rate, i18n.language) });
}

function Defaults({ list, edit }: { list: SiteList; edit?: () => void }) {
  const { t } = useTranslation();
  const rate = useRate();
  const { effect, changed, changed_by } = list.defaults;
  return (
    <Card
      title={t("sites.defaults")}
      aside={
        changed && (
          <>
            {t("sites.changedBy", { name: changed_by })} <Ago time={changed} />
          </>
        )
      }
    >
      <p className="px-3 pb-2 text-soft">{t("sites.what")}</p>
      <Facts
        items={[
          [
            t("sites.backlog"),
            <span key="b" className="num">
              {rate(effect.backlog_bytes_per_second)}
            </span>,
          ],
          [t("sites.quiet"), <Quiet key="q" effect={effect} />],
        ]}
      />
      {edit && (
        <div className="px-3 pb-3">
          <button type="button" className="button" onClick={edit}>
            <Icon name="draft" />
            {t("sites.changeDefaults")}
          </button>
        </div>
      )}
    </Card>
  );
}

function Quiet({ effect, own = false }: { effect: SiteEffect; own?: boolean }) {
  const { t } = useTranslation();
  if (effect.quiet.length === 0) {
    return (
      <span className="text-soft">
        {t("sites.never")}
        <Origin own={own} />
      </span>
    );
  }
  return (
    <>
      {effect.quiet.map((time) => (
        <span key={time} className="code block sm:whitespace-nowrap">
          {time}
        </span>
      ))}
      <span className="block text-xs sm:whitespace-nowrap text-soft">
        {effect.time_zone}
        <Origin own={own} />
      </span>
    </>
  );
}

function Table({ items, edit }: { items: Site[]; edit?: (name: string) => void }) {
  const { t, i18n } = useTranslation();
  const rate = useRate();
  return (
    <Card title={t("sites.lines")}>
      <Scroll stack label={t("sites.lines")}>
        <table className="grid-table">
          <thead>
            <tr>
              <th scope="col">{t("sites.site")}</th>
              <th scope="col">{t("sites.connected")}</th>
              <th scope="col">{t("sites.waiting")}</th>
              <th scope="col">{t("sites.backlog")}</th>
              <th scope="col">{t("sites.quiet")}</th>
              <th scope="col">{t("sites.now")}</th>
              <th scope="col">{t("sites.changed")}</th>
              {edit && (
                <th scope="col">
                  <span className="sr-only">{t("sites.change")}</span>
                </th>
              )}
            </tr>
          </thead>
          <tbody>
            {items.map((site) => (
              <tr key={site.name}>
                <td className="min-w-28 font-semibold">
                  <Link to="/" search={{ q: `site = ${JSON.stringify(site.name)}` }} className="link">
                    {site.name}
                  </Link>
                </td>
                <td className="num whitespace-nowrap">
                  {t("sites.of", { connected: site.connected, boxes: site.boxes })}
                </td>
                <td className="num whitespace-nowrap">{bytes(site.waiting_bytes, i18n.language)}</td>
                <td className="num whitespace-nowrap">
                  {rate(site.effect.backlog_bytes_per_second)}
                  <Origin own={site.settings.backlog_bytes_per_second !== undefined} />
                  {site.backlog_bytes_per_second_per_box > 0 && site.connected > 1 && (
                    <span className="block text-xs text-soft">
                      {t("sites.perBox", { rate: rate(site.backlog_bytes_per_second_per_box) })}
                    </span>
                  )}
                </td>
                <td>
                  <Quiet
                    effect={site.effect}
                    own={site.settings.quiet !== undefined || site.settings.time_zone !== undefined}
                  />
                </td>
                <td>
                  <Now site={site} />
                </td>
                <td className="whitespace-nowrap">
                  {site.changed ? <Ago time={site.changed} /> : "–"}
                  {site.changed_by && <span className="block text-xs text-soft">{site.changed_by}</span>}
                </td>
                {edit && (
                  <td>
                    <button
                      type="button"
                      className="button"
                      aria-label={t("sites.changeSite", { name: site.name })}
                      onClick={() => edit(site.name)}
                    >
                      <Icon name="draft" />
                      {t("sites.change")}
                    </button>
                  </td>
                )}
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Card>
  );
}

/** Origin marks what a site sets itself. */
function Origin({ own }: { own: boolean }) {
  const { t } = useTranslation();
  return own ? <span className="tag ml-1.5">{t("sites.own")}</span> : null;
}

function Now({ site }: { site: Site }) {
  const { t } = useTranslation();
  const until = site.quiet_now ? site.quiet_until : site.quiet_next;
  return (
    <>
      <span className={`chip ${site.quiet_now ? "text-warm" : "text-ok"}`}>
        <Icon name={site.quiet_now ? "paused" : "live"} size={14} />
        {t(site.quiet_now ? "sites.quietNow" : "sites.open")}
      </span>
      {until && (
        <span className="block text-xs sm:whitespace-nowrap text-soft">
          {t("sites.until")} <Clock time={until} />
        </span>
      )}
    </>
  );
}
