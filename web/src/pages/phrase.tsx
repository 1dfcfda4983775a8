// Sentences of boxes and of the controller in the reader's language. Each has a
// code and arguments (internal/phrase in Go); what has no code, or one of a newer
// box, is shown in English. They have dictionaries of their own, loaded by the
// first page that needs one; English needs none.
import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { regional } from "../format";

export type Phrase = { text?: string; code?: string; args?: string[] };
export type Phrases = { phrase: Record<string, string>; word: Record<string, string> };

const load: Record<string, () => Promise<{ default: Phrases }>> = {
  de: () => import("../i18n/phrases.de.json"),
  pl: () => import("../i18n/phrases.pl.json"),
  zh: () => import("../i18n/phrases.zh.json"),
};

const numeric = /^[+-]?\d+(?:\.(\d+))?$/;

/** slug is the key of an English word or clause in the dictionaries. */
export const slug = (text: string): string =>
  text
    .toLowerCase()
    .replace(/[^a-z0-9]+/g, "-")
    .replace(/^-|-$/g, "");

/** figure writes a number of the sentence as the language does, with the digits that it came with. */
export function figure(arg: string, language: string): string {
  const digits = numeric.exec(arg)?.[1]?.length ?? 0;
  return new Intl.NumberFormat(regional(language), {
    minimumFractionDigits: digits,
    maximumFractionDigits: digits,
    signDisplay: arg.startsWith("+") ? "always" : "auto",
  }).format(Number(arg));
}

/** say puts the arguments of a phrase into the sentence of a language; undefined: it has none. */
export function say(phrase: Phrase, words: Phrases, language: string): string | undefined {
  const word = (arg: string): string => {
    if (numeric.test(arg)) return figure(arg, language);
    const own = words.word[slug(arg)];
    if (own) return own;
    if (arg.includes(", ")) return arg.split(", ").map(word).join(", ");
    // A reading: "inlet 24 °C".
    const [, first = "", rest] = /^([a-z]+) (\S+(?: \S+)?)$/.exec(arg) ?? [];
    return words.word[first] ? `${words.word[first]} ${rest}` : arg;
  };
  const { text = "", code, args = [] } = phrase;
  if (!code) return words.word[slug(text)];
  return words.phrase[code]?.replace(/\{\{([a-h])\}\}/g, (_, name) =>
    word(args["abcdefgh".indexOf(name)] ?? ""),
  );
}

/** usePhrase says a phrase; lang is set when it is not the reader's. */
export function usePhrase(): (phrase: Phrase) => { text: string; lang?: "en" } {
  const { i18n } = useTranslation();
  const language = i18n.language;
  const words = useQuery({
    queryKey: ["phrases", language],
    queryFn: async () => (await load[language]?.())?.default ?? null,
    enabled: language in load,
    staleTime: Number.POSITIVE_INFINITY,
  }).data;
  return (phrase) => {
    const text = words ? say(phrase, words, language) : undefined;
    if (text !== undefined) return { text };
    return { text: phrase.text ?? "", ...(language !== "en" && { lang: "en" as const }) };
  };
}

export function Said({ phrase, className }: { phrase: Phrase; className?: string }) {
  const { text, lang } = usePhrase()(phrase);
  return (
    <span lang={lang} className={className}>
      {text}
    </span>
  );
}
