package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// body is a JSON object. The simulator writes metadata without the library that
// the client reads it with, and so also what that library would not write.
type body = map[string]any

// sim is a repository as the specification allows one: any keys and roles, each
// document as the test has left it when it was published.
type sim struct {
	t         *testing.T
	roles     map[string]body     // what publish signs
	signers   map[string][]*key   // by role
	signed    map[string][][]byte // what is served: version n is the n-th
	artifacts map[string]artifact // by target path
	sums      bool                // snapshot and timestamp say lengths and hashes

	asked   []string // metadata, as "role version", in order
	fetched []string // artifacts, by the path in the request
}

type artifact struct {
	data   []byte
	hashes body
}

// days is a time from now as metadata has it.
func days(n int) string {
	return time.Now().UTC().AddDate(0, 0, n).Format("2006-01-02T15:04:05Z")
}

func newSim(t *testing.T) *sim {
	r := &sim{t: t, roles: map[string]body{}, signers: map[string][]*key{}, signed: map[string][][]byte{}, artifacts: map[string]artifact{}}
	r.roles["root"] = body{"consistent_snapshot": true, "keys": body{}, "roles": body{}}
	r.roles["timestamp"], r.roles["snapshot"] = body{"meta": body{}}, body{"meta": body{}}
	r.roles["targets"] = body{"targets": body{}}
	for _, role := range []string{"root", "timestamp", "snapshot", "targets"} {
		maps.Copy(r.roles[role], body{"_type": role, "spec_version": "1.0.31", "expires": days(30)})
		r.at("root", "roles")[role] = body{"keyids": []any{}, "threshold": 1}
		r.authorise(role, newKey(t, "ed25519"))
	}
	r.publish("root", "targets", "snapshot", "timestamp")
	return r
}

// at is the object at a path in what a role will say.
func (r *sim) at(role string, path ...string) body {
	o := r.roles[role]
	for _, name := range path {
		o = o[name].(body)
	}
	return o
}

// authorise lets keys sign a role of root, and signs it with them.
func (r *sim) authorise(role string, keys ...*key) {
	entry := r.at("root", "roles", role)
	for _, k := range keys {
		r.at("root", "keys")[k.id] = k.public
		entry["keyids"] = append(entry["keyids"].([]any), k.id)
	}
	r.signers[role] = append(r.signers[role], keys...)
}

// rotate gives a role of root a new key instead of those that it has.
func (r *sim) rotate(role string) {
	r.at("root", "roles", role)["keyids"], r.signers[role] = []any{}, nil
	r.authorise(role, newKey(r.t, "ed25519"))
}

// delegate lets a role delegate to another with a key of its own. More is added
// to the delegation.
func (r *sim) delegate(from, to string, more body) {
	if r.roles[from]["delegations"] == nil {
		r.roles[from]["delegations"] = body{"keys": body{}, "roles": []any{}}
	}
	if r.roles[to] == nil {
		r.roles[to] = body{"_type": "targets", "spec_version": "1.0.31", "expires": days(30), "targets": body{}}
	}
	k := newKey(r.t, "ed25519")
	r.signers[to] = append(r.signers[to], k)
	d := r.at(from, "delegations")
	d["keys"].(body)[k.id] = k.public
	entry := body{"name": to, "keyids": []any{k.id}, "threshold": 1, "terminating": false}
	maps.Copy(entry, more)
	d["roles"] = append(d["roles"].([]any), entry)
}

// list lets a role list an artifact and serves it.
func (r *sim) list(role, path, content string, algorithms ...string) {
	data, hashes := []byte(content), body{}
	if len(algorithms) == 0 {
		algorithms = []string{"sha256"}
	}
	for _, a := range algorithms {
		hashes[a] = sumOf(a, data)
	}
	r.at(role, "targets")[path] = body{"length": len(data), "hashes": hashes}
	r.artifacts[path] = artifact{data, hashes}
}

func sumOf(algorithm string, data []byte) string {
	if algorithm == "sha256" {
		sum := sha256.Sum256(data)
		return hex.EncodeToString(sum[:])
	}
	sum := sha512.Sum512(data)
	return hex.EncodeToString(sum[:])
}

