// How well the upkeep does: how fast tickets are seen and proved, how often work
// came back, and how boxes of one SKU stand against their like.
import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { careReportQuery } from "../api/care";
import type { CareReport } from "../api/generated";
import { duration, number, signedPercent } from "../format";
import { Card, Day, Facts, Fault, Loading, Scroll } from "../ui/parts";
import { useWord } from "../ui/state";

export function NumbersView() {
  const { t } = useTranslation();
  const report = useQuery(careReportQuery);
  if (!report.data) {
    return (
      <Card title={t("numbers.title")}>
        {report.error ? <Fault error={report.error} retry={() => void report.refetch()} /> : <Loading />}
      </Card>
    );
  }
  return (
    <div className="grid grid-cols-[minmax(0,1fr)] items-start gap-3 xl:grid-cols-2">
      <Pace report={report.data} />
      <Products report={report.data} />
    </div>
  );
}

function Pace({ report }: { report: CareReport }) {
  const { t, i18n } = useTranslation();
  const word = useWord();
  const language = i18n.language;
  const span = (seconds?: number) => (seconds === undefined ? "–" : duration(seconds, language));
  const between = Object.entries(report.mtbf_days).sort((a, b) => a[1] - b[1]);
  return (
    <Card
      title={t("numbers.title")}
      aside={
        <>
          {t("finding.since")} <Day time={report.from} />
        </>
      }
    >
      <Facts
        items={[
          [t("numbers.mtta"), span(report.mtta_seconds)],
          [t("numbers.mttr"), span(report.mttr_seconds)],
          [t("numbers.ended"), number(report.ended, language)],
          [t("numbers.back"), number(report.reopened_within_14_days, language)],
          [t("numbers.noFault"), number(report.no_fault_found, language)],
        ]}
      />
      {between.length > 0 && (
        <Scroll label={t("numbers.mtbf")}>
          <table className="grid-table">
            <thead>
              <tr>
                <th scope="col">{t("tickets.column.cause")}</th>
                <th scope="col" className="text-right">
                  {t("numbers.mtbf")}
                </th>
              </tr>
            </thead>
            <tbody>
              {between.map(([cause, days]) => (
                <tr key={cause}>
                  <td>{word("heatCause", cause)}</td>
                  <td className="num text-right">
                    {t("count.days", { count: Math.round(days), shown: number(days, language) })}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      <p className="px-3 py-2 text-xs text-soft">{t("numbers.how")}</p>
    </Card>
  );
}

function Products({ report }: { report: CareReport }) {
  const { t, i18n } = useTranslation();
  const language = i18n.language;
  return (
    <Card title={t("numbers.products")} aside={t("numbers.productsAside")}>
      {report.skus.length === 0 ? (
        <p className="px-3 pb-3 text-soft">{t("numbers.noProducts")}</p>
      ) : (
        <Scroll label={t("numbers.products")}>
          <table className="grid-table">
            <thead>
              <tr>
                <th scope="col">{t("ticket.sku")}</th>
                <th scope="col" className="text-right">
                  {t("numbers.boxes")}
                </th>
                <th scope="col" className="text-right">
                  {t("numbers.median")}
                </th>
                <th scope="col" className="hidden text-right sm:table-cell">
                  {t("numbers.trip")}
                </th>
              </tr>
            </thead>
            <tbody>
              {report.skus.map((sku) => {
                const trip = report.priors[sku.name]?.trip_celsius;
                return (
                  <tr key={sku.name}>
                    <td>{sku.name}</td>
                    <td className="num text-right">{number(sku.boxes, language)}</td>
                    <td className="num whitespace-nowrap text-right">
                      {signedPercent(sku.median_percent, language)}
                      <span className="block text-xs text-soft">
                        ± {number(sku.spread_percent, language, 1)} %
                      </span>
                    </td>
                    <td className="num hidden text-right sm:table-cell">
                      {trip ? `${number(trip, language, 1)} °C` : "–"}
                    </td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </Scroll>
      )}
      <p className="px-3 py-2 text-xs text-soft">{t("numbers.productsHow")}</p>
    </Card>
  );
}
