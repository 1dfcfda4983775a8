package sense

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestConstantOfTheFirmwareIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := plant(t, "x86")
		s := New(Options{Root: root}, quiet())
		const constant, moving, board = "temp_celsius{nvme/Sensor_1}", "temp_celsius{coretemp/Core_0}", "temp_board_celsius"
		step := func(hour int) map[string]float64 {
			time.Sleep(time.Hour)
			put(t, root, "sys/class/hwmon/hwmon3/temp1_input", fmt.Sprint(50000+20000*(hour%2)))
			put(t, root, "sys/class/hwmon/hwmon3/temp2_input", fmt.Sprint(50000+100*hour))
			return readings(t, s)
		}
		for hour := range 24 {
			if got := step(hour); !has(got, constant) || !has(got, moving) {
				t.Fatalf("hour %d: %v", hour, got)
			}
		}
		for hour := range 5 {
			if got := step(24 + hour); has(got, constant) || !has(got, moving) || !has(got, board) {
				t.Errorf("after a day: %v", got)
			}
		}
		put(t, root, "sys/class/hwmon/hwmon0/temp2_input", "49860")
		if got := step(30); got[constant] != 49.86 {
			t.Errorf("it moves again: %v", got)
		}
	})
}
