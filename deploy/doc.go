// Package deploy holds what an installation needs beside the programs: systemd
// units, configuration files with every key explained, what Prometheus and
// Grafana need, and the steps that join them, in README.md. It has no code; its
// tests read these files as systemd, the programs, a database and a person with
// a terminal would.
//
// The one rule a caller can break: a key, flag or step that is shown here must
// exist, and each key must be shown.
package deploy
