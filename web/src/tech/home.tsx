/** @jsxImportSource preact */
import { useState } from "preact/hooks";
import type { BoxList, TicketList, VisitList } from "../api/generated";
import { signOut, useAsk, who } from "./net";
import { Age, BoxRow, dayOf, Frame, Icon, Missing } from "./parts";
import { go, tokenOf } from "./way";
import { type Language, language, languages, speak, t, word } from "./words";

const open = encodeURIComponent('open = true AND NOT level = "watch" AND NOT state = "done"');
export const ticketsPath = `/tickets?page_size=200&order_by=${encodeURIComponent("level desc")}&filter=${open}`;
export const boxesPath = "/boxes?page_size=500&order_by=name";
export const visitsPath = "/visits?open=true";
const shownBoxes = 30;

export function Home() {
  const tickets = useAsk<TicketList>(ticketsPath, 60_000);
  const visits = useAsk<VisitList>(visitsPath, 60_000);
  const boxes = useAsk<BoxList>(boxesPath, 60_000);
  return (
    <Frame title={t("title")} home>
      <Age at={boxes.at} problem={boxes.problem} />
      <p>
        <a class="button main" href="/t/c/">
          <Icon name="plus" />
          {t("claim.begin")}
        </a>
      </p>
      {visits.data && visits.data.items.length > 0 && (
        <>
          <h2>{t("visits")}</h2>
          {visits.data.items.map((v) => (
            <a class="row" href={`/t/v/${v.id}`} key={v.id}>
              <span>
                <strong>{v.site}</strong> <small>{v.id}</small>
                <br />
                <small>
                  {dayOf(v)} · {t("visit.boxes", { count: v.tickets.length })}
                </small>
              </span>
              <Icon name="next" />
            </a>
          ))}
        </>
      )}
      <h2>{t("due")}</h2>
      {!tickets.data && <Missing problem={tickets.problem} />}
      {tickets.data?.items.length === 0 && <p class="soft">{t("due.none")}</p>}
      {tickets.data?.items.map((k) => (
        <a class="row" href={k.box ? `/t/b/${k.box}` : k.visit ? `/t/v/${k.visit}` : "#"} key={k.id}>
          <span>
            <strong>{k.box_name || t("box.whole", { site: k.site })}</strong>{" "}
            <small>{k.box_name ? k.site : ""}</small>
            <br />
            <small>
              {word("todo", k.cause) === k.cause ? <span lang="en">{k.do}</span> : word("todo", k.cause)}
            </small>
          </span>
          {k.level === "urgent" ? (
            <span class="state hot">
              <Icon name="urgent" />
              {word("health", k.level)}
            </span>
          ) : (
            <Icon name="next" />
          )}
        </a>
      ))}
      <h2>{t("boxes")}</h2>
      {boxes.data ? <Boxes list={boxes.data} /> : <Missing problem={boxes.problem} />}
      <Foot />
    </Frame>
  );
}

function Boxes({ list }: { list: BoxList }) {
  const [want, set] = useState("");
  const find = want.trim().toLowerCase();
  const fit = list.items.filter((b) => `${b.name} ${b.site} ${b.id}`.toLowerCase().includes(find));
  const total = find ? fit.length : list.total_size;
  return (
    <>
      <input
        type="search"
        aria-label={t("boxes.find")}
        placeholder={t("boxes.find")}
        value={want}
        onInput={(e) => set(e.currentTarget.value)}
      />
      {fit.slice(0, shownBoxes).map((b) => (
        <BoxRow box={b} key={b.id} />
      ))}
      {fit.length === 0 && <p class="soft">{t("boxes.none")}</p>}
      {total > Math.min(fit.length, shownBoxes) && (
        <p class="soft">{t("boxes.more", { shown: Math.min(fit.length, shownBoxes), total })}</p>
      )}
    </>
  );
}

function Foot() {
  return (
    <footer>
      <label class="field">
        {t("language")}
        <select
          value={language}
          onChange={(e) => void speak(e.currentTarget.value as Language).then(() => go())}
        >
          {Object.entries(languages).map(([tag, name]) => (
            <option value={tag} key={tag} lang={tag}>
              {name}
            </option>
          ))}
        </select>
      </label>
      {who && (
        <p>
          <button type="button" class="button" onClick={() => void signOut()}>
            {t("signOut")} ({who.user})
          </button>
        </p>
      )}
    </footer>
  );
}

/** Scan is for who cannot scan: the label has the token's name in words, too. */
export function Scan() {
  const [text, set] = useState("");
  const token = tokenOf(text);
  return (
    <Frame title={t("claim.begin")}>
      <p>{t("claim.scan")}</p>
      <form
        onSubmit={(e) => {
          e.preventDefault();
          if (token) go(`/t/c/${token}`);
        }}
      >
        <label class="field">
          {t("claim.token")}
          <input
            class="code"
            autoCapitalize="characters"
            autoComplete="off"
            spellcheck={false}
            maxLength={9}
            value={text}
            onInput={(e) => set(e.currentTarget.value.toUpperCase())}
          />
        </label>
        {text.length >= 8 && !token && (
          <p class="hot" role="alert">
            {t("claim.tokenBad")}
          </p>
        )}
        <div class="act">
          <button type="submit" class="button main" disabled={!token}>
            {t("claim.next")}
          </button>
        </div>
      </form>
    </Frame>
  );
}
