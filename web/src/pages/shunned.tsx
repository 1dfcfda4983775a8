// A box that gave wrong parts of files to others of its site. Nothing is shown of any other.
import { Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";
import type { Box } from "../api/generated";
import { Card, Clock, Command, Facts } from "../ui/parts";

export function Shunned({ box }: { box: Box }) {
  const { t } = useTranslation();
  const { shunned } = box;
  if (!shunned) return null;
  return (
    <Card title={t("shunned.title")} className="mb-3 border-hot">
      <p className="px-3 pb-2">{t(shunned.by_all ? "shunned.byAll" : "shunned.byOne")}</p>
      <Facts
        items={[
          [
            t("shunned.to"),
            <span key="to" className="flex flex-wrap gap-x-3">
              {shunned.by.map((id) => (
                <Link key={id} to="/boxes/$id" params={{ id }} className="link code inline-block min-h-7">
                  {id}
                </Link>
              ))}
            </span>,
          ],
          [t("shunned.until"), <Clock key="until" time={shunned.until} />],
        ]}
      />
      <div className="px-3 pb-3">
        <p>{t("shunned.do")}</p>
        <Command>{`edgeherd box accept ${box.name} --level hardware,load`}</Command>
      </div>
    </Card>
  );
}
