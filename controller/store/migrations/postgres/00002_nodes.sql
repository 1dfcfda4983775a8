-- +goose Up
-- Who talks with a box: the node, and the process and connection of the box
-- that said the last HELLO. No row: the box is not there.
CREATE TABLE session (box TEXT PRIMARY KEY, node TEXT NOT NULL, sid BYTEA NOT NULL, conn BIGINT NOT NULL);

-- Controllers that share this database, and until when each counts as alive.
CREATE TABLE node (id TEXT PRIMARY KEY, name TEXT NOT NULL, watching BOOLEAN NOT NULL, until_ms BIGINT NOT NULL);
-- What one controller does for all; token grows each time it passes on.
CREATE TABLE lease (name TEXT PRIMARY KEY, node TEXT NOT NULL, token BIGINT NOT NULL, until_ms BIGINT NOT NULL);
-- What all controllers must have in common: keys and the folder of blobs.
CREATE TABLE fleet (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE INDEX session_node ON session (node);
