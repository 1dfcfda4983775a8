-- +goose Up
-- One row: the present run, the number of the last commit, the life of the
-- database to which both belong, and the transaction that wrote the row.
-- restores counts how often this database came back from a backup, restored is
-- how far the last time is dealt with: 1 nobody opened it since, 2 rollouts run
-- on, 3 they are paused.
CREATE TABLE meta (
  one BIGINT PRIMARY KEY CHECK (one = 1), run BYTEA NOT NULL, lsn BIGINT NOT NULL,
  epoch TEXT NOT NULL, xid TEXT NOT NULL,
  restores BIGINT NOT NULL DEFAULT 0, restored BIGINT NOT NULL DEFAULT 0, restored_ms BIGINT NOT NULL DEFAULT 0
);
INSERT INTO meta (one, run, lsn, epoch, xid) VALUES (1, '', 0, '', '');

-- One row per life of this database. end_lsn is NULL for the current life.
CREATE TABLE run (id BYTEA PRIMARY KEY, started_ms BIGINT NOT NULL, start_lsn BIGINT NOT NULL, end_lsn BIGINT);

CREATE TABLE box (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, site TEXT NOT NULL, enrolled_ms BIGINT NOT NULL,
  last_seen_ms BIGINT NOT NULL DEFAULT 0, connected BOOLEAN NOT NULL DEFAULT false,
  inventory TEXT NOT NULL DEFAULT '{}', buffer TEXT NOT NULL DEFAULT '{}', running TEXT NOT NULL DEFAULT '{}',
  desired_generation BIGINT NOT NULL DEFAULT 0, desired TEXT NOT NULL DEFAULT '', desired_envelope BYTEA,
  restores BIGINT NOT NULL DEFAULT 0 -- of meta, when the box was heard
);
CREATE UNIQUE INDEX box_name ON box (name);

-- The wall clock of the controller minus the monotonic clock of one boot.
CREATE TABLE boot (box TEXT NOT NULL, boot BYTEA NOT NULL, offset_ms BIGINT NOT NULL, PRIMARY KEY (box, boot));

CREATE TABLE schema (id BYTEA PRIMARY KEY, body BYTEA NOT NULL);

-- The keys of all blocks that were ever stored, those of 64 sequence numbers in
-- a row: 1 byte of the number and 8 of the hash for each. Never deleted while
-- the box may send them again. Keys never contain time. Rows that a box adds to
-- now are in open_keys of newest instead, which counts.
CREATE TABLE block_key (
  box TEXT NOT NULL, sid BIGINT NOT NULL, lane BIGINT NOT NULL, chunk BIGINT NOT NULL, body BYTEA NOT NULL,
  PRIMARY KEY (box, sid, lane, chunk)
) WITH (fillfactor = 60);

-- Samples as they came, a row a block or pack, until their hour is closed. The
-- upper bits of an id are the LSN, the lower 20 number the rows of a commit. An
-- era is some thousand rows that came after each other.
CREATE TABLE sample (id BIGINT PRIMARY KEY, era BIGINT NOT NULL, box TEXT NOT NULL, t0_ms BIGINT NOT NULL, t1_ms BIGINT NOT NULL, body BYTEA NOT NULL);
CREATE INDEX sample_time ON sample (era, box, t0_ms);

-- Samples of closed hours, a row a box and hour; more parts when one would grow
-- too large. lsn is the highest of what is in it, rev counts its changes. A pack
-- has its hourly values with it.
CREATE TABLE sample_hour (
  box TEXT NOT NULL, hour_ms BIGINT NOT NULL, part BIGINT NOT NULL, rev BIGINT NOT NULL, lsn BIGINT NOT NULL,
  t0_ms BIGINT NOT NULL, t1_ms BIGINT NOT NULL, rollups BYTEA, body BYTEA NOT NULL,
  PRIMARY KEY (box, hour_ms, part)
) PARTITION BY RANGE (hour_ms); -- by the month: partition.go
CREATE INDEX sample_hour_lsn ON sample_hour (lsn);

