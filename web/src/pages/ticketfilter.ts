// What the address of the tickets page holds, and the filter that it means.

export type TicketSearch = {
  view?: string;
  /** open (the default), due, all, or one state of a ticket */
  state?: string;
  level?: string;
  cause?: string;
  site?: string;
  order?: string;
  region?: string;
};

/** filterOf is the AIP-160 expression of a search, as the API and the command line take it. */
export function filterOf({ state = "open", level, cause, site }: TicketSearch): string {
  const terms = [];
  if (state === "open" || state === "due") terms.push(`${state} = true`);
  else if (state !== "all") terms.push(`state = ${JSON.stringify(state)}`);
  for (const [field, value] of Object.entries({ level, cause, site })) {
    if (value) terms.push(`${field} = ${JSON.stringify(value)}`);
  }
  return terms.join(" AND ");
}

/** states of a ticket, in the order of work. */
export const ticketStates = [
  "open",
  "reopened",
  "acknowledged",
  "dispatched",
  "on-site",
  "done",
  "verified",
  "closed",
];

export const ended = (state: string): boolean => state === "verified" || state === "closed";

/** ranked sorts the counts of a map, the largest first. */
export const ranked = (counts: Record<string, number>): [string, number][] =>
  Object.entries(counts).sort(([a, m], [b, n]) => n - m || a.localeCompare(b));
