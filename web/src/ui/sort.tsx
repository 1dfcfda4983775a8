// The head of a column by which the controller can sort.
import { Icon } from "./icons";

type Props = {
  label: string;
  field: string | undefined; // undefined: it sorts by nothing
  order: string;
  go: (order: string) => void;
  className?: string;
};

export function SortHead({ label, field, order, go, className = "" }: Props) {
  if (!field) {
    return (
      <th scope="col" className={className}>
        {label}
      </th>
    );
  }
  const up = order === field;
  const down = order === `${field} desc`;
  return (
    <th scope="col" className={className} aria-sort={up ? "ascending" : down ? "descending" : undefined}>
      <button
        type="button"
        className={`inline-flex min-h-6 items-center gap-1 font-[550] hover:text-text ${className.includes("text-right") ? "flex-row-reverse" : ""}`}
        onClick={() => go(up ? `${field} desc` : field)}
      >
        {label}
        <span className={up || down ? "" : "invisible"}>
          <Icon name={down ? "down" : "up"} size={12} />
        </span>
      </button>
    </th>
  );
}
