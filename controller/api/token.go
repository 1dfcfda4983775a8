package api

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"math"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// maxTokenBytes bounds what a page token decodes to.
const maxTokenBytes = 6 << 10

// place is where a page ended: what the last box of it had in every field that
// an order can name. The next page begins after that place, even when the box
// has moved or is gone. It is no secret and needs no signature: a forged one
// shows its forger another part of the same list.
type place struct {
	Query      string              `json:"q"` // queryHash of filter and order
	ID         identity.ID         `json:"i"`
	Name       string              `json:"n"`
	Site       string              `json:"s"`
	State      string              `json:"e"`
	Labels     map[string]string   `json:"b,omitempty"`
	Link       fleetapi.Link       `json:"l"`
	Health     fleetapi.Health     `json:"h"`
	Update     fleetapi.Update     `json:"u"`
	Class      string              `json:"c"`
	Arch       string              `json:"a"`
	Agent      string              `json:"g"`
	Simulated  bool                `json:"m"`
	Temp       *float64            `json:"t"`
	Resistance *float64            `json:"r"`
	Causes     []string            `json:"f"`
	Models     []fleetapi.BoxModel `json:"o"`
}

// queryHash ties a page token to its filter and order.
func queryHash(filter, order string) string {
	sum := sha256.Sum256([]byte(filter + "\x00" + order))
	return hex.EncodeToString(sum[:8])
}

func pageToken(query string, b fleetapi.Box) string {
	p := place{
		Query: query, ID: b.ID, Name: b.Name, Site: b.Site, Link: b.Link, Health: b.Health, Update: b.Update,
		State: b.State, Labels: b.Labels, Class: b.Inventory.Class, Arch: b.Inventory.Arch, Agent: b.Inventory.Agent, Simulated: b.Simulated,
	}
	if v, ok := b.Latest["temp_die_celsius"]; ok {
		p.Temp = &v.Value
	}
	p.Causes = b.Thermal.Causes
	if b.Thermal.Known {
		p.Resistance = &b.Thermal.Percent
	}
	for _, m := range b.Models {
		p.Models = append(p.Models, fleetapi.BoxModel{Name: m.Name, RunningVersion: m.RunningVersion})
	}
	data, err := json.Marshal(p)
	if err != nil {
		panic("api: a place always encodes: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(data)
}

func readToken(token string) (place, error) {
	var p place
	data, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(data) > maxTokenBytes || json.Unmarshal(data, &p) != nil || p.Query == "" {
		return place{}, badRequest("Begin again without page_token.", "the page token is not one of this API")
	}
	return p, nil
}

// box is a stand-in that sorts where the last box of the page before was.
func (p place) box() fleetapi.Box {
	b := fleetapi.Box{
		ID: p.ID, Name: p.Name, Site: p.Site, State: p.State, Labels: p.Labels, Link: p.Link, Health: p.Health, Update: p.Update, Simulated: p.Simulated,
		Inventory: wire.Inventory{Class: p.Class, Arch: p.Arch, Agent: p.Agent}, Models: p.Models,
		Latest: map[string]fleetapi.Value{},
	}
	b.Thermal.Causes = p.Causes
	if p.Temp != nil {
		b.Latest["temp_die_celsius"] = fleetapi.Value{Value: *p.Temp}
	}
	if p.Resistance != nil {
		b.Thermal = fleetapi.Thermal{Known: true, Percent: *p.Resistance, Causes: p.Causes}
	}
	return b
}

// after returns the boxes, which are in order, that come after the page that
// the token ended.
func after(boxes []fleetapi.Box, token, query, order string) ([]fleetapi.Box, error) {
	p, err := readToken(token)
	if err != nil {
		return nil, err
	}
	if p.Query != query {
		return nil, badRequest("Begin again without page_token.", "the page token belongs to another filter or order")
	}
	// Sorting is stable and names are unique: at the end of the slice the
	// stand-in comes right after its own box, and at a place of its own when
	// that box has moved.
	standIn := p.box()
	standIn.DesiredGeneration = math.MaxUint64 // no box gets there
	all := append(append(make([]fleetapi.Box, 0, len(boxes)+1), boxes...), standIn)
	if err := registry.Sort(all, order); err != nil {
		return nil, badRequest("", "%s", err)
	}
	for i := range all {
		if all[i].DesiredGeneration == standIn.DesiredGeneration {
			return all[i+1:], nil
		}
	}
	panic("api: sorting keeps every box")
}
