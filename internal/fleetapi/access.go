package fleetapi

import (
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// LoginURL is a path of the controller that logs its first visitor in.
type LoginURL struct {
	Path    string    `json:"path"`
	Expires time.Time `json:"expires"`
}

// NewToken asks for a token of a program.
type NewToken struct {
	Name  string   `json:"name" minLength:"1" maxLength:"63" pattern:"^[A-Za-z0-9][A-Za-z0-9._@-]*$"`
	Role  string   `json:"role" enum:"viewer,tech,ops,admin"`
	Sites []string `json:"sites,omitempty" maxItems:"500" doc:"names, or * alone for all; ops and admin see all when none are named"`
	// Scope narrows what the role may do; none means all of it.
	Scope      []string `json:"scope,omitempty" maxItems:"20" example:"[\"artefact.push\"]"`
	TTLSeconds float64  `json:"ttl_seconds,omitempty" minimum:"0" maximum:"31536000"` // default 90 days
}

// APIToken is a token of a program without its secret.
type APIToken struct {
	ID      string    `json:"id" example:"abcd2345"`
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Sites   []string  `json:"sites"`
	Scope   []string  `json:"scope"`
	MadeBy  string    `json:"made_by"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"used" doc:"to about ten minutes"`
}

// APITokenList has the newest first.
type APITokenList struct {
	Items []APIToken `json:"items"`
}

// Token is a new token; the secret is shown this once.
type Token struct {
	APIToken
	Secret string `json:"secret"`
}

// SignInWays tells how somebody can sign in.
type SignInWays struct {
	// Provider is the name of who else vouches for people, empty for nobody.
	Provider string `json:"provider"`
	// Setup says that nobody can sign in yet.
	Setup bool `json:"setup"`
}

// SignIn is a name and its password.
type SignIn struct {
	Name     string `json:"name" minLength:"1" maxLength:"200"`
	Password string `json:"password" minLength:"1" maxLength:"1000"`
}

// Invitation is the secret of an address under which a password is set.
type Invitation struct {
	Secret string `json:"secret" minLength:"1" maxLength:"100"`
}

// Invited tells whom an invitation is for; the first admin has no name yet.
type Invited struct {
	User string `json:"user"`
	Role string `json:"role"`
}

// NewPassword sets a password by an invitation.
type NewPassword struct {
	Secret   string `json:"secret" minLength:"1" maxLength:"100"`
	Name     string `json:"name,omitempty" maxLength:"63" doc:"of the first admin"`
	Password string `json:"password" minLength:"1" maxLength:"1000"`
}

// User is a person.
type User struct {
	Name     string     `json:"name"`
	Role     string     `json:"role"`
	Sites    []string   `json:"sites" doc:"* is all"`
	Issuer   string     `json:"issuer,omitempty" doc:"of the OIDC provider that vouches for the person"`
	Disabled bool       `json:"disabled"`
	Waiting  bool       `json:"waiting" doc:"has set no password yet"`
	Sessions int        `json:"sessions"`
	Created  time.Time  `json:"created"`
	Login    *time.Time `json:"last_login,omitempty"`
}

// UserList is sorted by name.
type UserList struct {
	Items []User `json:"items"`
}

// NewUser invites a person.
type NewUser struct {
	Name  string   `json:"name" minLength:"1" maxLength:"63" pattern:"^[A-Za-z0-9][A-Za-z0-9._@-]*$"`
	Role  string   `json:"role" enum:"viewer,tech,ops,admin"`
	Sites []string `json:"sites,omitempty" maxItems:"500" doc:"names, or * alone for all; ops and admin see all when none are named"`
}

// UserAction is what an admin does with a person.
type UserAction struct {
	Action string   `json:"action" enum:"disable,enable,reset,role,sign-out"`
	Role   string   `json:"role,omitempty" enum:"viewer,tech,ops,admin" doc:"of role"`
	Sites  []string `json:"sites,omitempty" maxItems:"500" doc:"of role"`
}

// UserChanged is a person after an action.
type UserChanged struct {
	User User `json:"user"`
	// Invitation is where the person sets a password; give it to nobody else.
	Invitation *LoginURL `json:"invitation,omitempty"`
	// Tokens are those of programs that a person made who was disabled. They go
	// on until they are revoked.
	Tokens []APIToken `json:"tokens,omitempty"`
}

// AuditRecord is one record of the audit log.
type AuditRecord struct {
	Seq    int64     `json:"seq"`
	Time   time.Time `json:"time"`
	Actor  string    `json:"actor"`
	Role   string    `json:"role,omitempty"`
	Source string    `json:"source" doc:"address it came from"`
	Verb   string    `json:"verb" example:"site.set"`
	Object string    `json:"object,omitempty"`
	Before string    `json:"before,omitempty" doc:"digest"`
	After  string    `json:"after,omitempty" doc:"digest"`
	Note   string    `json:"note,omitempty"`
}

// AuditList has the newest first.
type AuditList struct {
	Items []AuditRecord `json:"items"`
	// Next is what to ask for as before to get the next page; 0: there is none.
	Next int64 `json:"next"`
}

// AuditState is what a walk through the whole log found.
type AuditState struct {
	Records int64  `json:"records"`
	Head    string `json:"head" doc:"hash of the newest record"`
	// Broken says which record is not what it was, and why; empty: none.
	Broken    string `json:"broken"`
	BrokenSeq int64  `json:"broken_seq,omitempty"`
	// Seals is how many signed heads were compared, the last of them at Sealed.
	Seals  int        `json:"seals"`
	Sealed *time.Time `json:"sealed,omitempty"`
	// Seal is the newest one, to be kept elsewhere.
	Seal []byte `json:"seal,omitempty"`
	// Witnesses is how many boxes say what they have seen of the log, the newest of
	// it record Witnessed.
	Witnesses int   `json:"witnesses"`
	Witnessed int64 `json:"witnessed,omitempty"`
	// Contradicted are records that boxes have seen otherwise, or that are gone; a
	// hundred at most, as in the lists below.
	Contradicted []AuditWitness `json:"contradicted,omitempty"`
	// Restores are times at which the database was put back from a backup.
	Restores []AuditRestore `json:"restores,omitempty"`
	// Forged are heads that the controller never signed: the box made them up.
	Forged []AuditWitness `json:"forged,omitempty"`
	// Unjudged are heads that do not fit the log, signed with a key that the log
	// does not name: the log cannot say whether there ever was such a key.
	Unjudged []AuditWitness `json:"unjudged,omitempty"`
}

// AuditWitness is a record as a box has seen it.
type AuditWitness struct {
	Box  identity.ID `json:"box"`
	Name string      `json:"name"`
	Seq  int64       `json:"seq"`
	Hash string      `json:"hash"`
	Told time.Time   `json:"told"`
}

// AuditRestore is a restore from a backup: record Seq says so, and what was from
// Seq to Lost before is gone; Lost is 0 when nobody has seen any of it.
type AuditRestore struct {
	Seq  int64     `json:"seq"`
	Time time.Time `json:"time"`
	Note string    `json:"note,omitempty"`
	Lost int64     `json:"lost,omitempty"`
}

// Blob is a stored file.
type Blob struct {
	Digest    blob.Digest `json:"digest"`
	SizeBytes int64       `json:"size_bytes"`
}
