/** @jsxImportSource preact */
// The pages for the person on the ladder, under /t/: an entry of its own, small,
// and usable without a network once it was opened with one.
import "./tech.css";
import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import { BoxPage, VisitPage } from "./box";
import { ClaimPage, DonePage } from "./claim";
import { Home, Scan } from "./home";
import { sync } from "./net";
import { Frame } from "./parts";
import { StepsPage } from "./steps";
import { go, tokenOf } from "./way";
import { speak, t } from "./words";

const every = 30_000; // ms between attempts to send, beside the browser's word that it is online

/** page finds the page of an address. Codes of labels are upper case all through. */
function page(address: string) {
  const [, kind = "", rest = ""] = /^\/t\/?([^/]*)\/?([^/]*)\/?$/i.exec(address) ?? [];
  switch (kind.toLowerCase()) {
    case "":
      return <Home />;
    case "c": {
      const token = tokenOf(rest);
      return token ? <ClaimPage token={token} key={token} /> : <Scan />;
    }
    case "done":
      return <DonePage id={rest} key={rest} />;
    case "b":
      return <BoxPage id={rest} key={rest} />;
    case "v":
      return <VisitPage id={rest} key={rest} />;
    case "steps":
      return <StepsPage />;
  }
  return <Frame title={t("notFound")}>{null}</Frame>;
}

function App() {
  const [at, set] = useState({ path: location.pathname });
  useEffect(() => {
    const moved = () => set({ path: location.pathname });
    addEventListener("popstate", moved);
    return () => removeEventListener("popstate", moved);
  }, []);
  return page(at.path);
}

/** Links between these pages need no new one, which matters without a network. */
function links(event: MouseEvent): void {
  const link = (event.target as Element).closest?.("a");
  if (!link || event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey) return;
  if (link.origin !== location.origin || !link.pathname.startsWith("/t/") || link.hash) return;
  event.preventDefault();
  go(link.pathname);
}

// A label's address is upper case, which makes its QR code small.
if (/^\/T(\/|$)/.test(location.pathname))
  history.replaceState(
    null,
    "",
    location.pathname.replace(/^\/T\/(C\/)?/i, (m) => m.toLowerCase()),
  );

const root = document.getElementById("root");
if (!root) throw new Error("t/index.html lacks #root");
addEventListener("click", links);
addEventListener("online", () => void sync());
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && void sync());
setInterval(() => document.visibilityState === "visible" && void sync(), every);
speak().then(() => {
  render(<App />, root);
  void sync();
});

if (import.meta.env.PROD && "serviceWorker" in navigator) {
  // Twice: labels lead to /T/, pages to /t/. What browsers that refuse it lose is
  // to begin without a network.
  for (const scope of ["/t/", "/T/"])
    navigator.serviceWorker.register("/t/sw.js", { scope }).catch(console.warn);
}
