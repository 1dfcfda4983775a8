// How a box stands in the fleet. Nothing is shown of one that is active.
import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import type { Box } from "../api/generated";
import { boxIdentityQuery } from "../api/queries";
import { Ago, Card, Command, Facts, Fault, Loading, Scroll } from "../ui/parts";
import { State } from "../ui/state";

/** wayOut are the commands that follow from a state. */
const wayOut: Record<string, string[]> = {
  quarantined: ["release", "replace"],
  revoked: ["replace"],
  retired: ["replace"],
};

export function Standing({ box }: { box: Box }) {
  const { t } = useTranslation();
  const away = box.state !== "active";
  const query = useQuery({ ...boxIdentityQuery(box.id), enabled: away });
  const identity = query.data;
  if (!away) return null;
  return (
    <Card
      title={t("identity.title")}
      aside={<State kind="standing" value={box.state} />}
      className="mb-3 border-hot"
    >
      <p className="px-3 pb-2">{t(`identity.${box.state}`, { defaultValue: "" })}</p>
      {!identity ? (
        query.error ? (
          <Fault error={query.error} retry={() => void query.refetch()} />
        ) : (
          <Loading height={80} />
        )
      ) : (
        <>
          <Facts
            items={[
              [t("identity.since"), <Ago key="since" time={identity.since} />],
              [t("identity.by"), identity.by || "–"],
              [
                t("identity.why"),
                <span key="why" lang="en" className="break-words">
                  {identity.why || "–"}
                </span>,
              ],
            ]}
          />
          {identity.certificates.length > 0 && (
            <Scroll stack label={t("identity.certificates")}>
              <table className="grid-table">
                <thead>
                  <tr>
                    <th scope="col">{t("identity.address")}</th>
                    <th scope="col">{t("identity.state")}</th>
                    <th scope="col">{t("identity.changed")}</th>
                  </tr>
                </thead>
                <tbody>
                  {identity.certificates.map((c) => (
                    <tr key={c.serial}>
                      <td className="code whitespace-nowrap">
                        {c.address || "–"}
                        <span
                          className="block text-xs text-soft"
                          title={`${t("identity.serial")} ${c.serial}`}
                        >
                          {c.serial.slice(0, 8)}
                        </span>
                      </td>
                      <td className="whitespace-nowrap">
                        {t(`identity.cert.${c.state}`, { defaultValue: c.state })}
                      </td>
                      <td>
                        <Ago time={c.changed} />
                      </td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </Scroll>
          )}
        </>
      )}
      {wayOut[box.state] && (
        <div className="px-3 py-2">
          {wayOut[box.state]?.map((verb) => (
            <Command key={verb}>{`edgeherd box ${verb} ${box.name}`}</Command>
          ))}
        </div>
      )}
    </Card>
  );
}
