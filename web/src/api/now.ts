// The present, by the controller's clock: a laptop whose clock is wrong must
// not show fresh values as old.
import { useEffect, useState } from "react";

let offsetMs = 0;

export function noteServerTime(iso: string): void {
  const t = Date.parse(iso);
  if (!Number.isNaN(t)) offsetMs = t - Date.now();
}

export const now = (): number => Date.now() + offsetMs;

/** useNow re-renders every everyMs, so that ages on the page grow. */
export function useNow(everyMs = 5000): number {
  const [value, setValue] = useState(now);
  useEffect(() => {
    const timer = setInterval(() => setValue(now()), everyMs);
    return () => clearInterval(timer);
  }, [everyMs]);
  return value;
}
