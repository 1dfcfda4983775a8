/** @jsxImportSource preact */
// A machine in front of a tech becomes a box: which place, a picture, and the
// code that the machine shows. The code is typed, not shown here and nodded at:
// without a network it is all that names the machine.
import { useEffect, useState } from "preact/hooks";
import type { BoxList, Claim, EnrolToken } from "../api/generated";
import { boxesPath } from "./home";
import { act, newId, queue, useAsk, useNet } from "./net";
import { Age, Frame, Icon, Missing, Note } from "./parts";
import { shrink } from "./photo";
import { codeOf, go } from "./way";
import { t } from "./words";

type Form = { instead: boolean; box: string; name: string; place: string; photo: string; code: string };
const empty: Form = { instead: false, box: "", name: "", place: "", photo: "", code: "" };
const drafts = "edgeherd.claim.";

// A phone closes pages behind the camera: what was typed is kept for the tab.
function draft(token: string): Form {
  try {
    return { ...empty, ...JSON.parse(sessionStorage.getItem(drafts + token) ?? "{}") };
  } catch {
    return empty;
  }
}

function keepDraft(token: string, form: Form | null): void {
  try {
    if (form) sessionStorage.setItem(drafts + token, JSON.stringify(form));
    else sessionStorage.removeItem(drafts + token);
  } catch {
    // Forbidden or full: the page has it still.
  }
}

export function ClaimPage({ token }: { token: string }) {
  useNet();
  const about = useAsk<EnrolToken>(`/enrolment/tokens/${token}`);
  const boxes = useAsk<BoxList>(boxesPath);
  const [form, setForm] = useState(() => draft(token));
  const set = (part: Partial<Form>) => {
    const next = { ...form, ...part };
    setForm(next);
    keepDraft(token, next);
  };
  const site = about.data?.site;
  const bound = about.data?.box
    ? (boxes.data?.items.find((b) => b.id === about.data?.box)?.name ?? about.data.box)
    : "";
  const here = boxes.data?.items.filter((b) => !site || b.site === site) ?? [];
  const over = about.data && (about.data.off || Date.parse(about.data.expires) < Date.now());
  const ready = form.code.length === 7 && (!form.instead || form.box !== "");
  const submit = async () => {
    const id = newId();
    const { instead, box, name, place, photo, code } = form;
    await act({
      id,
      kind: "claim",
      about: (instead ? here.find((b) => b.id === box)?.name : name) || code,
      path: "/claims",
      body: {
        id,
        token,
        code,
        ...(!bound && instead && { box }),
        ...(!bound && !instead && name && { name }),
        ...(place && { place }),
        ...(photo && { photo }),
      },
    });
    keepDraft(token, null);
    go(`/t/done/${id}`);
  };
  return (
    <Frame title={t("claim.title")}>
      {site && (
        <p>
          <strong>{t("claim.at", { site })}</strong> <small>{token}</small>
        </p>
      )}
      {!site && about.problem && about.problem.status !== 401 && (
        <Note
          icon={about.problem.status === 404 ? "refused" : "noNet"}
          look={about.problem.status === 404 ? "hot" : ""}
        >
          {about.problem.status === 404 ? t("claim.notYours") : t("claim.atUnknown")}
        </Note>
      )}
      {over && (
        <Note icon="fault" look="warm">
          {t("claim.over")}
        </Note>
      )}
      <Age at={boxes.at} problem={boxes.problem} />
      <form
        onSubmit={(e) => {
          e.preventDefault();
          if (ready) void submit();
        }}
      >
        <fieldset>
          <legend>{t("claim.where")}</legend>
          {bound ? (
            <p>{t("claim.placeFor", { name: bound })}</p>
          ) : (
            <Where form={form} set={set} boxes={here} />
          )}
          <label class="field">
            {t("claim.place")}
            <small>{t("claim.placeHint")}</small>
            <input
              maxLength={200}
              value={form.place}
              onInput={(e) => set({ place: e.currentTarget.value })}
            />
          </label>
        </fieldset>
        <Photo photo={form.photo} change={(photo) => set({ photo })} />
        <fieldset>
          <legend>{t("claim.code")}</legend>
          <p id="code-hint">
            <small>{t("claim.codeHint")}</small>
          </p>
          <input
            class="code"
            aria-label={t("claim.code")}
            aria-describedby="code-hint"
            inputMode="numeric"
            autoComplete="off"
            placeholder="000-000"
            maxLength={7}
            value={form.code}
            onInput={(e) => {
              e.currentTarget.value = codeOf(e.currentTarget.value);
              set({ code: e.currentTarget.value });
            }}
          />
        </fieldset>
        <div class="act">
          <button type="submit" class="button main" disabled={!ready}>
            {form.code.length < 7
              ? t("claim.need")
              : ready
                ? t("claim.confirm", { code: form.code })
                : t("claim.needBox")}
          </button>
        </div>
      </form>
    </Frame>
  );
}

