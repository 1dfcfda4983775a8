package boxconfig

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode"
)

// Allow are hosts outside the site's own network that settings may name. The
// zero Allow has none.
type Allow struct {
	all      bool
	networks []netip.Prefix
	names    []string // *.example.com stands for all below
}

// ParseAllow reads hosts: a name, *.NAME, an address, a network, or * for all.
func ParseAllow(words []string) (Allow, error) {
	var a Allow
	for _, w := range words {
		if w == "*" {
			a.all = true
			continue
		}
		w = strings.ToLower(strings.TrimSuffix(w, "."))
		if p, err := netip.ParsePrefix(w); err == nil {
			a.networks = append(a.networks, p.Masked())
			continue
		}
		if ip, err := netip.ParseAddr(w); err == nil {
			a.networks = append(a.networks, netip.PrefixFrom(ip, ip.BitLen()))
			continue
		}
		if name := strings.TrimPrefix(w, "*."); name == "" || strings.ContainsAny(name, "*/:@ ") {
			return Allow{}, fmt.Errorf("%.80q is no host: want a name, *.NAME, an address, a network such as 203.0.113.0/24, or * for all", w)
		}
		a.names = append(a.names, w)
	}
	return a, nil
}

// ownNames end names that no public server of names answers for: RFC 6762, RFC
// 8375, and those that are reserved for it.
var ownNames = []string{".local", ".home.arpa", ".lan", ".internal", ".localhost"}

// Has reports whether the box may send to a host: it is of the site's own
// network, or allowed.
func (a Allow) Has(host string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.WithZone("").Unmap()
		own := ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast()
		return a.all || own || slices.ContainsFunc(a.networks, func(p netip.Prefix) bool { return p.Contains(ip) })
	}
	if last := host[strings.LastIndexByte(host, '.')+1:]; strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return false // 2130706433, 0x7f.1, 0xcb007109: systems take those for addresses
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r > unicode.MaxASCII }) {
		return a.all // such a character may stand for a dot, or for a letter of another name
	}
	if a.all || !strings.Contains(host, ".") || slices.ContainsFunc(ownNames, func(end string) bool { return strings.HasSuffix(host, end) }) {
		return true
	}
	return slices.ContainsFunc(a.names, func(name string) bool {
		if end, below := strings.CutPrefix(name, "*"); below {
			return strings.HasSuffix(host, end)
		}
		return name == host
	})
}

// Check names the settings by which the box would send to a host that is not
// allowed.
func (a Allow) Check(s Settings) error {
	var errs []error
	for _, path := range slices.Sorted(maps.Keys(s)) {
		f, _ := FieldOf(path)
		text, _ := s[path].(string)
		if path == "agent.proxy" && s.text("agent.proxy_auth_file") != "" {
			f.Host = true // it is told the password
		}
		if !f.Host || text == "" {
			continue
		}
		u, err := url.Parse(text)
		if err != nil || u.Host == "" {
			errs = append(errs, fmt.Errorf("%s: %.80q has no host", path, text))
		} else if !a.Has(u.Hostname()) {
			errs = append(errs, fmt.Errorf("%s: settings of the fleet may send to this box's own network alone, and %s is beyond it; somebody on the box allows it in agent.yaml: settings_allow: [%s]", path, u.Hostname(), u.Hostname()))
		}
	}
	return errors.Join(errs...)
}
