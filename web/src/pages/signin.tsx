// Signing in, and setting a password by an invitation: the two pages that need
// no session.
import { useMutation, useQuery } from "@tanstack/react-query";
import { type FormEvent, type ReactNode, useId, useState } from "react";
import { useTranslation } from "react-i18next";
import { Problem, post } from "../api/client";
import type { Invited, Session } from "../api/generated";
import { peoplePaths, signIn, waysQuery } from "../api/people";
import { takeThen } from "../api/then";
import { Icon } from "../ui/icons";
import { Loading } from "../ui/parts";

const enter = () => location.assign(takeThen());

function Frame({ title, children }: { title: string; children: ReactNode }) {
  return (
    <div className="mx-auto mt-6 w-full max-w-sm">
      <section className="card p-5">
        <h1 className="mb-4">{title}</h1>
        {children}
      </section>
    </div>
  );
}

/** Wrong says what was refused; the controller's words are English. */
function Wrong({ error }: { error: unknown }) {
  const { t } = useTranslation();
  const problem = error instanceof Problem ? error : new Problem(-1, String(error));
  const known =
    problem.status === 0
      ? t("fault.unreachable")
      : problem.status === 401
        ? t("signIn.wrong")
        : problem.status === 429
          ? t("signIn.locked")
          : "";
  return (
    <p role="alert" className="flex gap-2 rounded-md border border-hot bg-hot-tint p-2 text-hot">
      <Icon name="fault" />
      {known || <span lang="en">{problem.message}</span>}
    </p>
  );
}

type InputProps = {
  label: string;
  value: string;
  change: (value: string) => void;
  type?: "password";
  complete: string;
  hint?: string;
};

function Input({ label, value, change, type, complete, hint }: InputProps) {
  const id = useId();
  return (
    <div>
      <label htmlFor={id} className="mb-1 block font-semibold">
        {label}
      </label>
      <input
        id={id}
        type={type ?? "text"}
        className="input w-full"
        autoComplete={complete}
        autoCapitalize="none"
        spellCheck={false}
        required
        aria-describedby={hint ? `${id}-hint` : undefined}
        value={value}
        onChange={(event) => change(event.target.value)}
      />
      {hint && (
        <p id={`${id}-hint`} className="mt-1 text-xs text-soft">
          {hint}
        </p>
      )}
    </div>
  );
}

export function SignInPage() {
  const { t } = useTranslation();
  const ways = useQuery(waysQuery);
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const go = useMutation({ mutationFn: () => signIn(name, password), onSuccess: enter });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    go.mutate();
  };
  // Why the controller sent the browser here (api: turnedAway).
  const refused = new URLSearchParams(location.search).get("refused");
  return (
    <Frame title={t("signIn.title")}>
      {refused && (
        <p role="alert" className="mb-4 flex gap-2 rounded-md border border-hot bg-hot-tint p-2 text-hot">
          <Icon name="fault" />
          {t(`signIn.refused.${refused}`, { defaultValue: t("signIn.refused.again") })}
        </p>
      )}
      {ways.data?.setup && (
        <p className="mb-4 flex gap-2 rounded-md bg-warm-tint p-2 text-warm">
          <Icon name="key" />
          {t("signIn.setup")}
        </p>
      )}
      {ways.data?.provider && (
        <>
          <a href="/login/oidc" className="button primary mb-4 w-full justify-center">
            <Icon name="key" />
            {t("signIn.by", { name: ways.data.provider })}
          </a>
          <p className="mb-3 text-center text-xs text-soft">{t("signIn.or")}</p>
        </>
      )}
      <form onSubmit={submit} className="grid gap-3">
        <Input label={t("signIn.name")} value={name} change={setName} complete="username" />
        <Input
          label={t("signIn.password")}
          type="password"
          value={password}
          change={setPassword}
          complete="current-password"
        />
        {go.error && <Wrong error={go.error} />}
        <button
          type="submit"
          className={`button justify-center ${ways.data?.provider ? "" : "primary"}`}
          disabled={go.isPending}
        >
          {t("signIn.go")}
        </button>
      </form>
      <p className="mt-4 text-xs text-soft">{t("signIn.lost")}</p>
    </Frame>
  );
}

/** SetPasswordPage reads its secret behind the #, which no server ever sees. */
export function SetPasswordPage() {
  const { t } = useTranslation();
  const [secret] = useState(() => location.hash.slice(1));
  const invited = useQuery({
    queryKey: ["invitation", secret],
    queryFn: () => post<Invited>(peoplePaths.invitation, { secret }),
    enabled: secret !== "",
  });
  const [name, setName] = useState("");
  const [password, setPassword] = useState("");
  const [again, setAgain] = useState("");
  const go = useMutation({
    mutationFn: () => post<Session>(peoplePaths.passwords, { secret, name, password }),
    onSuccess: enter,
  });
  const submit = (event: FormEvent) => {
    event.preventDefault();
    go.mutate();
  };
  const title = invited.data?.user === "" ? t("signIn.first") : t("signIn.choose");
  if (secret === "" || invited.error) {
    return (
      <Frame title={t("signIn.usedTitle")}>
        <p>{t("signIn.used")}</p>
      </Frame>
    );
  }
  if (!invited.data) {
    return (
      <Frame title={title}>
        <Loading />
      </Frame>
    );
  }
  const differ = again !== "" && again !== password;
  return (
    <Frame title={title}>
      <form onSubmit={submit} className="grid gap-3">
        {invited.data.user === "" ? (
          <Input
            label={t("signIn.name")}
            value={name}
            change={setName}
            complete="username"
            hint={t("signIn.nameHint")}
          />
        ) : (
          <p>{t("signIn.for", { name: invited.data.user })}</p>
        )}
        <Input
          label={t("signIn.newPassword")}
          type="password"
          value={password}
          change={setPassword}
          complete="new-password"
          hint={t("signIn.passwordHint")}
        />
        <Input
          label={t("signIn.again")}
          type="password"
          value={again}
          change={setAgain}
          complete="new-password"
        />
        {differ && (
          <p role="alert" className="text-hot">
            {t("signIn.differ")}
          </p>
        )}
        {go.error && <Wrong error={go.error} />}
        <button
          type="submit"
          className="button primary justify-center"
          disabled={go.isPending || again !== password}
        >
          {t("signIn.set")}
        </button>
      </form>
    </Frame>
  );
}