function Where({
  form,
  set,
  boxes,
}: {
  form: Form;
  set: (part: Partial<Form>) => void;
  boxes: { id: string; name: string; site: string }[];
}) {
  return (
    <>
      <label class="check">
        <input type="radio" name="where" checked={!form.instead} onChange={() => set({ instead: false })} />
        <span>{t("claim.new")}</span>
      </label>
      <label class="check">
        <input type="radio" name="where" checked={form.instead} onChange={() => set({ instead: true })} />
        <span>{t("claim.instead")}</span>
      </label>
      {form.instead ? (
        <label class="field">
          {t("claim.of")}
          <select value={form.box} onChange={(e) => set({ box: e.currentTarget.value })}>
            <option value="">{t("claim.choose")}</option>
            {boxes.map((b) => (
              <option value={b.id} key={b.id}>
                {b.name} ({b.site})
              </option>
            ))}
          </select>
        </label>
      ) : (
        <label class="field">
          {t("claim.name")}
          <small>{t("claim.nameHint")}</small>
          <input
            maxLength={48}
            autoCapitalize="none"
            autoComplete="off"
            spellcheck={false}
            value={form.name}
            onInput={(e) => set({ name: e.currentTarget.value })}
          />
        </label>
      )}
    </>
  );
}

function Photo({ photo, change }: { photo: string; change: (photo: string) => void }) {
  const [bad, setBad] = useState(false);
  const take = async (input: HTMLInputElement) => {
    const file = input.files?.[0];
    if (!file) return;
    try {
      change(await shrink(file));
      setBad(false);
    } catch {
      setBad(true);
    }
    input.value = "";
  };
  return (
    <fieldset>
      <legend>{t("claim.photo")}</legend>
      {photo && (
        <img
          class="photo"
          alt={t("claim.photoIs", { kib: Math.round((photo.length * 3) / 4096) })}
          src={`data:image/jpeg;base64,${photo}`}
        />
      )}
      {bad && (
        <p class="hot" role="alert">
          {t("claim.photoBad")}
        </p>
      )}
      <label class="button" style={{ marginTop: "0.6rem" }}>
        <input
          type="file"
          accept="image/*"
          capture="environment"
          onChange={(e) => void take(e.currentTarget)}
        />
        <Icon name="camera" />
        {photo ? t("claim.retake") : t("claim.take")}
      </label>
    </fieldset>
  );
}

/** DonePage follows a claim until the box is alive. */
export function DonePage({ id }: { id: string }) {
  useNet();
  const action = queue.items.find((a) => a.id === id);
  const sent = !action || action.state === "sent";
  const [alive, setAlive] = useState(false);
  const claim = useAsk<Claim>(sent ? `/claims/${id}` : "", alive ? 0 : 3000);
  const state = claim.data?.state;
  useEffect(() => setAlive(state === "alive" || state === "denied"), [state]);
  const rank =
    state === "alive" ? 3 : state === "issued" ? 2 : state === "approved" || (sent && action) ? 1 : 0;
  const name = claim.data?.name ?? "";
  const code = claim.data?.code ?? (action?.body as { code?: string } | undefined)?.code ?? "";
  if (!action && !claim.data)
    return (
      <Frame title={t("claim.title")}>
        <Missing problem={claim.problem} />
      </Frame>
    );
  const steps = [
    { done: true, text: t("claim.saved") },
    { done: rank >= 1, text: t("claim.told") },
    { done: rank >= 2, text: rank >= 2 ? t("claim.is", { name }) : t("claim.isSoon") },
    { done: rank >= 3, text: rank >= 3 ? t("claim.alive") : t("claim.aliveSoon") },
  ];
  return (
    <Frame title={t("claim.follow", { code })}>
      {action?.state === "rejected" ? (
        <div class="card hot" role="alert">
          <strong lang="en">{action.why}</strong>
          {action.hint && <p lang="en">{action.hint}</p>}
          <div class="two">
            <button
              type="button"
              class="button"
              onClick={() => void queue.again(id).then(() => dispatchEvent(new Event("online")))}
            >
              {t("out.again")}
            </button>
            <a class="button" href="/t/steps">
              {t("out.title")}
            </a>
          </div>
        </div>
      ) : state === "denied" ? (
        <Note icon="refused" look="hot">
          {t("claim.denied")}
        </Note>
      ) : (
        <>
          <ol class="steps" aria-live="polite">
            {steps.map((s) => (
              <li key={s.text} data-done={s.done || undefined}>
                <Icon name={s.done ? "ok" : "todo"} />
                {s.text}
              </li>
            ))}
          </ol>
          {sent && rank < 3 && <p class="soft">{t("claim.wait")}</p>}
        </>
      )}
      {claim.data?.box && (
        <div class="act">
          <a class="button main" href={`/t/b/${claim.data.box}`}>
            {t("claim.open", { name })}
          </a>
        </div>
      )}
    </Frame>
  );
}
