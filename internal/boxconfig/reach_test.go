package boxconfig_test

import (
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/boxconfig"
)

// TestSettingsSendOnlyWhereTheBoxPermits: a controller that was taken over must
// not aim results, inputs or passwords at hosts that nobody on the box allowed.
func TestSettingsSendOnlyWhereTheBoxPermits(t *testing.T) {
	for host, want := range map[string]bool{
		"192.168.1.7": true, "10.0.0.1": true, "127.0.0.1": true, "fe80::1": true, "fd00::7": true, "::ffff:10.0.0.1": true,
		"nvr": true, "nvr.local": true, "nvr.site.lan": true, "NVR.Local.": true, "hooks.example.com": true, "a.example.org": true, "203.0.113.9": true,
		"198.51.100.7": false, "::ffff:198.51.100.7": false, "2001:db8::1": false, "example.org": false, "evil.com": false, "local.evil.com": false,
		"hooks.example.com.evil.com": false, "169.254.169.254": true, "2130706433": false, "0x7f.1": false, "": false, "8.8": false,
		"0xcb007109": false, "0XCB007109": false, "evil．com": false, "evil。com": false, "evil。com.lan": false,
	} {
		a, err := boxconfig.ParseAllow([]string{"hooks.example.com", "*.example.org", "203.0.113.0/24"})
		if err != nil || a.Has(host) != want {
			t.Errorf("%s: %v, want %v (%v)", host, a.Has(host), want, err)
		}
	}
	for _, bad := range []string{"", "*.", "http://x.com", "a.com:80", "*.*.com", "a b"} {
		if _, err := boxconfig.ParseAllow([]string{bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	evil := boxconfig.Settings{
		"runner.inputs[c].url": "rtsp://evil.com/x", "runner.results.targets[t].url": "https://evil.com", "runner.routes[r].overflow[o].url": "grpcs://evil.com:443",
		"agent.proxy": "http://evil.com:3128", "agent.proxy_auth_file": "secret:p", "agent.server": "mqtts://evil.com:1", "runner.inputs[d].url": "http://nvr/x",
	}
	err := boxconfig.Allow{}.Check(evil)
	for _, path := range []string{"runner.inputs[c].url", "runner.results.targets[t].url", "runner.routes[r].overflow[o].url", "agent.proxy"} {
		if err == nil || !strings.Contains(err.Error(), path+": ") {
			t.Errorf("%s is not named: %v", path, err)
		}
	}
	if n := strings.Count(err.Error(), "settings_allow: [evil.com]"); n != 4 {
		t.Errorf("%d faults, want 4: %v", n, err)
	}
	all, _ := boxconfig.ParseAllow([]string{"*"})
	if err := all.Check(evil); err != nil {
		t.Error(err)
	}
}
