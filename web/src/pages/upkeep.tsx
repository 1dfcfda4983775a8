// How each site stands: dust, filters, and what is due there, the worst first.
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";
import { careSitesQuery } from "../api/care";
import type { SiteCare } from "../api/generated";
import { number, signedPercent } from "../format";
import { Card, Day, Fault, Loading, Scroll } from "../ui/parts";
import { State, useWord } from "../ui/state";

export function SiteUpkeep() {
  const { t } = useTranslation();
  const sites = useQuery(careSitesQuery);
  if (sites.data?.items.length === 0) return null;
  return (
    <Card title={t("siteCare.title")} aside={t("siteCare.order")}>
      {sites.error && !sites.data ? (
        <Fault error={sites.error} retry={() => void sites.refetch()} />
      ) : !sites.data ? (
        <Loading height={200} />
      ) : (
        <Scroll stack label={t("siteCare.title")}>
          <table className="grid-table">
            <thead>
              <tr>
                <th scope="col">{t("sites.site")}</th>
                <th scope="col">{t("siteCare.level")}</th>
                <th scope="col">{t("siteCare.tickets")}</th>
                <th scope="col">{t("siteCare.dust")}</th>
                <th scope="col">{t("siteCare.filter")}</th>
                <th scope="col" className="hidden md:table-cell">
                  {t("siteCare.worst")}
                </th>
                <th scope="col" className="hidden md:table-cell">
                  {t("siteCare.next")}
                </th>
              </tr>
            </thead>
            <tbody>
              {sites.data.items.map((site) => (
                <Row key={site.site} site={site} />
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      <p className="px-3 py-2 text-xs text-soft">{t("siteCare.how")}</p>
    </Card>
  );
}

function Row({ site }: { site: SiteCare }) {
  const { t, i18n } = useTranslation();
  const word = useWord();
  const language = i18n.language;
  const kind = [site.class && word("siteClass", site.class), site.region].filter(Boolean).join(", ");
  return (
    <tr>
      <td className="min-w-28">
        <Link to="/" search={{ q: `site = ${JSON.stringify(site.site)}` }} className="link font-semibold">
          {site.site}
        </Link>
        <span className="block text-xs text-soft">
          {t("count.boxes", { count: site.boxes })}
          {kind && <span className="block">{kind}</span>}
        </span>
      </td>
      <td>
        <State kind="health" value={site.level} />
        {site.hot_room && <span className="block text-xs text-hot">{word("heatCause", "hvac")}</span>}
      </td>
      <td>
        {site.tickets === 0 ? (
          <span className="text-soft">–</span>
        ) : (
          <Link to="/tickets" search={{ site: site.site }} className="link num">
            {t("count.ticketsOpen", { count: site.tickets })}
          </Link>
        )}
        {site.visit_due && <span className="block text-xs text-warm">{t("visits.worth")}</span>}
      </td>
      <td>
        <Dust site={site} />
      </td>
      <td className="num">
        {t("count.days", {
          count: Math.round(site.filter.interval_days),
          shown: number(site.filter.interval_days, language),
        })}
        <span className="block text-xs text-soft">
          {t(site.filter.learnt ? "upkeep.learnt" : "upkeep.byClass")}
        </span>
      </td>
      <td className="hidden md:table-cell">
        {site.worst_box && site.worst_percent !== undefined ? (
          <>
            {site.worst_box}
            <span className="num block text-xs text-soft">{signedPercent(site.worst_percent, language)}</span>
          </>
        ) : (
          <span className="text-soft">–</span>
        )}
      </td>
      <td className="hidden md:table-cell">
        {site.next_visit ? (
          <Link to="/tickets" search={{ view: "visits" }} className="link">
            <span className="num">{site.next_visit}</span> {site.next_day && <Day time={site.next_day} />}
          </Link>
        ) : (
          <span className="text-soft">–</span>
        )}
      </td>
    </tr>
  );
}

/** Dust is how fast the resistance grows, against the median of all sites. */
function Dust({ site }: { site: SiteCare }) {
  const { t, i18n } = useTranslation();
  const { dust_percent_per_month: dust, dust_ratio: ratio } = site;
  if (dust === undefined) return <span className="text-soft">{t("siteCare.noDust")}</span>;
  return (
    <>
      <span className="num whitespace-nowrap">
        {t("siteCare.perMonth", { percent: signedPercent(dust, i18n.language) })}
      </span>
      {ratio !== undefined && (
        <span className={`block text-xs ${ratio >= 2 ? "text-warm" : "text-soft"}`}>
          {t("siteCare.ratio", { ratio: number(ratio, i18n.language, 1) })}
        </span>
      )}
    </>
  );
}
