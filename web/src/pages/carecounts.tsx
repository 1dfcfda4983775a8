// What is wrong in the fleet by cause, and why boxes restarted: each count of a
// cause is a filter of the fleet.
import { useQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useTranslation } from "react-i18next";
import { careReportQuery } from "../api/care";
import { number } from "../format";
import { Card } from "../ui/parts";
import { useWord } from "../ui/state";
import { ranked } from "./ticketfilter";

const route = getRouteApi("/");

export function CareCounts() {
  const { t, i18n } = useTranslation();
  const word = useWord();
  const { q } = route.useSearch();
  const navigate = route.useNavigate();
  const care = useQuery(careReportQuery).data;
  if (!care) return null;
  const causes = ranked(care.causes);
  const resets = ranked(care.resets);
  const unjudged = care.unjudged;
  return (
    <Card
      title={t("careCounts.title")}
      aside={
        <Link to="/tickets" search={{ state: "due" }} className="link inline-block min-h-7">
          {t("careCounts.due", { count: care.tickets.due })}
        </Link>
      }
    >
      <dl className="grid grid-cols-[minmax(0,1fr)] gap-x-4 gap-y-1.5 px-3 pb-2.5 sm:grid-cols-[max-content_minmax(0,1fr)]">
        <dt className="text-soft">{t("careCounts.causes")}</dt>
        <dd className="flex flex-wrap gap-1.5">
          {causes.length === 0 && <span className="text-soft">{t("health.nothing")}</span>}
          {causes.map(([cause, count]) => {
            const filter = `cause:${JSON.stringify(cause)}`;
            const on = q === filter;
            return (
              <button
                key={cause}
                type="button"
                aria-pressed={on}
                onClick={() =>
                  void navigate({
                    search: (s) => ({ ...s, q: on ? undefined : filter }),
                    resetScroll: false,
                  })
                }
                className={`min-h-7 rounded border px-2 text-xs ${on ? "border-accent bg-accent text-accent-ink" : "border-edge hover:bg-sunk"}`}
              >
                {word("heatCause", cause)} <strong className="num">{number(count, i18n.language)}</strong>
              </button>
            );
          })}
          {unjudged > 0 && (
            <span className="self-center text-xs text-soft">
              {t("careCounts.unjudged", { count: unjudged })}
            </span>
          )}
        </dd>
        <dt className="text-soft">{t("careCounts.resets")}</dt>
        <dd className="flex flex-wrap gap-x-4 gap-y-1">
          {resets.length === 0 && <span className="text-soft">{t("resets.none")}</span>}
          {resets.map(([cause, count]) => (
            <span key={cause} className="whitespace-nowrap">
              {word("reset", cause)} <strong className="num">{number(count, i18n.language)}</strong>
            </span>
          ))}
        </dd>
      </dl>
    </Card>
  );
}
