package store

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// examineTrust says which roles of the fleet's metadata end soon: nothing that
// runs stops then, and nothing new is installed.
func examineTrust(ctx context.Context, t *tx, now time.Time) Finding {
	const check = "fleet's metadata"
	var docs []TrustDocument
	if err := t.each(ctx, newestTrust, nil, scanTrust(&docs)); err != nil {
		return finding(check, "", err, "restore the last backup")
	}
	all, err := Standings(docs, now)
	if err != nil {
		return finding(check, "", err, "restore the last backup")
	}
	f := Finding{Check: check, Level: OK, Found: "none: the fleet is in development"}
	var first time.Time
	var late, ways []string
	for _, s := range all {
		if first.IsZero() || s.Expires.Before(first) {
			first = s.Expires
		}
		if s.Stage == tufrepo.Good {
			continue
		}
		word := fmt.Sprintf("%s ends in %d days", s.Role, int(s.Expires.Sub(now).Hours()/24))
		if s.Stage == tufrepo.Ended {
			f.Level, word = Fail, fmt.Sprintf("%s ended %s: boxes install nothing that depends on it", s.Role, s.Expires.Format(time.DateOnly))
		} else if f.Level == OK {
			f.Level = Warn
		}
		late = append(late, word)
		way := s.Do()
		if way == "" {
			way = "start the controller, which signs " + s.Role + " daily"
		}
		ways = append(ways, way)
	}
	switch {
	case len(late) > 0:
		f.Found, f.Way = strings.Join(late, "; "), strings.Join(ways, "; ")
	case !first.IsZero():
		f.Found = "nothing ends before " + first.Format(time.DateOnly)
	}
	return f
}

// Standings tells how the roles do that boxes look at.
func Standings(docs []TrustDocument, now time.Time) ([]tufrepo.Standing, error) {
	have, staged := tufrepo.Documents{}, tufrepo.Documents{}
	for _, d := range docs {
		if d.Staged {
			staged[d.Role] = d.Body
		} else {
			have[d.Role] = d.Body
		}
	}
	return have.Standings(staged, now)
}

// clock is the time that the doctor judges by.
func (o Options) clock() time.Time {
	if o.WallClock == nil {
		return time.Now()
	}
	return o.WallClock()
}