-- Least, middle, greatest value, sum and number of every metric of the row of
-- sample_hour of the same name, by hour, unless that has them.
CREATE TABLE rollup_hour (
  box TEXT NOT NULL, hour_ms BIGINT NOT NULL, part BIGINT NOT NULL, body BYTEA NOT NULL,
  PRIMARY KEY (box, hour_ms, part)
) PARTITION BY RANGE (hour_ms);

-- Bodies are compressed already.
ALTER TABLE sample_hour ALTER COLUMN body SET STORAGE EXTERNAL, ALTER COLUMN rollups SET STORAGE EXTERNAL;
ALTER TABLE rollup_hour ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE TABLE sample_hour_other PARTITION OF sample_hour DEFAULT;
CREATE TABLE rollup_hour_other PARTITION OF rollup_hour DEFAULT;

-- What changes with every message of a box. buffer is NULL until a message says
-- it after a HELLO.
CREATE TABLE newest (
  box TEXT PRIMARY KEY, seen_ms BIGINT NOT NULL, buffer TEXT, schemas BYTEA NOT NULL, latest BYTEA, open_keys BYTEA NOT NULL
) WITH (fillfactor = 60); -- room on the page for the next version of a row

-- Sealed blocks of all other kinds as they came, and samples that could not be
-- read. Their ids are as those of samples.
CREATE TABLE block (
  id BIGINT PRIMARY KEY, box TEXT NOT NULL, kind BIGINT NOT NULL, t0_ms BIGINT NOT NULL, t1_ms BIGINT NOT NULL,
  received_ms BIGINT NOT NULL, body BYTEA NOT NULL
);

