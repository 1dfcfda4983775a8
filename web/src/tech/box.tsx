/** @jsxImportSource preact */
import { useState } from "preact/hooks";
import type { Box, BoxCare, Ticket, Visit, VisitList } from "../api/generated";
import { visitsPath } from "./home";
import { act, newId, useAsk } from "./net";
import { Age, dayOf, Frame, Icon, Missing, Note, State } from "./parts";
import { go } from "./way";
import { t, word } from "./words";
import { type Done, TicketCard, WorkForm, worksOf } from "./work";

const over = new Set(["done", "verified", "closed"]);
const sendable = new Set(["open", "acknowledged", "reopened"]);

export function BoxPage({ id }: { id: string }) {
  const box = useAsk<Box>(`/boxes/${id}`, 10_000);
  const care = useAsk<BoxCare>(`/boxes/${id}/care`, 60_000);
  const visits = useAsk<VisitList>(visitsPath);
  const [done, setDone] = useState<Done>({});
  const [note, setNote] = useState("");
  if (!box.data)
    return (
      <Frame title={id}>
        <Missing problem={box.problem} />
      </Frame>
    );
  const { name, site, link, health, latest } = box.data;
  const tickets = care.data?.tickets.filter((k) => !over.has(k.state)) ?? [];
  const visit = visits.data?.items.find((v) => tickets.some((k) => k.visit === v.id));
  const hot = latest.temp_die_celsius;
  const work = worksOf(id, done);
  const submit = async () => {
    const id = newId();
    const mine = tickets.filter((k) => sendable.has(k.state)).map((k) => k.id);
    await act({
      id,
      kind: "work",
      about: name,
      path: "/visits",
      body: {
        site,
        done: true,
        work,
        ...(mine.length > 0 && { tickets: mine }),
        ...(note.trim() && { note: note.trim() }),
      },
    });
    go("/t/steps");
  };
  return (
    <Frame title={name}>
      <p>
        {site}
        {care.data?.upkeep.place && <> · {care.data.upkeep.place}</>}
      </p>
      <div class="states">
        <State group="link" name={link} />
        <State group="health" name={health} />
        {hot && (
          <span class="state">
            {t("box.hot")} {Math.round(hot.value)} °C
          </span>
        )}
      </div>
      <Age at={box.at} problem={box.problem} />
      {care.data?.photo && (
        <img class="photo" loading="lazy" alt={t("box.photo", { name })} src={`/api/v1/boxes/${id}/photo`} />
      )}
      <h2>{t("box.todo")}</h2>
      {!care.data && <Missing problem={care.problem} />}
      {care.data && tickets.length === 0 && <p class="soft">{t("box.nothing")}</p>}
      {tickets.map((k) => (
        <TicketCard ticket={k} key={k.id} />
      ))}
      {visit ? (
        <p>
          <a class="button main" href={`/t/v/${visit.id}`}>
            {t("box.visit", { id: visit.id, site })}
            <Icon name="next" />
          </a>
        </p>
      ) : (
        <form
          onSubmit={(e) => {
            e.preventDefault();
            if (work.length > 0) void submit();
          }}
        >
          <WorkForm title={t("done.title")} done={done} change={setDone} />
          <NoteField note={note} change={setNote} />
          <div class="act">
            <button type="submit" class="button main" disabled={work.length === 0}>
              {work.length === 0 ? t("done.need") : t("done.box")}
            </button>
          </div>
        </form>
      )}
    </Frame>
  );
}

const NoteField = ({ note, change }: { note: string; change: (note: string) => void }) => (
  <label class="field">
    {t("done.note")}
    <textarea rows={2} maxLength={2000} value={note} onInput={(e) => change(e.currentTarget.value)} />
  </label>
);

export function VisitPage({ id }: { id: string }) {
  const visit = useAsk<Visit>(`/visits/${id}`);
  const list = useAsk<{ items: Ticket[] }>(
    `/tickets?page_size=200&filter=${encodeURIComponent(`visit = "${id}"`)}`,
  );
  const [arrived, setArrived] = useState(false);
  const [done, setDone] = useState<Record<string, Done>>({});
  const [noFault, setNoFault] = useState(false);
  const [note, setNote] = useState("");
  const v = visit.data;
  if (!v)
    return (
      <Frame title={id}>
        <Missing problem={visit.problem} />
      </Frame>
    );
  const tickets = list.data?.items.filter((k) => v.tickets.includes(k.id)) ?? [];
  const boxes = [...new Map(tickets.filter((k) => k.box).map((k) => [k.box, k.box_name ?? ""])).entries()];
  const work = boxes.flatMap(([box]) => worksOf(box ?? "", done[box ?? ""] ?? {}));
  const path = `/visits/${id}/actions`;
  const arrive = async () => {
    setArrived(true);
    await act({ id: newId(), kind: "arrive", about: v.site, path, body: { action: "arrive" } });
  };
  const submit = async () => {
    await act({
      id: newId(),
      kind: "done",
      about: v.site,
      path,
      body: {
        action: "done",
        work,
        ...(noFault && { no_fault_found: true }),
        ...(note.trim() && { note: note.trim() }),
      },
    });
    go("/t/steps");
  };
  const ready = work.length > 0 || noFault;
  return (
    <Frame title={t("visit.at", { site: v.site })}>
      <p>
        {dayOf(v)}
        {v.assignee && <> · {v.assignee}</>} <small>{v.id}</small>
      </p>
      <Age at={visit.at} problem={visit.problem} />
      {v.parts.length > 0 && (
        <p>
          <strong>{t("visit.parts")}:</strong>{" "}
          {v.parts.map((p) => `${p.count} × ${word("part", p.part)}`).join(", ")}
        </p>
      )}
      {v.note && <p>{v.note}</p>}
      {v.ended ? (
        <Note icon="ok" look="ok">
          {t("visit.ended")}
        </Note>
      ) : (
        <>
          {v.state === "planned" && !arrived && (
            <p>
              <button type="button" class="button" onClick={() => void arrive()}>
                {t("visit.here")}
              </button>
            </p>
          )}
          {!list.data && <Missing problem={list.problem} />}
          {tickets
            .filter((k) => !k.box)
            .map((k) => (
              <TicketCard ticket={k} box key={k.id} />
            ))}
          <form
            onSubmit={(e) => {
              e.preventDefault();
              if (ready) void submit();
            }}
          >
            {boxes.map(([box, name]) => (
              <section key={box}>
                <h2>
                  <a href={`/t/b/${box}`}>{name}</a>
                </h2>
                {tickets
                  .filter((k) => k.box === box)
                  .map((k) => (
                    <TicketCard ticket={k} key={k.id} />
                  ))}
                <details>
                  <summary class="button" style={{ marginTop: "0.5rem" }}>
                    {t("done.title")} {Object.keys(done[box ?? ""] ?? {}).length > 0 && <Icon name="ok" />}
                  </summary>
                  <WorkForm
                    title={name}
                    done={done[box ?? ""] ?? {}}
                    change={(d) => setDone({ ...done, [box ?? ""]: d })}
                  />
                </details>
              </section>
            ))}
            <label class="check">
              <input type="checkbox" checked={noFault} onChange={() => setNoFault(!noFault)} />
              <span>{t("visit.noFault")}</span>
            </label>
            <NoteField note={note} change={setNote} />
            <div class="act">
              <button type="submit" class="button main" disabled={!ready}>
                {ready ? t("visit.over") : t("visit.need")}
              </button>
            </div>
          </form>
        </>
      )}
    </Frame>
  );
}
