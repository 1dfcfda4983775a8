// What the wave under way is judged by: what was measured beside what is allowed.
import { useTranslation } from "react-i18next";
import type { Rollout } from "../api/generated";
import { Card, Scroll } from "../ui/parts";
import { State, useWord } from "../ui/state";
import { Told } from "./phrase";

export function Gates({ rollout }: { rollout: Rollout }) {
  const { t } = useTranslation();
  const word = useWord();
  // The newest that was judged: of a halted rollout it is the one that halted.
  const index = rollout.waves.findLastIndex((wave) => wave.gates?.length);
  const gates = rollout.waves[index]?.gates ?? [];
  if (gates.length === 0) return null;
  const title = t("gate.title", { number: index + 1 });
  return (
    <Card title={title}>
      <Scroll label={title}>
        <table className="grid-table">
          <thead>
            <tr>
              <th scope="col">{t("gate.name")}</th>
              <th scope="col">{t("gate.result")}</th>
              <th scope="col">{t("gate.measured")}</th>
              <th scope="col" className="hidden sm:table-cell">
                {t("gate.allowed")}
              </th>
            </tr>
          </thead>
          <tbody>
            {gates.map((gate) => (
              <tr key={gate.name}>
                <td className="font-medium">{word("gate", gate.name)}</td>
                <td>
                  <State kind="gateResult" value={gate.result} />
                </td>
                <td>
                  <Told text={gate.measured} said={gate.measured_said} />
                  <Told text={gate.allowed} said={gate.allowed_said} className="block text-soft sm:hidden" />
                </td>
                <td className="hidden text-soft sm:table-cell">
                  <Told text={gate.allowed} said={gate.allowed_said} />
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
    </Card>
  );
}
