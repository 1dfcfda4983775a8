import type { BoxCare } from "../src/api/generated";

export function careOf(box: object, sample: object): BoxCare;
