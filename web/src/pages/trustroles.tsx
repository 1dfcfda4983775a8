// What says which versions boxes may run: its roles, when they end, and who must
// sign by then with which command.
import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import type { TrustRole } from "../api/generated";
import { useNow } from "../api/now";
import { trustRolesQuery } from "../api/queries";
import { regional } from "../format";
import { Card, Command, Day, Fault, Loading, Scroll } from "../ui/parts";
import { State } from "../ui/state";

export function TrustRoles() {
  const { t } = useTranslation();
  const roles = useQuery(trustRolesQuery);
  return (
    <Card title={t("trust.title")} aside={t("trust.what")}>
      {roles.error ? (
        <Fault error={roles.error} retry={() => void roles.refetch()} />
      ) : !roles.data ? (
        <Loading height={60} />
      ) : roles.data.items.length === 0 ? (
        <div className="px-3 pb-3 text-soft">
          <p>{t("development.why")}</p>
          <Command>edgeherd trust init --keys DIR</Command>
        </div>
      ) : (
        <Table items={roles.data.items} />
      )}
    </Card>
  );
}

const isNear = (r: TrustRole) => r.stage !== "good";

/** TrustNear are the roles that end soon, with what to do; usually none. */
export function TrustNear() {
  const { t } = useTranslation();
  const near = useQuery(trustRolesQuery).data?.items.filter(isNear) ?? [];
  if (near.length === 0) return null;
  return (
    <Card title={t("trust.near")} aside={t("trust.what")}>
      {near.map((r) => (
        <Near key={r.role} role={r} />
      ))}
    </Card>
  );
}

/** Near is a role that wants a signature, or the controller's log looked at. */
function Near({ role }: { role: TrustRole }) {
  const { t } = useTranslation();
  const keys = role.keys.join(", ");
  return (
    <div className="border-t border-line px-3 py-2">
      <p className="flex flex-wrap items-center gap-x-2">
        <span className="font-semibold">{role.role}</span>
        <State kind="trust" value={role.stage} />
        <span>
          <Day time={role.expires} /> <Left until={role.expires} />
        </span>
      </p>
      <p className="text-soft">{t(role.stage === "ended" ? "trust.stopped" : "trust.stops")}</p>
      {role.do ? (
        <>
          <p>
            {role.waits
              ? t("trust.waits", { n: role.waits, keys })
              : t("trust.signs", { n: role.need, keys })}
          </p>
          <Command>{role.do}</Command>
        </>
      ) : (
        <p>{t("trust.online")}</p>
      )}
    </div>
  );
}

function Table({ items }: { items: TrustRole[] }) {
  const { t } = useTranslation();
  return (
    <Scroll stack label={t("trust.title")}>
      <table className="grid-table">
        <thead>
          <tr>
            <th scope="col">{t("trust.role")}</th>
            <th scope="col">{t("trust.state")}</th>
            <th scope="col">{t("trust.ends")}</th>
            <th scope="col">{t("trust.signers")}</th>
            <th scope="col">{t("models.version")}</th>
          </tr>
        </thead>
        <tbody>
          {items.map((r) => (
            <tr key={r.role}>
              <td className="font-semibold whitespace-nowrap">{r.role}</td>
              <td className="whitespace-nowrap">
                <State kind="trust" value={r.stage} className="whitespace-nowrap" />
              </td>
              <td className="whitespace-nowrap">
                <Day time={r.expires} /> <Left until={r.expires} />
              </td>
              <td className="whitespace-nowrap">
                {t("trust.of", { need: r.need, keys: r.keys.length })}{" "}
                <span className="code text-soft">{r.keys.join(" ")}</span>
              </td>
              <td className="num">{r.version}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </Scroll>
  );
}

function Left({ until }: { until: string }) {
  const { i18n } = useTranslation();
  const days = Math.trunc((Date.parse(until) - useNow(60_000)) / 86_400_000);
  const words = new Intl.RelativeTimeFormat(regional(i18n.language), { style: "short" }).format(days, "day");
  return <span className="text-xs whitespace-nowrap text-soft">{words}</span>;
}
