// Pictures are made small on the phone: what is sent from a ladder goes over
// whatever network there is. Drawing anew also leaves out what the camera wrote
// into the file, such as where it was taken.

export const maxBytes = 200 * 1024; // fleetapi.MaxPhotoBytes
const tries = [
  { side: 1280, quality: 0.8 },
  { side: 1280, quality: 0.6 },
  { side: 960, quality: 0.6 },
  { side: 640, quality: 0.5 },
];

/** fit is the size of a picture whose longer side is at most side. */
export function fit(width: number, height: number, side: number): [number, number] {
  const by = Math.min(1, side / Math.max(width, height, 1));
  return [Math.max(1, Math.round(width * by)), Math.max(1, Math.round(height * by))];
}

/** shrink makes a JPEG of at most 200 KiB, base64. */
export async function shrink(file: Blob): Promise<string> {
  const picture = await createImageBitmap(file);
  try {
    for (const { side, quality } of tries) {
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = fit(picture.width, picture.height, side);
      const pen = canvas.getContext("2d");
      if (!pen) throw new Error("no canvas");
      pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
      const text = canvas.toDataURL("image/jpeg", quality).split(",")[1] ?? "";
      if ((text.length * 3) / 4 <= maxBytes) return text;
    }
  } finally {
    picture.close();
  }
  throw new Error("too large");
}
