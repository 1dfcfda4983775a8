import "./styles.css";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { RouterProvider } from "@tanstack/react-router";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { Problem } from "./api/client";
import { startLive } from "./api/live";
import { takeThen } from "./api/then";
import { makeRouter } from "./app";
import { startI18n } from "./i18n";
import { startPrefs } from "./ui/prefs";

const client = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 5000,
      // What the controller refused stays refused; only a lost connection is tried again.
      retry: (count, err) => err instanceof Problem && (err.status === 0 || err.status >= 500) && count < 2,
    },
  },
});
const router = makeRouter();

declare module "@tanstack/react-router" {
  interface Register {
    router: typeof router;
  }
}

// A sign-in at the provider, or by a login address, ends here.
const then = location.pathname === "/" ? takeThen() : "/";
if (then !== "/") location.replace(then);

startPrefs();
startLive(client);
const root = document.getElementById("root");
if (!root) throw new Error("index.html lacks #root");
startI18n().then(() => {
  createRoot(root).render(
    <StrictMode>
      <QueryClientProvider client={client}>
        <RouterProvider router={router} />
      </QueryClientProvider>
    </StrictMode>,
  );
});
