package enrol

import (
	"crypto/subtle"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// attempt is one try of a machine to enrol, checked for its form.
type attempt struct {
	key        string // enrol.KeyID
	secretHash [32]byte
	asked      store.EnrolAsked
	hasTPM     bool   // the key is said to be in one
	agreed     string // who agrees right now, by signing a file
	shown      bool   // the secret was shown before: this replies to a challenge
}

// verdict is what is to be done about one. Its code is all that a caller need
// look at: Issued with issue says that a certificate is to be made, Issued
// without it that the one of before is given again.
type verdict struct {
	code   enrol.Code
	detail string
	device identity.ID // that the answer names
	issue  bool
	place  identity.ID // whose place the machine takes; "": a new box
	state  store.EnrolState
	take   bool // a use of the token
	refuse bool // counts against the token
}

// Approvals of a token.
const (
	ApproveAuto   = "auto"
	ApproveManual = "manual"
	ApproveRules  = "rules"
)

// decide judges an attempt by what is known. It is pure.
func decide(a attempt, f store.EnrolFacts, now time.Time) verdict {
	k := f.Token
	if k == nil || !a.shown && subtle.ConstantTimeCompare(k.Hash[:], a.secretHash[:]) != 1 {
		return verdict{code: enrol.TokenUnknown, detail: "This token is not known here. Copy it again."}
	}
	again := f.Request != nil && f.Request.Token == k.ID
	if again && f.Request.State == store.EnrolIssued {
		return repeat(f)
	}
	if v, refused := refusal(a, f, now); refused {
		return v
	}
	if a.hasTPM && !a.asked.Proved {
		return verdict{code: enrol.TPMChallenge, state: store.EnrolChallenge}
	}
	holds := again && (f.Request.State == store.EnrolPending || f.Request.State == store.EnrolApproved)
	if k.UsesLeft <= 0 && !holds {
		return used(f)
	}
	place, known := placeOf(a, f)
	if known != nil {
		return verdict{code: enrol.HardwareKnown, device: known.Box, refuse: true,
			detail: fmt.Sprintf("This machine is %s (%s) already. To enrol it anew ask for a token that replaces it: edgeherd box replace %s.", known.Name, known.Box, known.Name)}
	}
	if mayIssue(a, f) {
		return verdict{code: enrol.Issued, issue: true, place: place, state: store.EnrolIssued, take: !holds}
	}
	return verdict{code: enrol.Pending, state: store.EnrolPending, take: !holds,
		detail: "Waiting for approval. Read this code to whom approves: " + a.asked.ShortCode + "."}
}

// used says by whom a token was used up.
func used(f store.EnrolFacts) verdict {
	v := verdict{code: enrol.TokenUsed, refuse: true, detail: "This token was used already, by a machine that waits for approval. Ask for a new one."}
	if u := f.User; u != nil {
		v.device = u.Box
		v.detail = fmt.Sprintf("This token enrolled %s already, %s", u.Box, u.Changed.UTC().Format("on 2 January at 15:04 UTC"))
		if u.Hardware.BoardSerial != "" {
			v.detail += ", the machine with serial number " + u.Hardware.BoardSerial
		}
		v.detail += ". Ask for a new one."
	}
	return v
}

// repeat answers a machine that did not get its answer.
func repeat(f store.EnrolFacts) verdict {
	if f.Cert == nil || f.Cert.State == store.CertDead || f.Cert.State == store.CertSuperseded {
		return verdict{code: enrol.IdentityConflict, device: f.Request.Box, detail: "What was issued for this key is no longer good. Enrol with a new key and a new token."}
	}
	return verdict{code: enrol.Issued, device: f.Request.Box, state: store.EnrolIssued}
}

// refusal judges token, machine and key, before anything is used up.
func refusal(a attempt, f store.EnrolFacts, now time.Time) (verdict, bool) {
	k := f.Token
	no := func(code enrol.Code, format string, args ...any) (verdict, bool) {
		return verdict{code: code, detail: fmt.Sprintf(format, args...)}, true
	}
	switch {
	case f.Holder != "":
		return verdict{code: enrol.IdentityConflict, device: f.Holder, detail: fmt.Sprintf("This key belongs to %s already: its disk may have been copied. Enrol with --re-enroll, which makes a new key.", f.Holder)}, true
	case k.Off != "":
		return no(enrol.TokenExpired, "This token is no longer good (%s). Ask for a new one.", k.Off)
	case now.After(k.Expires):
		return no(enrol.TokenExpired, "This token expired %s ago. Ask for a new one.", ago(now.Sub(k.Expires)))
	case f.Request != nil && f.Request.Token == k.ID && f.Request.State == store.EnrolDenied:
		return no(enrol.Denied, "%s did not agree to this machine.", f.Request.By)
	case len(k.Networks) > 0 && !within(a.asked.Address, k.Networks):
		return verdict{code: enrol.TokenSite, refuse: true, detail: fmt.Sprintf("This token is for %s and may not be used from %s.", k.Site, a.asked.Address)}, true
	case k.Serial != "" && !sameSerial(a.asked.Hardware, k.Serial):
		return verdict{code: enrol.TokenSite, refuse: true, detail: fmt.Sprintf("This token is for the machine with serial number %s.", k.Serial)}, true
	case f.WantedPlace() != "" && f.Place == nil:
		return no(enrol.TokenExpired, "The box whose place this machine was to take is gone. Ask for a new token.")
	case f.WantedPlace() != "" && f.Place.State == store.StateRetired:
		return no(enrol.TokenExpired, "The box whose place this machine was to take was retired. Ask for a new token.")
	}
	return verdict{}, false
}

// placeOf says whose place the machine takes, and which box it is already that
// it may not be again. A TPM that was proved may return to its own place on the
// same site with a token that needs nobody's approval.
func placeOf(a attempt, f store.EnrolFacts) (place identity.ID, known *store.KnownMachine) {
	wanted := f.WantedPlace()
	for i, m := range f.Known {
		if m.Box == wanted {
			continue
		}
		if a.asked.Proved && wanted == "" && f.Token.Approve == ApproveAuto && m.Site == f.Token.Site && place == "" {
			place = m.Box
			continue
		}
		return "", &f.Known[i]
	}
	if wanted != "" {
		return wanted, nil
	}
	return place, nil
}

func mayIssue(a attempt, f store.EnrolFacts) bool {
	switch {
	case a.agreed != "":
		return true
	case f.Request != nil && f.Request.Token == f.Token.ID && f.Request.State == store.EnrolApproved:
		return true
	case f.Token.Approve == ApproveAuto:
		return true
	case f.Token.Approve == ApproveRules:
		return fits(a, f.Token.Rules)
	}
	return false
}

// fits says whether a machine needs nobody's approval. What a machine says of
// its serial number proves nothing, which is why that is a rule and no default.
func fits(a attempt, r store.TokenRules) bool {
	serial := slices.ContainsFunc(r.Serials, func(s string) bool { return sameSerial(a.asked.Hardware, s) })
	tpm := a.asked.Proved && slices.Contains(r.TPMs, a.asked.TPM)
	return serial || tpm || within(a.asked.Address, r.Networks)
}

func sameSerial(h enrol.Hardware, serial string) bool {
	want := plain(serial)
	return want != "" && (plain(h.BoardSerial) == want || plain(h.DTSerial) == want || plain(h.DMIUUID) == want)
}

// within says whether an address lies in one of the networks.
func within(address string, networks []string) bool {
	at, err := netip.ParseAddr(address)
	if err != nil {
		return false
	}
	return slices.ContainsFunc(networks, func(n string) bool {
		p, err := netip.ParsePrefix(n)
		return err == nil && p.Contains(at)
	})
}

func ago(d time.Duration) string {
	if d < time.Minute {
		return "less than a minute"
	}
	if d < time.Hour {
		return fmt.Sprintf("%d min", int(d.Minutes()))
	}
	if d < 48*time.Hour {
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}

// Serial numbers that makers forgot to set are no marks of a machine.
var unset = []string{"", "0", "none", "na", "notspecified", "notapplicable", "defaultstring", "tobefilledbyoem", "systemserialnumber",
	"serialnumber", "123456789", "0123456789", "03000200040005000006000700080009"}

// plain is a serial number without case, spaces and dashes; "" for none.
func plain(serial string) string {
	s := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return -1
	}, strings.ToLower(serial))
	if slices.Contains(unset, s) || strings.Trim(s, "0") == "" || strings.Trim(s, "f") == "" || len(s) < 4 {
		return ""
	}
	return s
}

