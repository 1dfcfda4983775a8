package fleetapi

import "time"

// BoxFault is one kind of trouble with the messages of a box.
type BoxFault struct {
	// Cause is one word such as bad-seal; docs/operations.md explains each.
	Cause string    `json:"cause" example:"bad-seal"`
	Count int64     `json:"count" doc:"messages, blocks or connections"`
	First time.Time `json:"first"`
	Last  time.Time `json:"last"`
	Text  string    `json:"text" doc:"what was said the last time, in English"`
}

// BoxFaultList has the newest first. Trouble is forgotten 30 days after it ended.
type BoxFaultList struct {
	Items []BoxFault `json:"items"`
}
