-- +goose Up
-- How far what is stored has safely arrived elsewhere, by receiver: an LSN.
CREATE TABLE export_cursor (name TEXT PRIMARY KEY, value BIGINT NOT NULL);
