package people

import (
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"hash/crc32"
	"strings"
)

// A token reads eht_<id>_<secret>_<check>: programs that look for leaked
// secrets know it by its first letters and its check digits, without asking us.
const (
	tokenPrefix = "eht_"
	idLetters   = 8  // base32: of 40 random bits
	keyLetters  = 43 // base64url: of 256 random bits
	sumLetters  = 6  // base62: CRC-32 of all before it
	tokenLength = len(tokenPrefix) + idLetters + 1 + keyLetters + 1 + sumLetters
)

func newToken() (secret, id string) {
	var raw [5]byte
	rand.Read(raw[:]) // never fails since Go 1.24
	id = strings.ToLower(base32.StdEncoding.EncodeToString(raw[:]))
	body := tokenPrefix + id + "_" + newSecret()
	return body + "_" + checkDigits(body), id
}

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func checkDigits(body string) string {
	var out [sumLetters]byte
	sum := crc32.ChecksumIEEE([]byte(body))
	for i := range out {
		out[sumLetters-1-i] = base62[sum%62]
		sum /= 62
	}
	return string(out[:])
}

// wellFormed spares the database what is no token: one that was cut or mistyped.
func wellFormed(secret string) bool {
	if len(secret) != tokenLength || !strings.HasPrefix(secret, tokenPrefix) {
		return false
	}
	body, sum := secret[:tokenLength-sumLetters-1], secret[tokenLength-sumLetters:]
	return secret[len(body)] == '_' && body[len(tokenPrefix)+idLetters] == '_' && checkDigits(body) == sum
}

// TokenID is the part of a token that may be shown; an error says that it is
// none.
func TokenID(secret string) (string, error) {
	if !wellFormed(secret) {
		return "", fmt.Errorf("this is no whole token of edgeherd: it begins with %s and has %d characters", tokenPrefix, tokenLength)
	}
	return secret[len(tokenPrefix) : len(tokenPrefix)+idLetters], nil
}
