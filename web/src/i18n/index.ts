// Four languages, each a file of its own that is loaded when it is chosen.
import i18next from "i18next";
import { initReactI18next } from "react-i18next";

export const languages = { en: "English", de: "Deutsch", pl: "Polski", zh: "中文" } as const;
export type Language = keyof typeof languages;

const load: Record<Language, () => Promise<{ default: object }>> = {
  en: () => import("./en.json"),
  de: () => import("./de.json"),
  pl: () => import("./pl.json"),
  zh: () => import("./zh.json"),
};

const key = "edgeherd.language";

const isLanguage = (text: string | null | undefined): text is Language => !!text && text in languages;

/** pick is the first language that the browser's list and ours share. */
export function pick(stored: string | null, wanted: readonly string[]): Language {
  if (isLanguage(stored)) return stored;
  for (const tag of wanted) {
    const base = tag.split("-")[0];
    if (isLanguage(base)) return base;
  }
  return "en";
}

export async function startI18n(): Promise<void> {
  let stored: string | null = null;
  try {
    stored = localStorage.getItem(key);
  } catch {
    // Storage may be forbidden; the browser's language is used then.
  }
  const language = pick(stored, navigator.languages);
  await i18next.use(initReactI18next).init({
    lng: language,
    resources: { [language]: { translation: (await load[language]()).default } },
    interpolation: { escapeValue: false }, // React escapes
    returnNull: false,
  });
  document.documentElement.lang = language;
}

export async function setLanguage(language: Language): Promise<void> {
  const words = await load[language]();
  i18next.addResourceBundle(language, "translation", words.default);
  await i18next.changeLanguage(language);
  document.documentElement.lang = language;
  try {
    localStorage.setItem(key, language);
  } catch {
    // As above: the choice lasts until reload.
  }
}
