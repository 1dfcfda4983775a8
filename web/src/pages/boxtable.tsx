// The boxes as rows. The controller filters, sorts and pages; the table draws
// only the rows in view, so its length does not matter.
import { keepPreviousData, useInfiniteQuery } from "@tanstack/react-query";
import { getRouteApi, Link } from "@tanstack/react-router";
import { useWindowVirtualizer } from "@tanstack/react-virtual";
import { type ReactNode, useEffect, useLayoutEffect, useRef, useState } from "react";
import { useTranslation } from "react-i18next";
import type { Box } from "../api/generated";
import { boxListQuery } from "../api/queries";
import { percent, signedPercent } from "../format";
import { useInterval } from "../ui/forecast";
import { Ago, Card, Empty, Fault, Loading, Reading, Scroll, Simulated } from "../ui/parts";
import { SortHead } from "../ui/sort";
import { State, useWord } from "../ui/state";

const route = getRouteApi("/");
const rowHeight = 48;

type Column = {
  key: string;
  field?: string; // what the controller sorts by
  show: string; // from which width the column has room
  cell: (box: Box) => ReactNode;
};

const columns: Column[] = [
  {
    key: "name",
    field: "name",
    show: "",
    cell: (box) => (
      <>
        <Link
          to="/boxes/$id"
          params={{ id: box.id }}
          title={box.name}
          className="link font-medium md:block md:max-w-60 md:truncate"
        >
          {box.name}
        </Link>
        <span className="block text-xs text-soft">
          <span className="md:hidden">{box.site} </span>
          {box.simulated && <Simulated />}
        </span>
        {box.state !== "active" && (
          <span className="block text-xs">
            <State kind="standing" value={box.state} />
          </span>
        )}
      </>
    ),
  },
  {
    key: "site",
    field: "site",
    show: "hidden md:table-cell",
    cell: (box) => (
      <span title={box.site} className="block max-w-48 truncate">
        {box.site}
      </span>
    ),
  },
  { key: "health", field: "health", show: "", cell: (box) => <Conditions box={box} /> },
  {
    key: "link",
    field: "link",
    show: "hidden sm:table-cell",
    cell: (box) => (
      <>
        <State kind="link" value={box.link} />
        <span className="block text-xs text-soft">
          <Ago time={box.last_seen} />
        </span>
      </>
    ),
  },
  {
    key: "temp_die",
    field: "temp_die",
    show: "text-right",
    cell: (box) => <Reading name="temp_die_celsius" value={box.latest.temp_die_celsius} />,
  },
  {
    key: "resistance",
    field: "resistance",
    show: "hidden xl:table-cell text-right",
    cell: (box) => <Resistance box={box} />,
  },
  {
    key: "fan",
    show: "hidden min-[1760px]:table-cell text-right",
    cell: (box) => <Reading name="fan_rpm" value={box.latest.fan_rpm} />,
  },
  {
    key: "power",
    show: "hidden min-[1760px]:table-cell text-right",
    cell: (box) => <Reading name="power_watts" value={box.latest.power_watts} />,
  },
  {
    key: "update",
    field: "update",
    show: "hidden md:table-cell",
    cell: (box) => <State kind="update" value={box.update} old={isAway(box)} />,
  },
  {
    key: "models",
    field: "model",
    show: "hidden min-[1400px]:table-cell",
    cell: (box) => <Models box={box} />,
  },
  { key: "reads", show: "hidden min-[1400px]:table-cell text-right", cell: (box) => <Right box={box} /> },
];

/** Conditions is the box's health; on a phone also what the hidden columns would warn of. */
function Conditions({ box }: { box: Box }) {
  const word = useWord();
  return (
    <>
      <State kind="health" value={box.health} old={isAway(box)} />
      {box.thermal.causes[0] && (
        <span className="block text-xs text-soft">{word("heatCause", box.thermal.causes[0])}</span>
      )}
      <span className="block text-xs sm:hidden">
        {box.link !== "live" ? <State kind="link" value={box.link} /> : null}
        {box.link === "live" && box.update !== "current" ? <State kind="update" value={box.update} /> : null}
      </span>
    </>
  );
}

/** Resistance is the heat of the same work against the clean box, with the forecast if it is near. */
function Resistance({ box }: { box: Box }) {
  const { i18n } = useTranslation();
  const say = useInterval();
  const { thermal } = box;
  if (!thermal.known) return <span className="text-soft">–</span>;
  const { throttles_low_days: low, throttles_high_days: high } = thermal;
  return (
    <span className="num whitespace-nowrap">
      {signedPercent(thermal.resistance_percent, i18n.language)}
      {low !== undefined && high !== undefined && low < 90 && (
        <span className="block text-xs text-soft">{say(low, high)}</span>
      )}
    </span>
  );
}

const isAway = (box: Box) => box.link === "silent" || box.link === "never";