// publish signs the next version of roles, each with all its signers, and names
// it where the next role says it. The version is one more than the role has.
func (r *sim) publish(roles ...string) {
	for _, role := range roles {
		version, _ := r.roles[role]["version"].(int)
		r.roles[role]["version"] = version + 1
		data := r.sign(role)
		r.signed[role] = append(r.signed[role], data)
		meta := body{"version": version + 1}
		if r.sums {
			meta["length"], meta["hashes"] = len(data), body{"sha256": sumOf("sha256", data)}
		}
		switch role {
		case "root", "timestamp":
		case "snapshot":
			r.at("timestamp", "meta")["snapshot.json"] = meta
		default:
			r.at("snapshot", "meta")[role+".json"] = meta
		}
	}
}

// sign is a role as it is, signed.
func (r *sim) sign(role string) []byte {
	message := canonical(r.t, r.roles[role])
	signatures := []any{}
	for _, k := range r.signers[role] {
		signatures = append(signatures, body{"keyid": k.id, "sig": hex.EncodeToString(k.sign(message))})
	}
	data, err := json.Marshal(body{"signed": r.roles[role], "signatures": signatures})
	if err != nil {
		r.t.Fatal(err)
	}
	return data
}

// forget begins a role again: its next version is the first.
func (r *sim) forget(role string) {
	delete(r.signed, role)
	delete(r.roles[role], "version")
}

// tamper changes the newest document of a role after it was signed.
func (r *sim) tamper(role string, change func(d body)) {
	last := &r.signed[role][len(r.signed[role])-1]
	var d body
	if err := json.Unmarshal(*last, &d); err != nil {
		r.t.Fatal(err)
	}
	change(d)
	data, err := json.Marshal(d)
	if err != nil {
		r.t.Fatal(err)
	}
	*last = data
}

// ServeHTTP serves /metadata/ and /targets/. Requests are kept as they were
// written, with what is escaped in them.
func (r *sim) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if name, ok := strings.CutPrefix(req.URL.EscapedPath(), "/metadata/"); ok {
		r.serve(w, r.document(strings.TrimSuffix(name, ".json")))
	} else if name, ok := strings.CutPrefix(req.URL.EscapedPath(), "/targets/"); ok {
		r.fetched = append(r.fetched, name)
		r.serve(w, r.artifact(name))
	}
}

func (r *sim) serve(w http.ResponseWriter, data []byte) {
	if data == nil {
		w.WriteHeader(http.StatusNotFound)
	}
	w.Write(data)
}

// document is what is served under a name: that of a version, or the newest.
func (r *sim) document(name string) []byte {
	version, role, numbered := strings.Cut(name, ".")
	n, err := strconv.Atoi(version)
	if numbered = numbered && err == nil; numbered {
		r.asked = append(r.asked, role+" "+version)
	} else {
		role = name
		r.asked = append(r.asked, role)
	}
	if role, err = url.PathUnescape(role); err != nil {
		return nil
	}
	have := r.signed[role]
	switch {
	case !numbered && len(have) > 0:
		return have[len(have)-1]
	case numbered && n > 0 && n <= len(have):
		return have[n-1]
	}
	return nil
}

// artifact is what is served under a name that begins with a hash, if the root
// says so.
func (r *sim) artifact(escaped string) []byte {
	name, err := url.PathUnescape(escaped)
	if err != nil {
		return nil
	}
	if r.roles["root"]["consistent_snapshot"] == false {
		return r.artifacts[name].data
	}
	dir, file := name[:strings.LastIndex(name, "/")+1], name[strings.LastIndex(name, "/")+1:]
	hash, file, _ := strings.Cut(file, ".")
	a := r.artifacts[dir+file]
	for _, h := range a.hashes {
		if h == hash {
			return a.data
		}
	}
	return nil
}

// canonical is the form that signatures are over: sorted names, no white space,
// and only the quote and the backslash escaped.
func canonical(t *testing.T, v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var plain any
	if err := d.Decode(&plain); err != nil {
		t.Fatal(err)
	}
	return appendCanonical(nil, plain)
}

func appendCanonical(out []byte, v any) []byte {
	switch v := v.(type) {
	case body:
		out = append(out, '{')
		for i, name := range slices.Sorted(maps.Keys(v)) {
			if i > 0 {
				out = append(out, ',')
			}
			out = append(appendCanonical(out, name), ':')
			out = appendCanonical(out, v[name])
		}
		return append(out, '}')
	case []any:
		out = append(out, '[')
		for i, one := range v {
			if i > 0 {
				out = append(out, ',')
			}
			out = appendCanonical(out, one)
		}
		return append(out, ']')
	case string:
		out = append(out, '"')
		out = append(out, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v)...)
		return append(out, '"')
	case nil:
		return append(out, "null"...)
	}
	return fmt.Append(out, v) // numbers and truth
}
