// Package inputs watches cameras and microphones of a box and keeps what its
// pipelines made of them until the agent has taken it over.
//
// Vocabulary: a source is a camera (a folder of pictures, looped; a snapshot by
// HTTP; a stream that ffmpeg follows) or a microphone (a WAV clip or a folder of
// them, looped); an item is one frame or clip; a pipeline, which a model's
// manifest declares, turns an item into text and findings (package pipeline).
// Duty is how hard the box may work, as the agent judges its heat; it stretches
// the interval between items. A source that has nothing new waits for the next
// interval; of a stream only the newest frame is kept.
//
// Passwords of cameras come from files, reach ffmpeg through a pipe and are
// told to nobody else: not to logs, status, arguments or environment.
//
// The outbox, one bbolt file, holds finished results under cursors that never
// repeat within it; a random id names the file. Results enter it in one commit
// per 32 results or 2 s, whichever is first, because each commit costs flash
// wear; so at most that tail dies with the process. Acknowledged results are
// deleted. When it is full the oldest go, and are counted. A damaged file is
// set aside as <file>.corrupt-<time> and a new one, with a new id, begun.
//
// The one rule a caller can break: SetDuty must be called again before the duty
// it was given expires, or the sources return to their full rate.
package inputs
