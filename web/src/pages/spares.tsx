// Parts: how many a region should have, and those on their way back to vendors.
import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { careReportQuery } from "../api/care";
import type { SpareDemand } from "../api/generated";
import { number } from "../format";
import { Card, Fault, Loading, Scroll } from "../ui/parts";
import { useWord } from "../ui/state";
import { Returns } from "./returns";

export function PartsView() {
  return (
    <div className="grid grid-cols-[minmax(0,1fr)] items-start gap-3 xl:grid-cols-2">
      <Spares />
      <Returns />
    </div>
  );
}

function Spares() {
  const { t } = useTranslation();
  const report = useQuery(careReportQuery);
  const spares = report.data?.spares ?? [];
  return (
    <Card title={t("spares.title")} aside={t("spares.aside", { count: spares[0]?.days ?? 90 })}>
      {report.error && !report.data ? (
        <Fault error={report.error} retry={() => void report.refetch()} />
      ) : !report.data ? (
        <Loading />
      ) : spares.length === 0 ? (
        <p className="px-3 pb-3 text-soft">{t("spares.none")}</p>
      ) : (
        <Scroll stack label={t("spares.title")}>
          <table className="grid-table">
            <thead>
              <tr>
                <th scope="col">{t("ticket.region")}</th>
                <th scope="col">{t("spares.part")}</th>
                <th scope="col" className="text-right">
                  {t("spares.stock")}
                </th>
                <th scope="col" className="text-right">
                  {t("spares.mean")}
                </th>
                <th scope="col" className="hidden text-right sm:table-cell">
                  {t("spares.boxes")}
                </th>
              </tr>
            </thead>
            <tbody>
              {spares.map((spare) => (
                <Row key={`${spare.region}/${spare.part}`} spare={spare} />
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
      <p className="px-3 py-2 text-xs text-soft">{t("spares.how")}</p>
    </Card>
  );
}

function Row({ spare }: { spare: SpareDemand }) {
  const { i18n } = useTranslation();
  const word = useWord();
  return (
    <tr>
      <td>{spare.region || <span className="text-soft">–</span>}</td>
      <td className="font-medium">{word("part", spare.part)}</td>
      <td className="num text-right font-semibold">{number(spare.stock, i18n.language)}</td>
      <td className="num text-right">{number(spare.mean, i18n.language, 1)}</td>
      <td className="num hidden text-right sm:table-cell">{number(spare.boxes, i18n.language)}</td>
    </tr>
  );
}
