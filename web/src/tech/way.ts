// Addresses of pages, and what people type of labels and screens.

/** go opens a page; without a path it draws the one that is open anew. */
export function go(path = location.pathname): void {
  if (path !== location.pathname) history.pushState(null, "", path);
  dispatchEvent(new PopStateEvent("popstate"));
  scrollTo(0, 0);
}

/** tokenOf reads the id of a token as it is typed or scanned; "" is none. */
export function tokenOf(text: string): string {
  const id = text.toUpperCase().replace(/[\s-]/g, "");
  return /^[A-Z2-7]{8}$/.test(id) ? id : "";
}

/** codeOf is what was typed as the machine shows it: 481-902, or less. */
export function codeOf(text: string): string {
  const digits = text.replace(/\D/g, "").slice(0, 6);
  return digits.length > 3 ? `${digits.slice(0, 3)}-${digits.slice(3)}` : digits;
}
