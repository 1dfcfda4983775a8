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
	f := Finding{Check: check, Level: OK, Found: "none: the fleet is in development"}
	var first time.Time
	var late, ways []string
	for _, d := range docs {
		if d.Staged {
			continue
		}
		head, err := tufrepo.ParseHead(d.Body)
		if err != nil {
			return finding(check, "", fmt.Errorf("role %s: %w", d.Role, err), "restore the last backup")
		}
		if first.IsZero() || head.Expires.Before(first) {
			first = head.Expires
		}
		left := head.Expires.Sub(now)
		if left >= tufrepo.WarnBefore(d.Role) {
			continue
		}
		word := fmt.Sprintf("%s ends in %d days", d.Role, int(left.Hours()/24))
		if left > 0 && f.Level == OK {
			f.Level = Warn
		} else if left <= 0 {
			f.Level, word = Fail, fmt.Sprintf("%s ended %s: boxes install nothing that depends on it", d.Role, head.Expires.Format(time.DateOnly))
		}
		late = append(late, word)
		if d.Role == tufrepo.RoleTimestamp || d.Role == tufrepo.RoleSnapshot {
			ways = append(ways, "start the controller, which signs "+d.Role+" daily")
		} else {
			ways = append(ways, "edgeherd trust renew "+d.Role+" --key FILE")
		}
	}
	switch {
	case len(late) > 0:
		f.Found, f.Way = strings.Join(late, "; "), strings.Join(ways, "; ")
	case !first.IsZero():
		f.Found = "nothing ends before " + first.Format(time.DateOnly)
	}
	return f
}

// clock is the time that the doctor judges by.
func (o Options) clock() time.Time {
	if o.WallClock == nil {
		return time.Now()
	}
	return o.WallClock()
}
