// Keeps the files of the pages under /t/ on the phone, so that they open without
// a network. It holds no data and sends nothing; the pages do that. The build
// fills in the list of files and its sum, so that any change makes a new worker.
const files = __FILES__;
const cacheName = "edgeherd-tech-__SUM__";

self.addEventListener("install", (event) => {
  event.waitUntil(
    caches
      .open(cacheName)
      .then((cache) => cache.addAll(files))
      .then(() => self.skipWaiting()),
  );
});

self.addEventListener("activate", (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) =>
        Promise.all(
          names.filter((n) => n.startsWith("edgeherd-tech-") && n !== cacheName).map((n) => caches.delete(n)),
        ),
      )
      .then(() => self.clients.claim()),
  );
});

self.addEventListener("fetch", (event) => {
  const { pathname, origin } = new URL(event.request.url);
  if (event.request.method !== "GET" || origin !== self.location.origin) return;
  const page = event.request.mode === "navigate" && /^\/t(\/|$)/i.test(pathname);
  if (!page && !files.includes(pathname)) return;
  event.respondWith(
    caches
      .open(cacheName)
      .then((cache) => cache.match(page ? "/t/" : pathname))
      .then((kept) => kept ?? fetch(event.request)),
  );
});
