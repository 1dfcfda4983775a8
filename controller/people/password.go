package people

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Cost of a password: one of those that OWASP's Password Storage Cheat Sheet
// names for argon2id. 46 MiB keep graphics cards from trying many at once.
var usual = cost{memory: 46 << 10, time: 1, threads: 1}

const (
	argonKey  = 32
	saltBytes = 16
)

const (
	minPassword = 12
	maxPassword = 256
)

// checkPassword refuses what is guessed first.
func checkPassword(name, password string) error {
	low := strings.ToLower(password)
	kinds := map[rune]bool{}
	for _, r := range password {
		kinds[r] = true
	}
	switch {
	case len([]rune(password)) < minPassword:
		return fmt.Errorf("the password is shorter than %d characters; some words in a row are easy to remember", minPassword)
	case len(password) > maxPassword:
		return fmt.Errorf("the password is longer than %d bytes", maxPassword)
	case len(kinds) < 5:
		return errors.New("the password has fewer than 5 different characters")
	case len(name) > 3 && strings.Contains(low, strings.ToLower(name)), strings.Contains(low, "edgeherd"), strings.Contains(low, "password"):
		return errors.New("the password holds a word that is guessed first: the user name, edgeherd or password")
	}
	return nil
}

// hash writes a password in the PHC string format.
func (p *People) hash(ctx context.Context, password string) (string, error) {
	var salt [saltBytes]byte
	rand.Read(salt[:]) // never fails since Go 1.24
	key, err := p.derive(ctx, password, salt[:], p.cost)
	if err != nil {
		return "", err
	}
	return phc(p.cost, salt[:], key), nil
}

type cost struct {
	memory  uint32 // KiB
	time    uint32
	threads uint8
}

func phc(c cost, salt, key []byte) string {
	enc := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, c.memory, c.time, c.threads, enc(salt), enc(key))
}

// dummyHash costs as much and matches nothing: its key is no hash.
func dummyHash(c cost) string {
	var salt, key [32]byte
	rand.Read(salt[:])
	rand.Read(key[:])
	return phc(c, salt[:saltBytes], key[:argonKey])
}

// matches compares a password with its hash, in a time that does not tell how
// much of it was right.
func (p *People) matches(ctx context.Context, hash, password string) (bool, error) {
	part := strings.Split(hash, "$")
	var c cost
	var version int
	if len(part) != 6 || part[1] != "argon2id" {
		return false, errors.New("a stored password is not of a known form; reset it")
	}
	_, err1 := fmt.Sscanf(part[2], "v=%d", &version)
	_, err2 := fmt.Sscanf(part[3], "m=%d,t=%d,p=%d", &c.memory, &c.time, &c.threads)
	salt, err3 := base64.RawStdEncoding.Strict().DecodeString(part[4])
	want, err4 := base64.RawStdEncoding.Strict().DecodeString(part[5])
	if err := errors.Join(err1, err2, err3, err4); err != nil || version != argon2.Version || c.time == 0 || c.threads == 0 || len(want) != argonKey || c.memory > 1<<20 {
		return false, errors.New("a stored password is not of a known form; reset it")
	}
	if len(password) > maxPassword {
		password = "" // what is longer was never set; it costs the same
	}
	key, err := p.derive(ctx, password, salt, c)
	return subtle.ConstantTimeCompare(key, want) == 1, err
}

// derive waits its turn: each derivation takes the memory that makes it dear.
func (p *People) derive(ctx context.Context, password string, salt []byte, c cost) ([]byte, error) {
	select {
	case p.work <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.work }()
	return argon2.IDKey([]byte(password), salt, c.time, c.memory, c.threads, argonKey), nil
}
