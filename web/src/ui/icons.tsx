// Line icons on a 16 px grid. They stand beside words and are hidden from
// screen readers; shape tells states apart where colour cannot.
import type { ReactNode } from "react";

const shapes = {
  fleet: <path d="M2.5 2.5h4v4h-4zM9.5 2.5h4v4h-4zM2.5 9.5h4v4h-4zM9.5 9.5h4v4h-4z" />,
  models: <path d="M8 1.8 13.5 5v6L8 14.2 2.5 11V5zM2.5 5 8 8.2 13.5 5M8 8.2v6" />,
  rollouts: <path d="M2 12.5h3.5v-3H9v-3h3.5v-3H14M11 2l2.5 1.5L12 6" />,
  sites: (
    <path d="M8 14.2S3 9.600 3 6.300a5 5 0 0 1 10 0c0 3.300-5 7.900-5 7.900ZM8 4.600a1.700 1.700 0 1 0 0 3.400 1.700 1.700 0 0 0 0-3.400Z" />
  ),
  tickets: (
    <path d="M9.6 2.2a4 4 0 0 0-3.300 5.300L2.200 11.600l2.200 2.200 4.100-4.100a4 4 0 0 0 5.300-4.700l-2.300 2.300-2.300-.5-.5-2.300z" />
  ),
  person: (
    <path d="M8 2.200a2.700 2.700 0 1 0 0 5.400 2.700 2.700 0 0 0 0-5.400ZM2.800 13.800c.3-2.700 2.300-4.200 5.200-4.200s4.900 1.500 5.200 4.200" />
  ),
  ok: <path d="M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8ZM5.2 8.2l2 2 3.6-4" />,
  warm: <path d="M6.2 9.3V3.4a1.8 1.8 0 0 1 3.6 0v5.9a3 3 0 1 1-3.6 0ZM8 6v5" />,
  throttling: <path d="M8 2 14.5 13.5h-13zM8 6.3v3.4M8 11.5v.4" />,
  fault: <path d="M8 1.5 14.5 8 8 14.5 1.5 8zM8 5v3.6M8 10.7v.4" />,
  unknown: <path d="M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8Z" strokeDasharray="2.4 2.2" />,
  live: <circle cx="8" cy="8" r="4" fill="currentColor" />,
  late: (
    <>
      <circle cx="8" cy="8" r="4.2" />
      <path d="M8 3.8a4.2 4.2 0 0 1 0 8.4z" fill="currentColor" stroke="none" />
    </>
  ),
  silent: <path d="M2.5 2.5h11v11h-11zM2.5 2.5l11 11M13.5 2.5l-11 11" />,
  never: <path d="M2.5 2.5h11v11h-11z" strokeDasharray="2.4 2.2" />,
  updating: <path d="M13.5 8A5.5 5.5 0 1 1 11.6 3.8M13.5 1.8v3h-3" />,
  failed: <path d="M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8ZM5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8" />,
  paused: <path d="M4 2.5h2.6v11H4zM9.4 2.5H12v11H9.4z" />,
  waiting: <path d="M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8ZM8 4.5V8l2.4 1.6" />,
  canceled: <path d="M8 1.8a6.2 6.2 0 1 0 0 12.4A6.2 6.2 0 0 0 8 1.8ZM3.7 12.3l8.6-8.6" />,
  draft: <path d="M3 13l.6-3L10.8 2.8l2.4 2.4L6 12.4zM9.2 4.4l2.4 2.4" />,
  play: <path d="M4.5 2.5 13 8l-8.5 5.5z" />,
  gear: (
    <>
      <circle cx="8" cy="8" r="2.1" />
      <path d="M8 1.6v2M8 12.4v2M1.6 8h2M12.4 8h2M3.5 3.5l1.4 1.4M11.1 11.1l1.4 1.4M12.5 3.5l-1.4 1.4M4.9 11.1l-1.4 1.4" />
    </>
  ),
  up: <path d="M8 13V3.5M4 7l4-4 4 4" />,
  down: <path d="M8 3v9.5M4 9l4 4 4-4" />,
  check: <path d="M2.5 8.5 6 12l7.5-8" />,
  cross: <path d="M3.5 3.5l9 9M12.5 3.5l-9 9" />,
  key: (
    <path d="M9.2 8.4 14 3.6M12 5.6l1.6 1.6M10 7.4l1.4 1.4M5.8 7.2a3 3 0 1 0 0 6 3 3 0 0 0 3-3c0-1-.5-1.6-.9-2.1-.6-.5-1.300-.9-2.100-.9Z" />
  ),
} satisfies Record<string, ReactNode>;

export type IconName = keyof typeof shapes;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg
      aria-hidden="true"
      viewBox="0 0 16 16"
      width={size}
      height={size}
      fill="none"
      stroke="currentColor"
      strokeWidth="1.5"
      strokeLinejoin="round"
      strokeLinecap="round"
      className="shrink-0"
    >
      {shapes[name]}
    </svg>
  );
}
