// The sentence that says how a rollout stands. One that an older controller left in
// English alone has the counts before it in the reader's language.
import { useTranslation } from "react-i18next";
import type { Rollout } from "../api/generated";
import { useWord } from "../ui/state";
import { Told } from "./phrase";
import { tally, useTallyWords } from "./progress";

export function Sentence({ rollout, strong }: { rollout: Rollout; strong?: boolean }) {
  const { i18n } = useTranslation();
  const word = useWord();
  const words = useTallyWords();
  const className = strong ? "text-base font-semibold" : "";
  if (i18n.language === "en" || rollout.sentence_said) {
    return (
      <p className={className}>
        <Told text={rollout.sentence} said={rollout.sentence_said} />
      </p>
    );
  }
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
