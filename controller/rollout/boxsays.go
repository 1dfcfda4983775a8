package rollout

import "github.com/edgeherd/edgeherd/internal/phrase"

// BoxSays finds the phrase of what a box says of its work, of a lock, or of why a
// box left: these travel and are stored as English text. What is of no kind that
// is known stays as it is.
func BoxSays(text string) phrase.Phrase { return kinds.Read(text) }

var kinds = known(func(know func(code, format string)) {
	know("locked", "locked by %s until %s: %s")
	know("box-retired", "the box was retired meanwhile")
	know("box-revoked", "the box was revoked meanwhile")
	// agent/fetch
	know("awaits-room", "waits for room: %v; the box looks again by itself; %v")
	know("no-room", "fetch %s: no room for the blob: it needs %s and leaves %s free, but %s has %s; make room there, or lower min_free_bytes of agent.yaml")
	know("no-room-whole", "no room for the blob: it needs %s and leaves %s free, but %s has %s; make room there, or lower min_free_bytes of agent.yaml")
	know("disk-full-at", "disk is full at byte %d of %d: %s")
	know("month-used", "downloads wait: the %d bytes of this month are used up")
	know("state-full", "waits: the state folder takes no writes: %s; make room on its disk, then the box goes on by itself")
	// agent/activate
	know("failed-before", "failed on this box before: %v")
	know("awaits-disk", "waits for a disk that takes it: %v; the box looks again by itself; %v")
	know("disk-spoils", "%v, for the %dth time: the disk of this box spoils what it is given")
	know("comes-again", "%v, it is fetched again; %v")
	know("came-again", "%v, it was fetched again")
	know("file-damaged", "of its files, %s is damaged on the disk")
	know("file-gone", "of its files, %s is gone from the disk")
	know("served-but", "%s served, but %v; %v")
	know("probe-failed", "the probe failed: %v")
	know("golden-fail", "%d of %d golden cases fail, the first: %v")
	know("golden-case", "golden case %s: %s")
	know("not-fetched", "not fetched within %s: %v")
	know("not-probed", "not probed within %s: %v")
	know("callers-break", "callers of %s could not use it: %s")
	know("restarted-with-it", "the box or its agent restarted %d times with it")
	know("runner-lost-it", "the runner lost it %d times before it served")
	know("not-served", "the runner did not serve it within %s")
	know("not-answered", "the runner did not answer within %s: %v")
	know("cannot-serve", "the runner cannot serve it: %v")
	know("worker-crashed", "its worker crashed in the trial")
	know("trial-failed", "%d of %d requests failed in the trial")
	know("slow", "it is slow: 95 %% of requests within %.1f ms, the version before needed %.1f ms")
	know("shadow-failed", "it failed %d of %d requests that the version before it answered, the last: %s")
	know("shadow-few", "only %d answers could be compared with those of the version before it, its manifest asks for %d (%d requests came; the box was hot for %d of them and busy for %d)")
	know("shadow-disagrees", "its answers agree to %.1f %% with those of the version before it, its manifest asks for %.1f %% (%d answers)")
	// agent/update
	know("no-build", "the release has no build for %s")
	know("agent-needs", "needs agent %s or newer, this is %s: update to that first")
	know("agent-disk", "%s has %d bytes free, the update needs %d: make space")
	know("no-verdict", "%d trials ended without a verdict")
	know("no-connection", "the new agent got no connection")
	know("refused-before", "refused before, see the earlier report")
	know("rolled-back-before", "this program was rolled back on this box before")
	know("agent-rolled-back", "rolled back: %s")
	// Last: sentences above end with them, of which the second would take all as a name.
	know("none-serves", "nothing serves meanwhile")
	know("serves-meanwhile", "%s serves meanwhile")
})

func known(each func(know func(code, format string))) phrase.Reader {
	var r phrase.Reader
	each(r.Know)
	return r
}
