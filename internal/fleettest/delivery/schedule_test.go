package delivery

import (
	"fmt"
	"maps"
	"path/filepath"
	"testing/synctest"
	"time"
)

// The faults by name, for the report.
const (
	faultCut       = "cut"
	faultSilence   = "silent network"
	faultOutage    = "hours without network"
	faultKill      = "kill a box"
	faultRestart   = "restart a box"
	faultImage     = "disk image"
	faultClone     = "clone"
	faultClock     = "clock step"
	faultStop      = "restart the controller"
	faultBroker    = "restart the broker"
	faultDie       = "kill the controller"
	faultDieAck    = "kill between commit and ACK"
	faultRestore   = "restore the database"
	faultRefuse    = "controller takes nothing"
	faultFullDisk  = "full disk of the controller"
	faultBoxDisk   = "full disk of a box"
	faultMessages  = "messages lost, late, twice"
	maxStations    = 4
	stationsOfABox = 2
)

var faultNames = []string{faultCut, faultSilence, faultOutage, faultKill, faultRestart, faultImage, faultClone, faultClock, faultStop,
	faultBroker, faultDie, faultDieAck, faultRestore, faultRefuse, faultFullDisk, faultBoxDisk, faultMessages}

// schedule does random things to the world.
func (w *world) schedule(steps int) map[string]int {
	rng := w.plan
	counts := map[string]int{}
	var backups []string
	backup := func() {
		path := filepath.Join(w.ctl.vault, fmt.Sprintf("backup-%d.db", len(backups)))
		w.ctl.image(path)
		backups = append(backups, path)
	}
	backup()
	for range steps {
		s := w.stations[rng.IntN(len(w.stations))]
		what := ""
		switch n := rng.IntN(100); {
		case n < 40:
			s.append(1 + rng.IntN(30))
		case n < 46:
			what = faultCut
			w.net.Cut(s.host, "ctl")
		case n < 50:
			what = faultSilence
			w.net.Blackhole(s.host, "ctl")
		case n < 58:
			w.net.Heal(s.host, "ctl")
		case n < 61:
			what = faultOutage
			w.outage(s)
		case n < 65:
			what = faultKill
			s.die()
		case n < 68:
			what = faultRestart
			s.stop()
			s.start()
		case n < 71:
			s.images = append(s.images, s.image(filepath.Join(s.vault, fmt.Sprintf("image-%d.db", len(s.images)))))
		case n < 73:
			if len(s.images) > 0 {
				what = faultImage
				s.replaceDisk(s.images[rng.IntN(len(s.images))])
			}
		case n < 75:
			if w.clone(s) {
				what = faultClone
			}
		case n < 77:
			what = faultClock
			s.skew.Add(int64(time.Duration(rng.IntN(2000)-1000) * time.Hour))
		case n < 79:
			what = faultStop
			w.ctl.restart()
		case n < 80:
			what = faultBroker
			w.ctl.stopBroker()
			w.ctl.startBroker()
		case n < 82:
			what = faultDie
			w.ctl.die()
		case n < 83:
			w.ctl.compact()
		case n < 85:
			if w.ctl.dieBeforeAck() {
				what = faultDieAck
			}
		case n < 88:
			backup()
		case n < 91:
			what = faultRestore
			w.ctl.restore(backups[len(backups)-1-min(rng.IntN(len(backups)), rng.IntN(len(backups)))])
		case n < 92:
			what = faultRefuse
			w.ctl.set(func(c *center) { c.moods.refuse = 1 - c.moods.refuse })
		case n < 94:
			if w.ctl.disk.fill() {
				what = faultFullDisk
			}
		case n < 96:
			if s.disk.fill() {
				what = faultBoxDisk
			}
		case n < 97:
			w.ctl.disk.free()
			s.disk.free()
		default:
			what = faultMessages
			share := func() float64 { return max(0, rng.Float64()-0.5) }
			m := moods{swallow: share(), again: share(), loseAck: share(), lateAck: share(), twice: share()}
			w.ctl.set(func(c *center) { m.refuse = c.moods.refuse; c.moods = m })
		}
		if what != "" {
			counts[what]++
		}
		time.Sleep(time.Duration(rng.IntN(40_000)) * time.Millisecond)
	}
	if rng.IntN(2) == 0 { // nothing that comes later shall hide what this does
		counts[faultRestore]++
		w.calm()
		time.Sleep(2 * time.Minute)
		backup()
		for _, s := range w.stations {
			s.append(1 + rng.IntN(10))
		}
		time.Sleep(time.Duration(rng.IntN(30_000)) * time.Millisecond)
		w.ctl.restore(backups[len(backups)-1])
	}
	return counts
}

// outage takes a station off the network for hours in which it goes on
// measuring. Before, some of its blocks may have been stored without an ACK.
func (w *world) outage(s *station) {
	most := 20
	if w.tight && w.plan.IntN(2) == 0 {
		most = 150 // more than exact samples have room for
		var before moods
		w.ctl.set(func(c *center) { before, c.moods.loseAck = c.moods, 1 })
		for range 5 {
			s.append(1 + w.plan.IntN(8))
			time.Sleep(30 * time.Second)
		}
		w.ctl.set(func(c *center) { c.moods = before })
	}
	w.net.Cut(s.host, "ctl")
	for range 6 + w.plan.IntN(6) {
		s.append(1 + w.plan.IntN(most))
		time.Sleep(time.Duration(5+w.plan.IntN(15)) * time.Minute)
	}
	w.net.Heal(s.host, "ctl")
}

// clone starts a second station from a copy of a disk.
func (w *world) clone(s *station) bool {
	same := 0
	for _, o := range w.stations {
		if o.id.ID == s.id.ID {
			same++
		}
	}
	if len(w.stations) == maxStations || same == stationsOfABox {
		return false
	}
	c := &station{w: w, id: s.id, host: s.host + "-clone", disk: newDisk(w.t), vault: w.t.TempDir(), room: s.room, has: maps.Clone(s.has)}
	c.skew.Store(s.skew.Load())
	s.image(c.path())
	c.reboot()
	c.start()
	w.stations = append(w.stations, c)
	return true
}

// calm ends all faults.
func (w *world) calm() {
	w.ctl.set(func(c *center) { c.moods = moods{} })
	w.ctl.disk.free()
	for _, s := range w.stations {
		s.disk.free()
		w.net.Heal(s.host, "ctl")
	}
	w.ctl.delayed.Wait()
	synctest.Wait()
}
