// Where to go after signing in. The pages under /t/ write it (src/tech/net.ts).
const key = "edgeherd.then";

/** takeThen is the page that somebody came from to sign in, once; "/" for none. */
export function takeThen(now = Date.now()): string {
  try {
    const then = JSON.parse(localStorage.getItem(key) ?? "{}");
    localStorage.removeItem(key);
    if (/^\/t\/[\w/-]*$/i.test(then.path) && now < then.until) return then.path;
  } catch {
    // Forbidden storage, or what others wrote into it: the dashboard then.
  }
  return "/";
}
