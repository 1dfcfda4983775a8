-- +goose Up
-- What HELLO and the list of boxes ask for, kept at ingest so that neither
-- scans blocks or results.
CREATE TABLE box_schema (box TEXT NOT NULL, schema BLOB NOT NULL, since_ms INTEGER NOT NULL, PRIMARY KEY (box, schema)) WITHOUT ROWID;
INSERT INTO box_schema (box, schema, since_ms) SELECT box, schema, min(received_ms) FROM block WHERE kind = 1 GROUP BY box, schema;

CREATE TABLE reads_hour (
  hour_ms INTEGER NOT NULL, box TEXT NOT NULL, total INTEGER NOT NULL, checked INTEGER NOT NULL, right INTEGER NOT NULL,
  PRIMARY KEY (hour_ms, box)
) WITHOUT ROWID;
INSERT INTO reads_hour (hour_ms, box, total, checked, right)
  SELECT t_ms - t_ms % 3600000 AS hour, box, count(*), sum(want <> ''), sum(want <> '' AND want = text) FROM result GROUP BY hour, box;

-- 0 for a block whose content could not be read: kept, but never charted.
ALTER TABLE block ADD COLUMN decoded INTEGER NOT NULL DEFAULT 1;

-- Within one boot the monotonic clock orders reports; wall clocks step.
ALTER TABLE phase ADD COLUMN boot BLOB NOT NULL DEFAULT x'';
ALTER TABLE phase ADD COLUMN mono_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE phase ADD COLUMN seq INTEGER NOT NULL DEFAULT 0;

-- +goose Down
ALTER TABLE phase DROP COLUMN seq;
ALTER TABLE phase DROP COLUMN mono_ms;
ALTER TABLE phase DROP COLUMN boot;
ALTER TABLE block DROP COLUMN decoded;
DROP TABLE reads_hour;
DROP TABLE box_schema;
