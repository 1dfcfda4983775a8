// Package accept is the acceptance test of a box: what integrators do by hand
// before they hand a machine over, measured, judged, signed and kept.
//
//	hardware    what is built in, and whether its values are plausible
//	system      operating system, kernel, drivers, ONNX Runtime, container engines
//	load        known samples, sustained inference with its curve of heat, memory,
//	            disk, network
//	operations  delivery list, configuration, versions, clock, way to the controller
//
// Facts are measured in one half of the package (measure….go) and judged in the
// other (judge….go), which is pure. A delivery list says what was ordered; without
// one, values are only asked to be plausible. Fans are looked at and never
// driven. The load ends by itself when the die gets hotter than it may.
//
// Reports are internal/acceptance.Report, sealed with the box's key:
//
//	STATE/accept/<id>.json        sealed, not with the controller yet
//	STATE/accept/<id>.sent.json   sealed, and received by the controller; the newest 20
//	STATE/accept/order.json       the last order of the controller that was begun
//
// The one rule a caller can break: one test at a time on a box (Lock), or the two
// measure each other.
package accept
