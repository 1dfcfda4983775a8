// What a finding rests on.
import { useTranslation } from "react-i18next";
import type { Evidence } from "../api/generated";
import { Icon } from "../ui/icons";
import { Said } from "./phrase";

/** Evidences are the facts that a finding rests on. */
export function Evidences({ items }: { items: Evidence[] }) {
  const { t } = useTranslation();
  if (items.length === 0) return <p className="text-soft">{t("finding.noEvidence")}</p>;
  return (
    <ul className="grid gap-1">
      {items.map((e) => (
        <li key={`${e.name}/${e.text}`} className="flex gap-2">
          <span className="pt-0.5 text-soft">
            <Icon name="check" size={14} />
          </span>
          <Said phrase={e} className="min-w-0" />
        </li>
      ))}
    </ul>
  );
}