function Models({ box }: { box: Box }) {
  const { t } = useTranslation();
  if (box.models.length === 0) return <span className="text-soft">{t("box.noModel")}</span>;
  const words = box.models.map((m) => `${m.name} ${m.running_version || m.desired_version || ""}`);
  return (
    <span className="line-clamp-2 min-w-28 max-w-72 text-xs" title={words.join(", ")}>
      {words.join(", ")}
    </span>
  );
}

function Right({ box }: { box: Box }) {
  const { t, i18n } = useTranslation();
  const { total, checked, right } = box.reads;
  if (total === 0) return <span className="text-soft">–</span>;
  return (
    <span className="num">
      {checked > 0 ? percent(right, checked, i18n.language) : "–"}
      <span className="block text-xs text-soft">{t("count.reads", { count: total })}</span>
    </span>
  );
}

export function BoxTable() {
  const { t } = useTranslation();
  const { q = "", order = "name" } = route.useSearch();
  const list = useInfiniteQuery({ ...boxListQuery(q, order), placeholderData: keepPreviousData });
  const boxes = list.data?.pages.flatMap((page) => page.items) ?? [];
  const total = list.data?.pages[0]?.total_size ?? 0;
  if (list.error && !list.data) {
    return (
      <Card>
        <Fault error={list.error} retry={() => void list.refetch()} />
      </Card>
    );
  }
  return (
    <Card
      title={t("table.title")}
      aside={
        list.data && (
          <span role="status">
            {boxes.length < total
              ? t("table.part", { shown: boxes.length, count: total })
              : t("count.boxes", { count: total })}
          </span>
        )
      }
      className={list.isPlaceholderData ? "opacity-70" : ""}
    >
      {!list.data ? (
        <Loading height={300} />
      ) : boxes.length === 0 ? (
        <Empty title={t("table.none")}>{t("table.noneHint")}</Empty>
      ) : (
        <Rows
          boxes={boxes}
          more={list.hasNextPage}
          loading={list.isFetchingNextPage}
          next={() => void list.fetchNextPage()}
        />
      )}
    </Card>
  );
}

type RowsProps = { boxes: Box[]; more: boolean; loading: boolean; next: () => void };

function Rows({ boxes, more, loading, next }: RowsProps) {
  const { t } = useTranslation();
  const body = useRef<HTMLTableSectionElement>(null);
  const [top, setTop] = useState(0);
  // The map above changes its height, and with it where the rows begin.
  useLayoutEffect(() => {
    const measure = () => {
      const at = body.current ? body.current.getBoundingClientRect().top + window.scrollY : 0;
      setTop((old) => (Math.abs(old - at) < 1 ? old : at));
    };
    measure();
    const watch = new ResizeObserver(measure);
    watch.observe(document.body);
    return () => watch.disconnect();
  }, []);
  const rows = useWindowVirtualizer({
    count: boxes.length,
    estimateSize: () => rowHeight,
    overscan: 12,
    scrollMargin: top,
  });
  const shown = rows.getVirtualItems();
  const last = shown.at(-1)?.index ?? 0;
  useEffect(() => {
    if (more && !loading && last >= boxes.length - 20) next();
  }, [more, loading, last, boxes.length, next]);
  const before = (shown[0]?.start ?? top) - top;
  const after = rows.getTotalSize() - ((shown.at(-1)?.end ?? top) - top);
  return (
    <>
      <Scroll label={t("table.title")}>
        <table className="grid-table" aria-rowcount={boxes.length + 1}>
          <thead>
            <tr>
              {columns.map((column) => (
                <Head key={column.key} column={column} />
              ))}
            </tr>
          </thead>
          <tbody ref={body}>
            {before > 0 && <Gap height={before} />}
            {shown.map((row) => {
              const box = boxes[row.index] as Box;
              return (
                <tr
                  key={box.id}
                  ref={rows.measureElement}
                  data-index={row.index}
                  aria-rowindex={row.index + 2}
                  style={{ height: rowHeight }}
                >
                  {columns.map((column) => (
                    <td key={column.key} className={column.show}>
                      {column.cell(box)}
                    </td>
                  ))}
                </tr>
              );
            })}
            {after > 0 && <Gap height={after} />}
          </tbody>
        </table>
      </Scroll>
      {more && (
        <div className="p-2 text-center">
          <button type="button" className="button" disabled={loading} onClick={next}>
            {loading ? t("loading") : t("table.more")}
          </button>
        </div>
      )}
    </>
  );
}

function Gap({ height }: { height: number }) {
  return (
    // biome-ignore lint/a11y/noAriaHiddenOnFocusable: a row of nothing; it cannot take focus
    <tr aria-hidden="true">
      <td colSpan={columns.length} style={{ height, padding: 0, border: 0 }} />
    </tr>
  );
}

function Head({ column }: { column: Column }) {
  const { t } = useTranslation();
  const { order = "name" } = route.useSearch();
  const navigate = route.useNavigate();
  return (
    <SortHead
      label={t(`column.${column.key}`)}
      field={column.field}
      order={order}
      className={column.show}
      go={(next) =>
        void navigate({
          search: (s) => ({ ...s, order: next === "name" ? undefined : next }),
          resetScroll: false,
        })
      }
    />
  );
}
