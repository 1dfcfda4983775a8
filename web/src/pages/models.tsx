// Models: every pushed version, what it takes and gives, and how many boxes run it.
import { useQuery } from "@tanstack/react-query";
import { Link } from "@tanstack/react-router";
import { Fragment } from "react";
import { useTranslation } from "react-i18next";
import type { Model, ModelVersion, TensorSpec } from "../api/generated";
import { modelsQuery, releasesQuery } from "../api/queries";
import { bytes } from "../format";
import { Ago, Card, Command, Empty, Fault, Loading, Page, Scroll } from "../ui/parts";
import { TrustNear, TrustRoles } from "./trustroles";

export function ModelsPage() {
  const { t } = useTranslation();
  const models = useQuery(modelsQuery);
  return (
    <Page
      title={t("models.title")}
      aside={models.data && t("count.models", { count: models.data.items.length })}
    >
      {models.error && <Fault error={models.error} retry={() => void models.refetch()} />}
      {models.isPending && <Loading height={300} />}
      <div className="grid grid-cols-[minmax(0,1fr)] gap-3">
        <TrustNear />
        {models.data?.items.length === 0 && (
          <Card>
            <Empty title={t("models.empty")}>
              <p>{t("models.emptyHint")}</p>
              <Command>edgeherd model push ./my-model</Command>
            </Empty>
          </Card>
        )}
        {models.data?.items.map((model) => (
          <ModelCard key={model.name} model={model} />
        ))}
        {models.data && <Releases />}
        {models.data && <TrustRoles />}
      </div>
    </Page>
  );
}

function ModelCard({ model }: { model: Model }) {
  const { t, i18n } = useTranslation();
  const newest = model.versions[0];
  const running = model.versions.reduce((sum, v) => sum + v.running, 0);
  return (
    <Card
      title={model.name}
      aside={
        running > 0 ? (
          <Link to="/" search={{ q: `model:"${model.name}:"` }} className="link">
            {t("models.runsOn", { count: running })}
          </Link>
        ) : (
          t("models.runsNowhere")
        )
      }
    >
      {newest?.description && <p className="px-3 pb-2 text-soft">{newest.description}</p>}
      <Adoption versions={model.versions} />
      <Scroll stack label={t("models.versionsOf", { name: model.name })}>
        <table className="grid-table">
          <thead>
            <tr>
              <th scope="col">{t("models.version")}</th>
              <th scope="col">{t("models.running")}</th>
              <th scope="col">{t("models.desired")}</th>
              <th scope="col">{t("models.size")}</th>
              <th scope="col">{t("models.licence")}</th>
              <th scope="col">{t("models.pushed")}</th>
              <th scope="col">{t("models.digest")}</th>
            </tr>
          </thead>
          <tbody>
            {model.versions.map((v) => (
              <tr key={v.digest}>
                <td className="font-semibold whitespace-nowrap">{v.version}</td>
                <td className="num whitespace-nowrap">
                  <BoxCount version={v} count={v.running} />
                </td>
                <td className="num whitespace-nowrap">{t("count.boxes", { count: v.desired })}</td>
                <td className="num whitespace-nowrap">{bytes(v.size_bytes, i18n.language)}</td>
                <td className="whitespace-nowrap">{v.licence || "–"}</td>
                <td className="whitespace-nowrap">
                  <Ago time={v.pushed} />
                </td>
                <td className="code text-soft" title={v.digest}>
                  {v.digest.replace("sha256:", "").slice(0, 12)}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </Scroll>
      {newest && <SignatureOf version={newest} />}
    </Card>
  );
}

function BoxCount({ version, count }: { version: ModelVersion; count: number }) {
  const { t } = useTranslation();
  const words = t("count.boxes", { count });
  if (count === 0) return <span className="text-soft">{words}</span>;
  return (
    <Link to="/" search={{ q: `model:"${version.name}:${version.version}"` }} className="link">
      {words}
    </Link>
  );
}

/** Adoption is a bar with a part for each version that runs; the table has the numbers. */
function Adoption({ versions }: { versions: ModelVersion[] }) {
  if (versions.filter((v) => v.running > 0).length < 2) return null;
  return (
    <div className="mx-3 mb-1 flex h-5 gap-px overflow-hidden rounded text-xs" aria-hidden="true">
      {versions.map((v, i) =>
        v.running > 0 ? (
          <div
            key={v.digest}
            style={{ flexGrow: v.running }}
            className={`min-w-1 basis-0 truncate px-1.5 leading-5 ${i === 0 ? "bg-accent text-accent-ink" : "hatched bg-sunk text-text"}`}
          >
            {v.version}
          </div>
        ) : null,
      )}
    </div>
  );
}

function SignatureOf({ version }: { version: ModelVersion }) {
  const { t } = useTranslation();
  const { inputs, outputs } = version.signature;
  return (
    <details className="border-t border-line px-3 py-1.5">
      <summary className="min-h-6 text-soft">
        {t("models.signature", { version: version.version })}
        <span className="ml-2 text-xs">
          {t("models.tensors", { inputs: inputs?.length ?? 0, outputs: outputs?.length ?? 0 })}
        </span>
      </summary>
      <dl className="code mt-1 grid gap-x-4 gap-y-0.5 pb-2 sm:grid-cols-[auto_minmax(0,1fr)]">
        {(
          [
            ["models.input", inputs],
            ["models.output", outputs],
          ] as const
        ).map(([word, tensors]) => (
          <Fragment key={word}>
            {(tensors ?? []).map((tensor) => (
              <Fragment key={tensor.name}>
                <dt className="text-soft">
                  {t(word)} {tensor.name}
                </dt>
                <dd className="min-w-0 pl-4 sm:pl-0">{shapeOf(tensor)}</dd>
              </Fragment>
            ))}
          </Fragment>
        ))}
      </dl>
    </details>
  );
}

/** shapeOf writes a tensor as type and shape; a dimension that may vary is "?". */
export function shapeOf(tensor: TensorSpec): string {
  const shape = (tensor.shape ?? []).map((d) => (d < 0 ? "?" : String(d)));
  return `${tensor.datatype}[${shape.join(", ")}]`;
}

function Releases() {
  const { t } = useTranslation();
  const releases = useQuery(releasesQuery);
  return (
    <Card title={t("releases.title")} aside={t("releases.what")}>
      {releases.error ? (
        <Fault error={releases.error} retry={() => void releases.refetch()} />
      ) : !releases.data ? (
        <Loading height={60} />
      ) : releases.data.items.length === 0 ? (
        <p className="px-3 pb-3 text-soft">{t("releases.empty")}</p>
      ) : (
        <Scroll stack label={t("releases.title")}>
          <table className="grid-table">
            <thead>
              <tr>
                <th scope="col">{t("models.version")}</th>
                <th scope="col">{t("models.running")}</th>
                <th scope="col">{t("releases.platforms")}</th>
                <th scope="col">{t("models.pushed")}</th>
              </tr>
            </thead>
            <tbody>
              {releases.data.items.map((r) => (
                <tr key={r.digest}>
                  <td className="font-semibold">{r.version}</td>
                  <td className="num whitespace-nowrap">{t("count.boxes", { count: r.running })}</td>
                  <td className="code">{r.platforms.join(", ")}</td>
                  <td>
                    <Ago time={r.pushed} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </Scroll>
      )}
    </Card>
  );
}
