package trust

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

func newKey(t testing.TB) PrivateKey {
	t.Helper()
	k, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sign(t testing.TB, payloadType, payload string, k PrivateKey) []byte {
	t.Helper()
	env, err := Sign(payloadType, []byte(payload), k)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func TestSignedPayloadComesBack(t *testing.T) {
	k := newKey(t)
	for _, payload := range []string{"", "{}", strings.Repeat("x", 1<<20)} {
		env := sign(t, TypeModel, payload, k)
		got, err := DevelopmentKeyring(k.Public()).Open(TypeModel, env)
		if err != nil || string(got) != payload {
			t.Errorf("%d bytes came back as %d, %v", len(payload), len(got), err)
		}
		if again := sign(t, TypeModel, payload, k); !bytes.Equal(env, again) {
			t.Error("signing twice gives two envelopes: the digest would not be the version's identity")
		}
	}
}

func TestEnvelopeThatMustNotBeFollowed(t *testing.T) {
	k, other := newKey(t), newKey(t)
	ring := Keyring{Keys: map[string][]PublicKey{TypeModel: {k.Public()}, TypeRelease: {other.Public()}}}
	env := sign(t, TypeModel, `{"a":1}`, k)
	edit := func(change func(e *envelope)) []byte {
		var e envelope
		if err := json.Unmarshal(env, &e); err != nil {
			t.Fatal(err)
		}
		change(&e)
		out, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	for _, tt := range []struct {
		name string
		kind string
		data []byte
		is   error
		text string
	}{
		{"another key", TypeModel, sign(t, TypeModel, `{"a":1}`, other), ErrUntrusted, string(other.Public().ID())},
		{"a key for other documents", TypeModel, sign(t, TypeModel, "{}", other), ErrUntrusted, ""},
		{"a document of another kind", TypeRelease, env, nil, "envelope holds"},
		{"renamed to another kind", TypeRelease, edit(func(e *envelope) { e.PayloadType = TypeRelease }), ErrUntrusted, ""},
		{"a changed payload", TypeModel, edit(func(e *envelope) { e.Payload[2] = 'b' }), ErrUntrusted, ""},
		{"no signature", TypeModel, edit(func(e *envelope) { e.Signatures = nil }), ErrUntrusted, ""},
		{"a short signature", TypeModel, edit(func(e *envelope) { e.Signatures[0].Sig = e.Signatures[0].Sig[:63] }), ErrUntrusted, ""},
		{"a borrowed key id", TypeModel, bytes.ReplaceAll(sign(t, TypeModel, "{}", other), []byte(other.Public().ID()), []byte(k.Public().ID())), ErrUntrusted, ""},
		{"a kind that nobody may sign", TypeDesired, sign(t, TypeDesired, "{}", k), ErrUntrusted, ""},
		{"not JSON", TypeModel, []byte("hello"), nil, "parse envelope"},
		{"an unknown field", TypeModel, []byte(`{"payloadType":"x","extra":1}`), nil, "unknown field"},
		{"too long", TypeModel, make([]byte, MaxEnvelopeBytes+1), nil, "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ring.Open(tt.kind, tt.data)
			if err == nil || got != nil || tt.is != nil && !errors.Is(err, tt.is) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %q, %v, want %v with %q", got, err, tt.is, tt.text)
			}
		})
	}
}

func TestOneOfSeveralSignaturesIsEnough(t *testing.T) {
	k, other := newKey(t), newKey(t)
	var a, b envelope
	if err := json.Unmarshal(sign(t, TypeModel, "{}", other), &a); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(sign(t, TypeModel, "{}", k), &b); err != nil {
		t.Fatal(err)
	}
	a.Signatures = append(a.Signatures, b.Signatures...)
	env, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := DevelopmentKeyring(k.Public()).Open(TypeModel, env); err != nil {
		t.Error(err)
	}
}

// The example of the DSSE specification, protocol.md, "Pre-Authentication
// Encoding".
func TestPreAuthenticationEncodingIsTheSpecified(t *testing.T) {
	got := string(preAuth("http://example.com/HelloWorld", []byte("hello world")))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestKeysSurviveTheirTextForm(t *testing.T) {
	k := newKey(t)
	text, err := k.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	back, err := ParsePrivateKey(append(text, '\n'))
	if err != nil || back.Public() != k.Public() {
		t.Fatalf("private key came back as another: %v", err)
	}
	ring := DevelopmentKeyring(k.Public())
	data, err := json.Marshal(ring)
	if err != nil {
		t.Fatal(err)
	}
	var got Keyring
	if err := json.Unmarshal(data, &got); err != nil || !got.Development {
		t.Fatalf("keyring came back as %+v, %v", got, err)
	}
	if _, err := got.Open(TypeDesired, sign(t, TypeDesired, "{}", back)); err != nil {
		t.Error(err)
	}
}

func TestBadKeysAreRefused(t *testing.T) {
	short := base64.StdEncoding.EncodeToString(make([]byte, 31))
	for _, text := range []string{"", "ed25519:", privatePrefix, privatePrefix + "!", privatePrefix + short} {
		if _, err := ParsePrivateKey([]byte(text)); err == nil {
			t.Errorf("private key %q was read", text)
		}
	}
	for _, text := range []string{"", ed25519Prefix, ed25519Prefix + "!", ed25519Prefix + short, privatePrefix + short, p256Prefix + base64.StdEncoding.EncodeToString(make([]byte, p256Size)), p256Prefix + base64.StdEncoding.EncodeToString(make([]byte, 32))} {
		if err := new(PublicKey).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("public key %q was read", text)
		}
	}
}

// Nothing opens but what the key signed, whatever was done to the envelope.
func FuzzOpen(f *testing.F) {
	k, err := ParsePrivateKey([]byte(privatePrefix + base64.StdEncoding.EncodeToString(make([]byte, 32))))
	if err != nil {
		f.Fatal(err)
	}
	payload := `{"v":1,"name":"vad"}`
	f.Add(sign(f, TypeModel, payload, k))
	f.Add(sign(f, TypeRelease, payload, k))
	f.Add([]byte(`{"payloadType":"` + TypeModel + `","payload":"e30=","signatures":[{"keyid":"","sig":""}]}`))
	ring := DevelopmentKeyring(k.Public())
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := ring.Open(TypeModel, data)
		if err == nil && string(got) != payload {
			t.Fatalf("opened %q, which was never signed", got)
		}
		if err != nil && got != nil {
			t.Fatal("error with a value")
		}
	})
}

// A public key that is read prints the same text.
func FuzzPublicKeyText(f *testing.F) {
	f.Add([]byte(ed25519Prefix + base64.StdEncoding.EncodeToString(make([]byte, 32))))
	f.Fuzz(func(t *testing.T, text []byte) {
		var k PublicKey
		if k.UnmarshalText(text) != nil {
			return
		}
		again, err := k.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		var back PublicKey
		if err := back.UnmarshalText(again); err != nil || back != k {
			t.Fatalf("%q came back as %q, %v", text, again, err)
		}
	})
}
