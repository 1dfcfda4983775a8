-- +goose Up
-- What a version was that is gone: its number never names anything else.
CREATE TABLE model_retired (name TEXT NOT NULL, version TEXT NOT NULL, manifest TEXT NOT NULL, retired_ms BIGINT NOT NULL, PRIMARY KEY (name, version));