CREATE TABLE event (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, box TEXT NOT NULL, t_ms BIGINT NOT NULL, type TEXT NOT NULL, text TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX event_time ON event (box, t_ms);
CREATE TABLE result (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, box TEXT NOT NULL, t_ms BIGINT NOT NULL, input TEXT NOT NULL, pipeline TEXT NOT NULL, item TEXT NOT NULL,
  text TEXT NOT NULL, want TEXT NOT NULL, score DOUBLE PRECISION NOT NULL, latency DOUBLE PRECISION NOT NULL, models TEXT NOT NULL
);
CREATE INDEX result_time ON result (box, t_ms);
CREATE TABLE gap (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, box TEXT NOT NULL, sid BYTEA NOT NULL, lane BIGINT NOT NULL, lo BIGINT NOT NULL, hi BIGINT NOT NULL, n BIGINT NOT NULL, reason TEXT NOT NULL, t_ms BIGINT NOT NULL);

-- Kept at ingest so that the list of boxes scans no results.
CREATE TABLE reads_hour (
  hour_ms BIGINT NOT NULL, box TEXT NOT NULL, total BIGINT NOT NULL, checked BIGINT NOT NULL, correct BIGINT NOT NULL,
  PRIMARY KEY (hour_ms, box)
);

-- What models saw and answered (drift.Sketch), by input and hour of counting.
CREATE TABLE drift_hour (
  box TEXT NOT NULL, hour_ms BIGINT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, input TEXT NOT NULL, body BYTEA NOT NULL,
  PRIMARY KEY (box, hour_ms, model, version, input)
);
CREATE INDEX drift_hour_model ON drift_hour (model, version, hour_ms);
-- The sum of the week that began with the first hour of a version. It stays when
-- its hours go.
CREATE TABLE drift_reference (
  box TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, input TEXT NOT NULL, first_ms BIGINT NOT NULL, body BYTEA NOT NULL,
  PRIMARY KEY (box, model, version, input)
);
CREATE INDEX drift_reference_model ON drift_reference (model, version);

-- The last phase that a box reported for one artefact (model manifest or agent release).
CREATE TABLE phase (
  box TEXT NOT NULL, digest TEXT NOT NULL, rollout TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
  phase TEXT NOT NULL, err TEXT NOT NULL, body TEXT NOT NULL, t_ms BIGINT NOT NULL,
  -- Within one boot the monotonic clock orders reports; wall clocks step.
  boot BYTEA NOT NULL, mono_ms BIGINT NOT NULL, seq BIGINT NOT NULL,
  PRIMARY KEY (box, digest, rollout)
);

-- How each model of a box serves, as it said last: JSON of wire.Serving.
CREATE TABLE serving (
  box TEXT NOT NULL, model TEXT NOT NULL, body TEXT NOT NULL, t_ms BIGINT NOT NULL,
  boot BYTEA NOT NULL, mono_ms BIGINT NOT NULL, seq BIGINT NOT NULL,
  PRIMARY KEY (box, model)
);

CREATE TABLE model (
  digest TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, manifest TEXT NOT NULL, pushed_ms BIGINT NOT NULL, pinned BIGINT NOT NULL
);
CREATE UNIQUE INDEX model_version ON model (name, version);
CREATE TABLE agent_release (
  digest TEXT PRIMARY KEY, version TEXT NOT NULL, manifest TEXT NOT NULL, pushed_ms BIGINT NOT NULL
);
CREATE UNIQUE INDEX release_version ON agent_release (version);

-- A rollout without its targets, which are rows of their own: a step of a large
-- one writes what it changed. sheet is what the plan found. rev grows with each write. A record is one step:
-- what was observed and what was decided.
CREATE TABLE rollout (id TEXT PRIMARY KEY, state TEXT NOT NULL, created_ms BIGINT NOT NULL, ended_ms BIGINT NOT NULL, rev BIGINT NOT NULL, body TEXT NOT NULL, sheet TEXT NOT NULL);
CREATE TABLE rollout_target (
  rollout TEXT NOT NULL, wave BIGINT NOT NULL, place BIGINT NOT NULL, body TEXT NOT NULL, fact TEXT NOT NULL,
  PRIMARY KEY (rollout, wave, place)
);
CREATE TABLE rollout_record (rollout TEXT NOT NULL, seq BIGINT NOT NULL, t_ms BIGINT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (rollout, seq));
CREATE TABLE rollout_lock (id TEXT PRIMARY KEY, until_ms BIGINT NOT NULL, body TEXT NOT NULL);

-- Secrets of people and programs: only the SHA-256 is kept. kind says what it
-- opens: a session, the API, a login or the setting of a password. Who has an
-- account has its role and sites; the token's own count without one.
CREATE TABLE token (
  hash BYTEA PRIMARY KEY, id TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, account TEXT NOT NULL,
  role TEXT NOT NULL, sites TEXT NOT NULL, verbs TEXT NOT NULL, made_by TEXT NOT NULL,
  created_ms BIGINT NOT NULL, expires_ms BIGINT NOT NULL, used_ms BIGINT NOT NULL
);
CREATE UNIQUE INDEX token_id ON token (id);
-- People. password is an argon2id text, empty for none; issuer and subject are
-- those of the OIDC provider that vouches for the person, empty for none.
CREATE TABLE account (
  name TEXT PRIMARY KEY, role TEXT NOT NULL, sites TEXT NOT NULL, password TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL,
  disabled BOOLEAN NOT NULL, created_ms BIGINT NOT NULL, login_ms BIGINT NOT NULL
);
CREATE UNIQUE INDEX account_subject ON account (issuer, subject) WHERE subject <> '';
-- Failed logins by name, whether somebody has that name or not.
CREATE TABLE login_failure (name TEXT PRIMARY KEY, failures BIGINT NOT NULL, last_ms BIGINT NOT NULL, until_ms BIGINT NOT NULL);
-- The audit log: line is the record, the other columns are for finding it.
CREATE TABLE audit (seq BIGINT PRIMARY KEY, actor TEXT NOT NULL, line BYTEA NOT NULL);
CREATE INDEX audit_actor ON audit (actor, seq);
CREATE TABLE audit_head (one BIGINT PRIMARY KEY, seq BIGINT NOT NULL, hash TEXT NOT NULL, signer TEXT NOT NULL DEFAULT '');
CREATE TABLE audit_seal (seq BIGINT PRIMARY KEY, sealed_ms BIGINT NOT NULL, envelope BYTEA NOT NULL);
CREATE TABLE idempotency (key TEXT PRIMARY KEY, request BYTEA NOT NULL, status BIGINT NOT NULL, reply BYTEA NOT NULL, created_ms BIGINT NOT NULL);

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

-- The fleet's metadata (package tufrepo). What is staged waits for signatures.
CREATE TABLE trust_document (
  role TEXT NOT NULL, version BIGINT NOT NULL, staged BIGINT NOT NULL, body BYTEA NOT NULL,
  PRIMARY KEY (role, version, staged)
);
-- What endpoints of notices were told of the end of a role: the stage of package tufrepo.
CREATE TABLE trust_told (
  endpoint TEXT NOT NULL, role TEXT NOT NULL, stage BIGINT NOT NULL,
  PRIMARY KEY (endpoint, role)
);
-- Tokens that machines enrol with: only the hash of the secret is kept. body is
-- what was asked for when it was made. off says why it is no longer good.
CREATE TABLE enrol_token (
  id TEXT PRIMARY KEY, hash BYTEA NOT NULL, made_ms BIGINT NOT NULL, expires_ms BIGINT NOT NULL,
  uses_left BIGINT NOT NULL, refused BIGINT NOT NULL, off TEXT NOT NULL, body TEXT NOT NULL
);
-- Machines that asked, by their key; a machine that asks again is the same row.
CREATE TABLE enrol_request (
  key TEXT PRIMARY KEY, token TEXT NOT NULL, state TEXT NOT NULL, box TEXT NOT NULL, changed_ms BIGINT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX enrol_request_state ON enrol_request (state, changed_ms);
CREATE INDEX enrol_request_token ON enrol_request (token);
CREATE INDEX enrol_request_box ON enrol_request (box);
-- What somebody in front of a machine said and showed of it, by the id that the
-- phone gave the act; photo is a JPEG of 200 KiB at most, or empty.
CREATE TABLE enrol_claim (
  id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, token TEXT NOT NULL, code TEXT NOT NULL, author TEXT NOT NULL,
  made_ms BIGINT NOT NULL, place TEXT NOT NULL, photo BYTEA NOT NULL
);
-- Certificates of boxes. Of those that a box was given one is current, and one
-- at most pending: not used yet. What was replaced stays, for it tells copies.
CREATE TABLE device_cert (
  serial TEXT PRIMARY KEY, box TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, changed_ms BIGINT NOT NULL,
  ends_ms BIGINT NOT NULL, address TEXT NOT NULL, pem TEXT NOT NULL
);
CREATE INDEX device_cert_box ON device_cert (box);
CREATE INDEX device_cert_key ON device_cert (key);
-- How boxes stand. No row: active, and nothing is known of its machine. A box is
-- a place with its history; generation counts the machines that stood there.
CREATE TABLE standing (
  box TEXT PRIMARY KEY, state TEXT NOT NULL, since_ms BIGINT NOT NULL, why TEXT NOT NULL, author TEXT NOT NULL,
  generation BIGINT NOT NULL, fence BIGINT NOT NULL, labels TEXT NOT NULL, hardware TEXT NOT NULL
);
CREATE INDEX standing_since ON standing (since_ms);
-- Serial numbers by which the machine of a box is known again.
CREATE TABLE machine_mark (mark TEXT NOT NULL, box TEXT NOT NULL, PRIMARY KEY (mark, box));
CREATE INDEX machine_mark_box ON machine_mark (box);
-- What happened to the identity of a box.
CREATE TABLE identity_event (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, box TEXT NOT NULL, t_ms BIGINT NOT NULL, state TEXT NOT NULL, author TEXT NOT NULL, text TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX identity_event_box ON identity_event (box);

-- What people set for a site, as JSON; the defaults of all sites have no name.
CREATE TABLE site (name TEXT PRIMARY KEY, settings TEXT NOT NULL, changed_ms BIGINT NOT NULL, changed_by TEXT NOT NULL);
-- Counting the connected boxes of a site must not read the rows of boxes.
CREATE INDEX box_site ON box (site, connected);

-- Forms of files for thin lines: a cold pack (no base) or a delta from the file
-- base. state is wanted, ready, unfit or failed; why says why.
CREATE TABLE pack (
  target TEXT NOT NULL, base TEXT NOT NULL, state TEXT NOT NULL, digest TEXT NOT NULL, bytes BIGINT NOT NULL,
  list TEXT NOT NULL, list_bytes BIGINT NOT NULL, why TEXT NOT NULL, changed_ms BIGINT NOT NULL,
  used_ms BIGINT NOT NULL DEFAULT 0, -- when boxes were last told of it
  PRIMARY KEY (target, base)
);
CREATE INDEX pack_wanted ON pack (changed_ms) WHERE state = 'wanted';
-- Which box of a site fetches a file over the site's line. done is what it had
-- when it last had more than before.
CREATE TABLE seed (
  site TEXT NOT NULL, digest TEXT NOT NULL, box TEXT NOT NULL, epoch BIGINT NOT NULL, until_ms BIGINT NOT NULL,
  done BIGINT NOT NULL, moved_ms BIGINT NOT NULL,
  PRIMARY KEY (site, digest)
);
-- Where boxes of a site have how much of a file for the others.
CREATE TABLE holder (
  site TEXT NOT NULL, digest TEXT NOT NULL, box TEXT NOT NULL, address TEXT NOT NULL, done BIGINT NOT NULL,
  seen_ms BIGINT NOT NULL,
  PRIMARY KEY (site, digest, box)
);
-- Boxes that are said to have given out wrong bytes of a file, and by whom.
CREATE TABLE accused (
  site TEXT NOT NULL, digest TEXT NOT NULL, box TEXT NOT NULL, witness TEXT NOT NULL, until_ms BIGINT NOT NULL,
  PRIMARY KEY (site, digest, box, witness)
);

-- How far what is stored has safely arrived elsewhere, by receiver: an LSN.
CREATE TABLE export_cursor (name TEXT PRIMARY KEY, value BIGINT NOT NULL);

-- Reports of acceptance tests, as boxes signed them; the newest of each box.
CREATE TABLE acceptance (
  box TEXT NOT NULL, id TEXT NOT NULL, received_ms BIGINT NOT NULL, digest BYTEA NOT NULL, summary TEXT NOT NULL, sealed BYTEA NOT NULL,
  PRIMARY KEY (box, id)
);

-- What goes wrong with the messages of a box, counted by cause.
CREATE TABLE fault (
  box TEXT NOT NULL, cause TEXT NOT NULL, n BIGINT NOT NULL, first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL, text TEXT NOT NULL,
  PRIMARY KEY (box, cause)
);
-- Which processes said HELLO as a box lately, on which machine (a hash of what
-- the board says of itself), and the last question that each answered.
CREATE TABLE claim (
  box TEXT NOT NULL, sid BYTEA NOT NULL, starts BIGINT NOT NULL, machine BYTEA NOT NULL, words TEXT NOT NULL,
  first_ms BIGINT NOT NULL, last_ms BIGINT NOT NULL, answered BIGINT NOT NULL,
  PRIMARY KEY (box, sid)
);
-- The number by which the processes of a box show that they are alive.
CREATE TABLE claim_question (box TEXT PRIMARY KEY, number BIGINT NOT NULL, asked_ms BIGINT NOT NULL);

-- What boxes summed up of their hours (health.Hour), for the judgement of heat.
CREATE TABLE box_hour (
  box TEXT NOT NULL, hour_ms BIGINT NOT NULL, samples BIGINT NOT NULL, body BYTEA NOT NULL,
  PRIMARY KEY (box, hour_ms)
);
-- How far the hours of a box are judged: hours counts those that came, judged
-- those that are taken into the state. body is what lists of boxes show of it.
CREATE TABLE box_heat (
  box TEXT PRIMARY KEY, hours BIGINT NOT NULL, judged BIGINT NOT NULL, body TEXT NOT NULL
);
-- The whole state of a box's judgement (health.Box), some kilobytes.
CREATE TABLE box_state (box TEXT PRIMARY KEY, body TEXT NOT NULL);
-- What is wrong with boxes, as they say. news: no ticket knows of it yet.
CREATE TABLE finding (
  box TEXT NOT NULL, family TEXT NOT NULL, opened_ms BIGINT NOT NULL, closed_ms BIGINT NOT NULL, t_ms BIGINT NOT NULL,
  news BIGINT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (box, family, opened_ms)
);
CREATE INDEX finding_open ON finding (box) WHERE closed_ms = 0;
CREATE INDEX finding_news ON finding (t_ms) WHERE news = 1;
CREATE TABLE mute (
  box TEXT NOT NULL, family TEXT NOT NULL, until_ms BIGINT NOT NULL, why TEXT NOT NULL, author TEXT NOT NULL,
  PRIMARY KEY (box, family)
);
CREATE TABLE box_reset (box TEXT NOT NULL, t_ms BIGINT NOT NULL, cause TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (box, t_ms));
-- What may move the measure of a box: rollouts, visits, work.
CREATE TABLE box_change (
  box TEXT NOT NULL, t_ms BIGINT NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL, author TEXT NOT NULL,
  PRIMARY KEY (box, t_ms, kind, detail)
);
-- Tickets, visits, RMAs and what people say of boxes, as JSON. ended_ms 0: not
-- yet. Of one cause a box, a site, or a SKU has one ticket that has not ended;
-- sku is set for tickets of a whole SKU alone.
CREATE TABLE care_item (
  kind TEXT NOT NULL, id TEXT NOT NULL, site TEXT NOT NULL, box TEXT NOT NULL, sku TEXT NOT NULL, cause TEXT NOT NULL, ended_ms BIGINT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (kind, id)
);
CREATE UNIQUE INDEX care_ticket ON care_item (box, site, sku, cause) WHERE kind = 'ticket' AND ended_ms = 0;
CREATE INDEX care_box ON care_item (box, kind);
CREATE INDEX care_ended ON care_item (kind, ended_ms);
-- The last number that was given to tickets, visits and RMAs. The row of the
-- name care is locked by all that changes tickets.
CREATE TABLE care_number (name TEXT PRIMARY KEY, n BIGINT NOT NULL);
INSERT INTO care_number (name, n) VALUES ('care', 0);
-- What each endpoint is yet to be told. state is 0 while it waits, 1 when it
-- was told, 2 when it was given up.
CREATE TABLE notice (
  endpoint TEXT NOT NULL, key TEXT NOT NULL, state BIGINT NOT NULL, due_ms BIGINT NOT NULL, tries BIGINT NOT NULL,
  changed_ms BIGINT NOT NULL, err TEXT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (endpoint, key)
);
CREATE INDEX notice_due ON notice (due_ms) WHERE state = 0;
-- Parts that were put into boxes, for the spares of a region.
CREATE TABLE part_used (
  box TEXT NOT NULL, t_ms BIGINT NOT NULL, kind TEXT NOT NULL, part TEXT NOT NULL, serial TEXT NOT NULL,
  n BIGINT NOT NULL, region TEXT NOT NULL, site TEXT NOT NULL,
  PRIMARY KEY (box, t_ms, kind, part, serial)
);

-- Secrets of boxes, encrypted under a key that is not in the database. scope is
-- box, site or label, target which one.
CREATE TABLE secret (
  name TEXT NOT NULL, scope TEXT NOT NULL, target TEXT NOT NULL, version TEXT NOT NULL, key TEXT NOT NULL, sealed BYTEA NOT NULL,
  changed_ms BIGINT NOT NULL, author TEXT NOT NULL,
  PRIMARY KEY (name, scope, target)
);
-- Documents of settings as they were applied; a version never changes, and a
-- document that is withdrawn has a last version that is empty.
CREATE TABLE config_document (
  name TEXT NOT NULL, version BIGINT NOT NULL, digest TEXT NOT NULL, body TEXT NOT NULL, created_ms BIGINT NOT NULL, author TEXT NOT NULL, waits BOOLEAN NOT NULL,
  PRIMARY KEY (name, version)
);
-- Heads of the audit log that boxes say they have seen, with what proves it.
CREATE TABLE audit_witness (
  box TEXT NOT NULL, seq BIGINT NOT NULL, hash TEXT NOT NULL, signed_s BIGINT NOT NULL, signer TEXT NOT NULL, sig BYTEA NOT NULL, told_ms BIGINT NOT NULL,
  PRIMARY KEY (box, seq)
);
