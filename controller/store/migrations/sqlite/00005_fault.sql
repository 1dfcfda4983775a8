-- +goose Up
-- What goes wrong with the messages of a box, counted by cause.
CREATE TABLE fault (
  box TEXT NOT NULL, cause TEXT NOT NULL, n INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, text TEXT NOT NULL,
  PRIMARY KEY (box, cause)
) WITHOUT ROWID;
-- Which machines said HELLO as a box lately: a hash of hardware and boot.
CREATE TABLE claim (
  box TEXT NOT NULL, machine BLOB NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, words TEXT NOT NULL,
  PRIMARY KEY (box, machine)
) WITHOUT ROWID;
-- Boxes that are two machines at once.
CREATE TABLE contest (box TEXT PRIMARY KEY, since_ms INTEGER NOT NULL) WITHOUT ROWID;
