// The width of an element, for what is drawn to fit it.
import { type RefObject, useEffect, useState } from "react";

/** useWidth is the width of an element, 0 before it is known. */
export function useWidth(holder: RefObject<HTMLDivElement | null>): number {
  const [width, setWidth] = useState(0);
  useEffect(() => {
    const parent = holder.current?.parentElement;
    if (!parent) return;
    const watch = new ResizeObserver(([entry]) => entry && setWidth(Math.floor(entry.contentRect.width)));
    watch.observe(parent);
    return () => watch.disconnect();
  });
  return width;
}
