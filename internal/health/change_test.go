package health

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestLoggedChangesMoveTheCleanBoxAndUnloggedOnesDoNot(t *testing.T) {
	shift := func(d float64, s *state) {
		if d > 60.4 {
			s.paste = 0.2
		}
	}
	for _, kind := range []string{"", Rollout, BIOS, PowerMode, Visit} {
		var changes []Change
		if kind != "" {
			changes = []Change{{At: t0 + 60*daySeconds + 9*hourSeconds, Box: "a", Kind: kind}}
		}
		r := Replay(tableOf(formula{name: "a", seed: 1, days: 100, how: shift}), changes, ReplayOptions{})
		if found := len(r.Findings) > 0; found != (kind == "") {
			t.Errorf("%q logged: findings %v at %v %%", kind, causes(r.Findings), r.Boxes[0].Resistance)
		}
	}
}

func TestChangeDoesNotHideAStepTooLargeForIt(t *testing.T) {
	how := func(d float64, s *state) {
		if d > 60.6 {
			s.clog = 1.2
		}
	}
	changes := []Change{{At: t0 + 60*daySeconds + 9*hourSeconds, Site: "shop", Kind: Rollout}}
	r := Replay(tableOf(formula{name: "a", seed: 1, days: 70, how: how}), changes, ReplayOptions{})
	if got := causes(r.Findings); !slices.Contains(got, CauseVent) {
		t.Fatalf("causes %v, want blocked-vent", got)
	}
	if late := float64(r.Findings[0].Opened-t0)/daySeconds - 60.6; late > 0.5 {
		t.Errorf("seen after %.1f days, want half a day at most", late)
	}
}

func TestStormOfDustIsNoVent(t *testing.T) {
	how := func(d float64, s *state) { s.clog = min(max(d-60, 0)*0.12, 1.2) }
	r := Replay(tableOf(formula{name: "a", seed: 1, days: 80, how: how}), nil, ReplayOptions{})
	if got := causes(r.Findings); !slices.Equal(got, []Cause{CauseAirflow}) {
		t.Fatalf("causes %v, want airflow", got)
	}
	if late := float64(r.Findings[0].Ticketed-t0)/daySeconds - 60; late > 6 {
		t.Errorf("ticket after %.1f days", late)
	}
}

func TestBoxOfAnySensorsHasAStateInJSON(t *testing.T) {
	for _, blank := range [][]Field{nil, {Inlet}, {Inlet, Board}, {Power}, {Power, Busy}, {RPM1, PWM}, {PWM, PWMSD}, {Die}, {Power, Busy, Inlet, Board, RPM1, PWM}} {
		b := New("a", "shop", "sku")
		f := formula{name: "a", seed: 5, days: 75, how: func(d float64, s *state) { s.clog, s.blank = ramp(d, 35, 35, 0.6), blank }}
		for i, h := range f.hours() {
			h.V[PSUIn], h.V[NVMeUsed] = h.V[Power]*1.2, 5
			Advance(b, &h, Env{})
			if i%24 != 0 {
				continue
			}
			if _, err := json.Marshal(b); err != nil {
				t.Fatalf("without %v, hour %d: %v", blank, i, err)
			}
		}
	}
}

func TestColumnsOfPartsAreRead(t *testing.T) {
	table, err := load(t, "box,time,die_c,nvme_used_percent,nvme_spare_percent,nvme_media_errors,psu_in_w,psu_out_w,psu_ok,psu_rpm,rpm2_sd\n"+
		"a,1767225600,50,12,100,3,80,70,0.5,4100,21\n")
	if err != nil || len(table.Notes) > 0 {
		t.Fatal(err, table.Notes)
	}
	h := hoursOf(table.Series[0])[0]
	got := []Value{h.V[NVMeUsed], h.V[NVMeSpare], h.V[NVMeErrors], h.V[PSUIn], h.V[PSUOut], h.V[PSUOK], h.V[PSUFan], h.V[RPMSD2]}
	if want := []Value{12, 100, 3, 80, 70, 0.5, 4100, 21}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// FuzzEvents: what is read is of a known kind, names a box or a site, and is
// in order.
func FuzzEvents(f *testing.F) {
	f.Add(exampleEvents)
	f.Add("time,box,kind\n1767225600,a,visit\n1,a,rollout\n")
	f.Add("kind,site,time\nbios,\"s,1\",2026-01-01T00:00:00Z\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, err := ReadEvents("f", strings.NewReader(text))
		if err != nil {
			if all != nil {
				t.Fatal("an error returned a value")
			}
			return
		}
		for i, c := range all {
			if !slices.Contains(changeKinds[:], c.Kind) || c.Box == "" && c.Site == "" || i > 0 && c.At < all[i-1].At {
				t.Fatalf("change %d of %+v", i, all)
			}
		}
	})
}
