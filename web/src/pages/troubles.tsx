// What goes wrong with the messages of a box. Nothing is shown when all is well.
import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { boxFaultsQuery } from "../api/queries";
import { number } from "../format";
import { Ago, Card } from "../ui/parts";

export function Troubles({ id }: { id: string }) {
  const { t, i18n } = useTranslation();
  const faults = useQuery(boxFaultsQuery(id)).data?.items ?? [];
  if (faults.length === 0) return null;
  return (
    <Card title={t("trouble.title")} aside={t("trouble.span")}>
      <ul className="px-3 pb-2">
        {faults.map((fault) => (
          <li key={fault.cause} className="border-t border-line py-1.5 first:border-0 first:pt-0">
            <div className="flex flex-wrap items-baseline justify-between gap-x-3">
              <span className="font-semibold">
                {t(`cause.${fault.cause}`, { defaultValue: fault.cause })}{" "}
                <span className="num font-normal text-soft">
                  {t("trouble.times", { count: fault.count, shown: number(fault.count, i18n.language) })}
                </span>
              </span>
              <span className="text-xs text-soft">
                <Ago time={fault.last} />
              </span>
            </div>
            <p className="text-sm">{t(`causeHint.${fault.cause}`, { defaultValue: "" })}</p>
            <p className="text-xs break-words text-soft" lang="en">
              {fault.text}
            </p>
          </li>
        ))}
      </ul>
    </Card>
  );
}
