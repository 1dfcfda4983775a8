// The sentence that says how a rollout stands. The controller writes it in
// English; readers of another language get the counts in theirs first.
import { useTranslation } from "react-i18next";
import type { Rollout } from "../api/generated";
import { useWord } from "../ui/state";
import { tally, useTallyWords } from "./progress";

export function Sentence({ rollout, strong }: { rollout: Rollout; strong?: boolean }) {
  const { i18n } = useTranslation();
  const word = useWord();
  const words = useTallyWords();
  const className = strong ? "text-base font-semibold" : "";
  if (i18n.language === "en") return <p className={className}>{rollout.sentence}</p>;
  return (
    <>
      <p className={className}>
        {word("rollout", rollout.state)}: {words(tally(rollout.waves))}
      </p>
      <p lang="en" className="text-soft">
        {rollout.sentence}
      </p>
    </>
  );
}