// marksOf are serial numbers by which a machine is known again. Disks and
// network cards move between machines and are none.
func marksOf(h enrol.Hardware, tpm string) (marks []string) {
	for _, m := range []struct{ kind, text string }{
		{"dmi", plain(h.DMIUUID)}, {"board", plain(h.BoardSerial)}, {"dt", plain(h.DTSerial)}, {"tpm", tpm},
	} {
		if m.text != "" {
			marks = append(marks, m.kind+":"+m.text)
		}
	}
	return marks
}

// moved lists what differs between two machines that say to be one. What either
// does not know tells nothing.
func moved(was, is enrol.Hardware) (what []string) {
	for _, f := range []struct{ name, was, is string }{
		{"system UUID", plain(was.DMIUUID), plain(is.DMIUUID)},
		{"board serial number", plain(was.BoardSerial), plain(is.BoardSerial)},
		{"device tree serial number", plain(was.DTSerial), plain(is.DTSerial)},
		{"disk serial number", plain(was.DiskSerial), plain(is.DiskSerial)},
	} {
		if f.was != "" && f.is != "" && f.was != f.is {
			what = append(what, f.name)
		}
	}
	none := !slices.ContainsFunc(was.MACs, func(m string) bool { return slices.Contains(is.MACs, m) })
	if len(was.MACs) > 0 && len(is.MACs) > 0 && none {
		what = append(what, "all network ports")
	}
	return what
}

// boxName makes a name of what was asked for: lower-case letters, digits and
// hyphens; "" when nothing is left.
func boxName(hint string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(hint) {
		switch {
		case r >= 'a' && r <= 'z' || r >= '0' && r <= '9':
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() >= 48 {
			break
		}
	}
	return strings.Trim(b.String(), "-")
}
