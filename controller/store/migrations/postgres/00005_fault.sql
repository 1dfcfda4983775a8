-- +goose Up
-- What goes wrong with the messages of a box, counted by cause.
CREATE TABLE fault (
  box TEXT NOT NULL, cause TEXT NOT NULL, n BIGINT NOT NULL, first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL, text TEXT NOT NULL,
  PRIMARY KEY (box, cause)
);
-- Which machines said HELLO as a box lately: a hash of hardware and boot.
CREATE TABLE claim (
  box TEXT NOT NULL, machine BYTEA NOT NULL, first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL, words TEXT NOT NULL,
  PRIMARY KEY (box, machine)
);
-- Boxes that are two machines at once.
CREATE TABLE contest (box TEXT PRIMARY KEY, since_ms BIGINT NOT NULL);
