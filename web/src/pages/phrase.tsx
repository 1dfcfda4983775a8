// Sentences of boxes and of the controller in the reader's language. Each has a
// code and arguments (internal/phrase in Go); what has no code, or one of a newer
// box, is shown in English. They have dictionaries of their own, loaded by the
// first page that needs one; English needs none.
import { useQuery } from "@tanstack/react-query";
import { useTranslation } from "react-i18next";
import { regional } from "../format";

export type Phrase = { text?: string; code?: string; args?: string[]; in?: Record<string, Phrase> };
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

/** form is the sentence of a code; where it has plurals, the first argument counts. */
function form(code: string, first: string | undefined, words: Phrases, language: string): string | undefined {
  if (!/^\d+$/.test(first ?? "")) return words.phrase[code];
  const plural = new Intl.PluralRules(language).select(Number(first));
  return words.phrase[`${code}_${plural}`] ?? words.phrase[code];
}

/**
 * say puts the arguments of a phrase into the sentence of a language; undefined: it
 * has none. Where arguments are names of boxes and people, they stay as they are.
 */
export function say(phrase: Phrase, words: Phrases, language: string, names = false): string | undefined {
  const word = (arg: string): string => {
    if (numeric.test(arg)) return figure(arg, language);
    const own = words.word[slug(arg)];
    if (own) return own;
    if (arg.includes(", ")) return arg.split(", ").map(word).join(", ");
    // A reading: "inlet 24 °C".
    const [, first = "", rest] = /^([a-z]+) (\S+(?: \S+)?)$/.exec(arg) ?? [];
    return words.word[first] ? `${words.word[first]} ${rest}` : arg;
  };
  const put = (arg: string): string => (numeric.test(arg) ? figure(arg, language) : arg);
  const { text = "", code, args = [], in: within = {} } = phrase;
  if (!code) return names ? undefined : words.word[slug(text)];
  return form(code, args[0], words, language)?.replace(/\{\{([a-h])\}\}/g, (_, name) => {
    const i = "abcdefgh".indexOf(name);
    const arg = args[i] ?? "";
    const part = within[i];
    if (part) return part.code ? (say(part, words, language, names) ?? arg) : arg;
    return names && code !== "word" ? put(arg) : word(arg);
  });
}

/** usePhrase says a phrase; lang is set when it is not the reader's. */
export function usePhrase(): (phrase: Phrase, names?: boolean) => { text: string; lang?: "en" } {
  const { i18n } = useTranslation();
  const language = i18n.language;
  const words = useQuery({
    queryKey: ["phrases", language],
    queryFn: async () => (await load[language]?.())?.default ?? null,
    enabled: language in load,
    staleTime: Number.POSITIVE_INFINITY,
  }).data;
  return (phrase, names) => {
    const text = words ? say(phrase, words, language, names) : undefined;
    if (text !== undefined) return { text };
    return { text: phrase.text ?? "", ...(language !== "en" && { lang: "en" as const }) };
  };
}

/** Told is an English sentence that stands beside its phrase, with names in it. */
export function Told({ text, said, className }: { text?: string; said?: Phrase; className?: string }) {
  // Where nothing is said nobody asks for words: each of 10,000 boxes of a rollout has two of these.
  return text ? <Said phrase={{ ...said, text }} names className={className} /> : null;
}

type SaidProps = { phrase: Phrase; names?: boolean; className?: string };

export function Said({ phrase, names, className }: SaidProps) {
  const { text, lang } = usePhrase()(phrase, names);
  return (
    <span lang={lang} className={className}>
      {text}
    </span>
  );
}
