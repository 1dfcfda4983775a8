/** @jsxImportSource preact */
// Everything that was done on this phone and what became of it.
import { useState } from "preact/hooks";
import { queue, sync, useNet, who } from "./net";
import { Frame, Icon } from "./parts";
import type { Action } from "./queue";
import { ago, t } from "./words";

const looks = { queued: ["waiting", "warm"], sent: ["ok", "ok"], rejected: ["refused", "hot"] } as const;

export function StepsPage() {
  useNet();
  const list = [...queue.items].reverse();
  return (
    <Frame title={t("out.title")}>
      {list.length === 0 && <p class="soft">{t("out.none")}</p>}
      {list.map((a) => (
        <Step action={a} key={a.id} />
      ))}
      {list.some((a) => a.state === "queued") && (
        <div class="act">
          <button type="button" class="button main" onClick={() => void sync()}>
            {t("out.now")}
          </button>
        </div>
      )}
    </Frame>
  );
}

function Step({ action: a }: { action: Action }) {
  const [sure, setSure] = useState(false);
  const [icon, look] = looks[a.state];
  const other = a.state === "queued" && who && a.by !== "" && a.by !== who.user;
  return (
    <div class="card">
      <p>
        <strong>{t(`kind.${a.kind}`, { about: a.about })}</strong>
      </p>
      <p>
        <span class={`state ${look}`}>
          <Icon name={icon} />
          {t(a.state === "rejected" ? "out.refused" : `out.${a.state}`)}
        </span>{" "}
        <small>{ago(a.made)}</small>
      </p>
      {other && <p>{t("out.other", { name: a.by })}</p>}
      {a.why && (
        <p lang="en">
          {a.why}
          {a.hint && (
            <>
              <br />
              <small>{a.hint}</small>
            </>
          )}
        </p>
      )}
      {a.kind === "claim" && a.state !== "rejected" && (
        <a class="row" href={`/t/done/${a.id}`}>
          <span>{t("claim.follow", { code: (a.body as { code: string }).code })}</span>
          <Icon name="next" />
        </a>
      )}
      {a.state !== "sent" && (
        <div class={a.state === "rejected" ? "two" : ""}>
          {a.state === "rejected" && (
            <button type="button" class="button" onClick={() => void queue.again(a.id).then(sync)}>
              {t("out.again")}
            </button>
          )}
          <button type="button" class="button" onClick={() => (sure ? void queue.drop(a.id) : setSure(true))}>
            {sure ? t("out.dropSure") : t("out.drop")}
          </button>
        </div>
      )}
    </div>
  );
}
