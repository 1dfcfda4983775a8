// A question that is asked before something happens, with its own form.
import { type FormEvent, type ReactNode, useEffect, useId, useRef } from "react";
import { useTranslation } from "react-i18next";
import { Icon, type IconName } from "./icons";
import { Fault } from "./parts";

type Props = {
  title: string;
  does: string; // the word on the button that does it
  icon?: IconName;
  danger?: boolean;
  busy: boolean;
  error: unknown;
  submit: () => void;
  close: () => void;
  children?: ReactNode;
};

/** Ask opens as a modal dialog; Escape and the first button close it without doing anything. */
export function Ask(props: Props) {
  const { t } = useTranslation();
  const id = useId();
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => dialog.current?.showModal(), []);
  const submit = (event: FormEvent) => {
    event.preventDefault();
    props.submit();
  };
  return (
    <dialog
      ref={dialog}
      onClose={props.close}
      aria-labelledby={id}
      className="card m-auto max-h-[calc(100dvh-2rem)] w-[min(34rem,calc(100vw-1.5rem))] overflow-y-auto p-4 text-text backdrop:bg-[#0008]"
    >
      <form onSubmit={submit}>
        <h2 id={id}>{props.title}</h2>
        <div className="mt-2 grid grid-cols-[minmax(0,1fr)] gap-3">{props.children}</div>
        {props.error ? <Fault error={props.error} /> : null}
        <div className="mt-4 flex flex-wrap justify-end gap-2">
          <button type="button" className="button" onClick={() => dialog.current?.close()}>
            {t("ask.not")}
          </button>
          <button
            type="submit"
            className={`button ${props.danger ? "danger" : "primary"}`}
            disabled={props.busy}
          >
            <Icon name={props.icon ?? "check"} />
            {props.does}
          </button>
        </div>
      </form>
    </dialog>
  );
}

/** Field is a label above its input, with a hint below. */
export function Field({ label, hint, children }: { label: string; hint?: string; children: ReactNode }) {
  return (
    // biome-ignore lint/a11y/noLabelWithoutControl: the control is among the children
    <label className="block">
      <span className="mb-1 block font-semibold">{label}</span>
      {children}
      {hint && <span className="mt-1 block text-xs text-soft">{hint}</span>}
    </label>
  );
}
