-- +goose Up
-- What people set for a site, as JSON; the defaults of all sites have no name.
CREATE TABLE site (name TEXT PRIMARY KEY, settings TEXT NOT NULL, changed_ms BIGINT NOT NULL, changed_by TEXT NOT NULL);
-- Counting the connected boxes of a site must not read the rows of boxes.
CREATE INDEX box_site ON box (site, connected);
