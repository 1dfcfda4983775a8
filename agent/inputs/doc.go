// Package inputs watches cameras and microphones of a box and keeps what its
// pipelines made of them until the agent has taken it over.
//
// Vocabulary: a source is a camera (a folder of JPEG frames, looped) or a
// microphone (a WAV clip or a folder of them, looped); an item is one frame or
// clip; a pipeline turns an item into text by calling models: label-reader
// (find the lines, turn them upright, read them: PP-OCR) and voice-activity
// (when somebody speaks: Silero VAD). Duty is how hard the box may work, as the
// agent judges its heat; it stretches the interval between items.
//
// The outbox, one bbolt file, holds finished results under cursors that never
// repeat within it; a random id names the file. Results enter it in one commit
// per 32 results or 2 s, whichever is first, because each commit costs flash
// wear; so at most that tail dies with the process. Acknowledged results are
// deleted. When it is full the oldest go, and are counted. A damaged file is
// set aside as <file>.corrupt-<time> and a new one, with a new id, begun.
//
// A folder may hold truth.json (see internal/labels): then each result carries
// the text that is really on the frame.
//
// The one rule a caller can break: SetDuty must be called again before the duty
// it was given expires, or the sources return to their full rate.
package inputs
