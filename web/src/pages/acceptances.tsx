// The acceptance tests that a box went through, with their reports to hand over.
import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { url } from "../api/client";
import type { Acceptance } from "../api/generated";
import { boxAcceptancesQuery, paths } from "../api/queries";
import { Card, Clock, Command, Fault, Loading } from "../ui/parts";
import { State } from "../ui/state";

type Form = "html" | "pdf";

/** reportOf is the address of a report as a page or a PDF in a language. */
export const reportOf = (box: string, report: string, form: Form, lang: string): string =>
  url(form === "pdf" ? paths.boxAcceptancePDF : paths.boxAcceptancePage, { id: box, report }, { lang });

/** Acceptances lists the acceptance tests of a box, the newest first. */
export function Acceptances({ id, name }: { id: string; name: string }) {
  const { t } = useTranslation();
  const tests = useQuery(boxAcceptancesQuery(id));
  const items = tests.data?.items;
  return (
    <Card title={t("acceptance.title")}>
      {!items ? (
        tests.error ? (
          <Fault error={tests.error} retry={() => void tests.refetch()} />
        ) : (
          <Loading height={40} />
        )
      ) : items.length === 0 ? (
        <div className="px-3 pb-3 text-soft">
          {t("acceptance.none")}
          <Command>{`edgeherd box accept ${name}`}</Command>
        </div>
      ) : (
        <ul className="max-h-72 overflow-y-auto px-3 pb-2">
          {items.map((test) => (
            <Line key={test.id} box={id} test={test} />
          ))}
        </ul>
      )}
    </Card>
  );
}

function Line({ box, test }: { box: string; test: Acceptance }) {
  const { t, i18n } = useTranslation();
  const levels = test.levels.map((level) => t(`acceptance.level.${level}`, { defaultValue: level }));
  const link = (form: Form, label: string) => (
    <a className="link" target="_blank" rel="noreferrer" href={reportOf(box, test.id, form, i18n.language)}>
      {label}
      <span className="sr-only"> {test.id}</span>
    </a>
  );
  return (
    <li className="border-t border-line py-1.5 first:border-0 first:pt-0">
      <div className="flex flex-wrap items-baseline justify-between gap-x-3">
        <State kind="verdict" value={test.verdict} />
        <span className="inline-flex gap-3">
          {link("html", t("acceptance.page"))}
          {link("pdf", "PDF")}
        </span>
      </div>
      <p className="text-xs text-soft">
        <Clock time={test.ended} /> · {levels.join(", ")}
        {test.delivery && ` · ${test.delivery}`}
      </p>
    </li>
  );
}
