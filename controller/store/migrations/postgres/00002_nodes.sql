-- +goose Up
-- Who talks with a box: the node, and the process and connection of the box
-- that said the last HELLO. No row: the box is not there.
CREATE TABLE session (box TEXT PRIMARY KEY, node TEXT NOT NULL, sid BYTEA NOT NULL, conn BIGINT NOT NULL);
