package main

import (
	"os"
	"strings"
	"testing"
	"time"
)

func TestFaultsOfExportsNameLineAndKey(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", ""},
		{"off, with other keys", "remote_write:\n  labels: {a: b}\nsparkplug:\n  group: x\n", ""},
		{"good", "remote_write:\n  url: https://m.example.com/api/v1/write\n  max_age: 2h\nsparkplug:\n  broker: mqtts://b.example.com:8883\n", ""},
		{"metrics for everyone", "state: x\nmetrics: 0.0.0.0:9464\n", `line 2: metrics: "0.0.0.0:9464" is not a loopback address`},
		{"no address", "remote_write:\n  series: [a]\n  url: m.example.com\n", "line 3: remote_write.url: "},
		{"a password", "remote_write:\n  url: https://u:hunter2@m.example.com/w\n", "line 2: remote_write.url: secrets do not belong"},
		{"a password, mistyped", "remote_write:\n  url: 'https://u:hunter2 @m.example.com/w'\n", "line 2: remote_write.url: not an address"},
		{"a password for a broker", "sparkplug:\n  broker: mqtts://u:hunter2@b.example.com\n", "line 2: sparkplug.broker: secrets do not belong"},
		{"no glob", "remote_write:\n  url: https://m.example.com/w\n  series:\n    - 'temp_['\n", "line 3: remote_write.series: "},
		{"a label that names the series", "remote_write:\n  url: https://m.example.com/w\n  labels: {box: x}\n", "line 3: remote_write.labels: "},
		{"user alone", "state: x\n\nremote_write: {url: 'https://m.example.com/w', user: a}\n", "line 3: remote_write.user: "},
		{"a key that is not there", "remote_write:\n  url: http://m.example.com/w\n  token_file: /t\n", "line 2: remote_write.url: a secret would travel in the clear"},
		{"a topic sign", "sparkplug:\n  broker: mqtt://b.example.com:1883\n  node: a/b\n", "line 3: sparkplug.node: "},
		{"broker without port", "sparkplug:\n  broker: mqtt://b.example.com\n", "line 2: sparkplug.broker: "},
		{"unknown key", "remote_write:\n  uri: x\n", `line 2: unknown key "uri"; the keys are url, series, `},
		{"unknown key of sparkplug", "sparkplug:\n  gruop: x\n", `line 2: unknown key "gruop"; the keys are broker, group, `},
		{"certificates for a week", "device_certificates: 7d\n", ""},
		{"certificates for a year", "device_certificates: 365d\n", `line 1: device_certificates: "365d" is not how long certificates of boxes last: want 1d to 60d`},
		{"certificates for ever", "device_certificates: never\n", "line 1: device_certificates: "},
		{"not a time", "remote_write:\n  max_age: long\n", "line 2: "},
	} {
		_, err := decodeServerConfig([]byte(c.text))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: want %q, got %v", c.name, c.want, err)
		}
	}
}

func TestExportsAreOffByDefault(t *testing.T) {
	cfg, err := decodeServerConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	if e := cfg.exports(); e.Metrics != "" || e.RemoteWrite.URL != "" || e.Sparkplug.Broker != "" {
		t.Errorf("on without a word: %+v", e)
	}
}

// TestTheExampleShowsTheDefaults: what people copy changes nothing by itself.
func TestTheExampleShowsTheDefaults(t *testing.T) {
	text, err := os.ReadFile("../../deploy/config/server.yaml")
	if err != nil {
		t.Fatal(err)
	}
	on := strings.NewReplacer(`url: ""`, `url: https://m.example.com/w`, "sparkplug:\n  broker: \"\"", "sparkplug:\n  broker: mqtts://b.example.com:8883", "max_age: 0s", "max_age: 720h").Replace(string(text))
	cfg, err := decodeServerConfig([]byte(on))
	if err != nil {
		t.Fatal(err)
	}
	e := cfg.exports()
	for _, metric := range []string{"temp_die_celsius", "fan_rpm{rear}", "disk_free_bytes", "uptime_seconds", "load1"} {
		if want := e.RemoteWrite.Series[:0].Match(metric); e.RemoteWrite.Series.Match(metric) != want || e.Sparkplug.Series.Match(metric) != want {
			t.Errorf("%s: the example differs from the default", metric)
		}
	}
	if e.RemoteWrite.MaxAge != 720*time.Hour || e.Sparkplug.Group != "edgeherd" || e.Sparkplug.Node != "edgeherd" {
		t.Errorf("read as %+v", e)
	}
}
