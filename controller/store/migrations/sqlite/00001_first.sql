-- +goose Up
-- One row: the present run and the number of the last commit.
-- restores counts how often this database came back from a backup, restored is
-- how far the last time is dealt with: 1 nobody opened it since, 2 rollouts run
-- on, 3 they are paused.
CREATE TABLE meta (
  one INTEGER PRIMARY KEY CHECK (one = 1), run BLOB NOT NULL, lsn INTEGER NOT NULL,
  restores INTEGER NOT NULL DEFAULT 0, restored INTEGER NOT NULL DEFAULT 0, restored_ms INTEGER NOT NULL DEFAULT 0
);
INSERT INTO meta (one, run, lsn) VALUES (1, x'', 0);

-- One row per life of this database. end_lsn is NULL for the current life.
CREATE TABLE run (id BLOB PRIMARY KEY, started_ms INTEGER NOT NULL, start_lsn INTEGER NOT NULL, end_lsn INTEGER) WITHOUT ROWID;

CREATE TABLE box (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, site TEXT NOT NULL, enrolled_ms INTEGER NOT NULL,
  last_seen_ms INTEGER NOT NULL DEFAULT 0, connected INTEGER NOT NULL DEFAULT 0,
  inventory TEXT NOT NULL DEFAULT '{}', buffer TEXT NOT NULL DEFAULT '{}', running TEXT NOT NULL DEFAULT '{}',
  desired_generation INTEGER NOT NULL DEFAULT 0, desired TEXT NOT NULL DEFAULT '', desired_envelope BLOB,
  restores INTEGER NOT NULL DEFAULT 0 -- of meta, when the box was heard
) WITHOUT ROWID;
CREATE UNIQUE INDEX box_name ON box (name);

-- The wall clock of the controller minus the monotonic clock of one boot.
CREATE TABLE boot (box TEXT NOT NULL, boot BLOB NOT NULL, offset_ms INTEGER NOT NULL, PRIMARY KEY (box, boot)) WITHOUT ROWID;

CREATE TABLE schema (id BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;

-- The keys of all blocks that were ever stored, those of 64 sequence numbers in
-- a row: 1 byte of the number and 8 of the hash for each. Never deleted while
-- the box may send them again. Keys never contain time. Rows that a box adds to
-- now are in open_keys of newest instead, which counts.
CREATE TABLE block_key (
  box TEXT NOT NULL, sid INTEGER NOT NULL, lane INTEGER NOT NULL, chunk INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (box, sid, lane, chunk)
) WITHOUT ROWID;

-- Samples as they came, a row a block or pack, until their hour is closed. The
-- upper bits of an id are the LSN, the lower 20 number the rows of a commit. An
-- era is some thousand rows that came after each other.
CREATE TABLE sample (id INTEGER PRIMARY KEY, era INTEGER NOT NULL, box TEXT NOT NULL, t0_ms INTEGER NOT NULL, t1_ms INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX sample_time ON sample (era, box, t0_ms);

-- Samples of closed hours, a row a box and hour; more parts when one would grow
-- too large. lsn is the highest of what is in it, rev counts its changes. A pack
-- has its hourly values with it.
CREATE TABLE sample_hour (
  box TEXT NOT NULL, hour_ms INTEGER NOT NULL, part INTEGER NOT NULL, rev INTEGER NOT NULL, lsn INTEGER NOT NULL,
  t0_ms INTEGER NOT NULL, t1_ms INTEGER NOT NULL, rollups BLOB, body BLOB NOT NULL,
  PRIMARY KEY (box, hour_ms, part)
);
CREATE INDEX sample_hour_lsn ON sample_hour (lsn);

-- Least, middle, greatest value, sum and number of every metric of the row of
-- sample_hour of the same name, by hour, unless that has them.
CREATE TABLE rollup_hour (
  box TEXT NOT NULL, hour_ms INTEGER NOT NULL, part INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (box, hour_ms, part)
) WITHOUT ROWID;

-- What changes with every message of a box. buffer is NULL until a message says
-- it after a HELLO.
CREATE TABLE newest (
  box TEXT PRIMARY KEY, seen_ms INTEGER NOT NULL, buffer TEXT, schemas BLOB NOT NULL, latest BLOB, open_keys BLOB NOT NULL
) WITHOUT ROWID;

-- Sealed blocks of all other kinds as they came, and samples that could not be
-- read. Their ids are as those of samples.
CREATE TABLE block (
  id INTEGER PRIMARY KEY, box TEXT NOT NULL, kind INTEGER NOT NULL, t0_ms INTEGER NOT NULL, t1_ms INTEGER NOT NULL,
  received_ms INTEGER NOT NULL, body BLOB NOT NULL
);

CREATE TABLE event (id INTEGER PRIMARY KEY, box TEXT NOT NULL, t_ms INTEGER NOT NULL, type TEXT NOT NULL, text TEXT NOT NULL, body TEXT NOT NULL);
CREATE INDEX event_time ON event (box, t_ms);
CREATE TABLE result (
  id INTEGER PRIMARY KEY, box TEXT NOT NULL, t_ms INTEGER NOT NULL, input TEXT NOT NULL, pipeline TEXT NOT NULL, item TEXT NOT NULL,
  text TEXT NOT NULL, want TEXT NOT NULL, score REAL NOT NULL, latency REAL NOT NULL, models TEXT NOT NULL
);
CREATE INDEX result_time ON result (box, t_ms);
CREATE TABLE gap (id INTEGER PRIMARY KEY, box TEXT NOT NULL, sid BLOB NOT NULL, lane INTEGER NOT NULL, lo INTEGER NOT NULL, hi INTEGER NOT NULL, n INTEGER NOT NULL, reason TEXT NOT NULL, t_ms INTEGER NOT NULL);

-- Kept at ingest so that the list of boxes scans no results.
CREATE TABLE reads_hour (
  hour_ms INTEGER NOT NULL, box TEXT NOT NULL, total INTEGER NOT NULL, checked INTEGER NOT NULL, correct INTEGER NOT NULL,
  PRIMARY KEY (hour_ms, box)
) WITHOUT ROWID;

-- What models saw and answered (drift.Sketch), by input and hour of counting.
CREATE TABLE drift_hour (
  box TEXT NOT NULL, hour_ms INTEGER NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, input TEXT NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (box, hour_ms, model, version, input)
) WITHOUT ROWID;
CREATE INDEX drift_hour_model ON drift_hour (model, version, hour_ms);
-- The sum of the week that began with the first hour of a version. It stays when
-- its hours go.
CREATE TABLE drift_reference (
  box TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL, input TEXT NOT NULL, first_ms INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (box, model, version, input)
) WITHOUT ROWID;
CREATE INDEX drift_reference_model ON drift_reference (model, version);

-- The last phase that a box reported for one artefact (model manifest or agent release).
CREATE TABLE phase (
  box TEXT NOT NULL, digest TEXT NOT NULL, rollout TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, version TEXT NOT NULL,
  phase TEXT NOT NULL, err TEXT NOT NULL, body TEXT NOT NULL, t_ms INTEGER NOT NULL,
  -- Within one boot the monotonic clock orders reports; wall clocks step.
  boot BLOB NOT NULL, mono_ms INTEGER NOT NULL, seq INTEGER NOT NULL,
  PRIMARY KEY (box, digest, rollout)
) WITHOUT ROWID;

-- How each model of a box serves, as it said last: JSON of wire.Serving.
CREATE TABLE serving (
  box TEXT NOT NULL, model TEXT NOT NULL, body TEXT NOT NULL, t_ms INTEGER NOT NULL,
  boot BLOB NOT NULL, mono_ms INTEGER NOT NULL, seq INTEGER NOT NULL,
  PRIMARY KEY (box, model)
) WITHOUT ROWID;

CREATE TABLE model (
  digest TEXT PRIMARY KEY, name TEXT NOT NULL, version TEXT NOT NULL, manifest TEXT NOT NULL, pushed_ms INTEGER NOT NULL, pinned INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX model_version ON model (name, version);
CREATE TABLE agent_release (
  digest TEXT PRIMARY KEY, version TEXT NOT NULL, manifest TEXT NOT NULL, pushed_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX release_version ON agent_release (version);

-- A rollout without its targets, which are rows of their own: a step of a large
-- one writes what it changed. sheet is what the plan found. rev grows with each write. A record is one step:
-- what was observed and what was decided.
CREATE TABLE rollout (id TEXT PRIMARY KEY, state TEXT NOT NULL, created_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL, rev INTEGER NOT NULL, body TEXT NOT NULL, sheet TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE rollout_target (
  rollout TEXT NOT NULL, wave INTEGER NOT NULL, place INTEGER NOT NULL, body TEXT NOT NULL, fact TEXT NOT NULL,
  PRIMARY KEY (rollout, wave, place)
) WITHOUT ROWID;
CREATE TABLE rollout_record (rollout TEXT NOT NULL, seq INTEGER NOT NULL, t_ms INTEGER NOT NULL, body TEXT NOT NULL, PRIMARY KEY (rollout, seq)) WITHOUT ROWID;
CREATE TABLE rollout_lock (id TEXT PRIMARY KEY, until_ms INTEGER NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;

-- Secrets of people and programs: only the SHA-256 is kept. kind says what it
-- opens: a session, the API, a login or the setting of a password. Who has an
-- account has its role and sites; the token's own count without one.
CREATE TABLE token (
  hash BLOB PRIMARY KEY, id TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL, account TEXT NOT NULL,
  role TEXT NOT NULL, sites TEXT NOT NULL, verbs TEXT NOT NULL, made_by TEXT NOT NULL,
  created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, used_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX token_id ON token (id);
-- People. password is an argon2id text, empty for none; issuer and subject are
-- those of the OIDC provider that vouches for the person, empty for none.
CREATE TABLE account (
  name TEXT PRIMARY KEY, role TEXT NOT NULL, sites TEXT NOT NULL, password TEXT NOT NULL, issuer TEXT NOT NULL, subject TEXT NOT NULL,
  disabled INTEGER NOT NULL, created_ms INTEGER NOT NULL, login_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE UNIQUE INDEX account_subject ON account (issuer, subject) WHERE subject <> '';
-- Failed logins by name, whether somebody has that name or not.
CREATE TABLE login_failure (name TEXT PRIMARY KEY, failures INTEGER NOT NULL, last_ms INTEGER NOT NULL, until_ms INTEGER NOT NULL) WITHOUT ROWID;
-- The audit log: line is the record, the other columns are for finding it.
CREATE TABLE audit (seq INTEGER PRIMARY KEY, actor TEXT NOT NULL, line BLOB NOT NULL);
CREATE INDEX audit_actor ON audit (actor, seq);
CREATE TABLE audit_head (one INTEGER PRIMARY KEY, seq INTEGER NOT NULL, hash TEXT NOT NULL, signer TEXT NOT NULL DEFAULT '') WITHOUT ROWID;
CREATE TABLE audit_seal (seq INTEGER PRIMARY KEY, sealed_ms INTEGER NOT NULL, envelope BLOB NOT NULL);
CREATE TABLE idempotency (key TEXT PRIMARY KEY, request BLOB NOT NULL, status INTEGER NOT NULL, reply BLOB NOT NULL, created_ms INTEGER NOT NULL) WITHOUT ROWID;

-- Who talks with a box: the node, and the process and connection of the box
-- that said the last HELLO. No row: the box is not there.
CREATE TABLE session (box TEXT PRIMARY KEY, node TEXT NOT NULL, sid BLOB NOT NULL, conn INTEGER NOT NULL) WITHOUT ROWID;

-- The fleet's metadata (package tufrepo). What is staged waits for signatures.
CREATE TABLE trust_document (
  role TEXT NOT NULL, version INTEGER NOT NULL, staged INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (role, version, staged)
) WITHOUT ROWID;
-- What endpoints of notices were told of the end of a role: the stage of package tufrepo.
CREATE TABLE trust_told (
  endpoint TEXT NOT NULL, role TEXT NOT NULL, stage INTEGER NOT NULL,
  PRIMARY KEY (endpoint, role)
) WITHOUT ROWID;
-- Tokens that machines enrol with: only the hash of the secret is kept. body is
-- what was asked for when it was made. off says why it is no longer good.
CREATE TABLE enrol_token (
  id TEXT PRIMARY KEY, hash BLOB NOT NULL, made_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL,
  uses_left INTEGER NOT NULL, refused INTEGER NOT NULL, off TEXT NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
-- Machines that asked, by their key; a machine that asks again is the same row.
CREATE TABLE enrol_request (
  key TEXT PRIMARY KEY, token TEXT NOT NULL, state TEXT NOT NULL, box TEXT NOT NULL, changed_ms INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX enrol_request_state ON enrol_request (state, changed_ms);
CREATE INDEX enrol_request_token ON enrol_request (token);
CREATE INDEX enrol_request_box ON enrol_request (box);
-- What somebody in front of a machine said and showed of it, by the id that the
-- phone gave the act; photo is a JPEG of 200 KiB at most, or empty.
CREATE TABLE enrol_claim (
  id TEXT PRIMARY KEY, key TEXT NOT NULL UNIQUE, token TEXT NOT NULL, code TEXT NOT NULL, author TEXT NOT NULL,
  made_ms INTEGER NOT NULL, place TEXT NOT NULL, photo BLOB NOT NULL
);
-- Certificates of boxes. Of those that a box was given one is current, and one
-- at most pending: not used yet. What was replaced stays, for it tells copies.
CREATE TABLE device_cert (
  serial TEXT PRIMARY KEY, box TEXT NOT NULL, key TEXT NOT NULL, state TEXT NOT NULL, changed_ms INTEGER NOT NULL,
  ends_ms INTEGER NOT NULL, address TEXT NOT NULL, pem TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX device_cert_box ON device_cert (box);
CREATE INDEX device_cert_key ON device_cert (key);
-- How boxes stand. No row: active, and nothing is known of its machine. A box is
-- a place with its history; generation counts the machines that stood there.
CREATE TABLE standing (
  box TEXT PRIMARY KEY, state TEXT NOT NULL, since_ms INTEGER NOT NULL, why TEXT NOT NULL, author TEXT NOT NULL,
  generation INTEGER NOT NULL, fence INTEGER NOT NULL, labels TEXT NOT NULL, hardware TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX standing_since ON standing (since_ms);
-- Serial numbers by which the machine of a box is known again.
CREATE TABLE machine_mark (mark TEXT NOT NULL, box TEXT NOT NULL, PRIMARY KEY (mark, box)) WITHOUT ROWID;
CREATE INDEX machine_mark_box ON machine_mark (box);
-- What happened to the identity of a box.
CREATE TABLE identity_event (
  id INTEGER PRIMARY KEY AUTOINCREMENT, box TEXT NOT NULL, t_ms INTEGER NOT NULL, state TEXT NOT NULL, author TEXT NOT NULL, text TEXT NOT NULL, body TEXT NOT NULL
);
CREATE INDEX identity_event_box ON identity_event (box);

-- What people set for a site, as JSON; the defaults of all sites have no name.
CREATE TABLE site (name TEXT PRIMARY KEY, settings TEXT NOT NULL, changed_ms INTEGER NOT NULL, changed_by TEXT NOT NULL) WITHOUT ROWID;
-- Counting the connected boxes of a site must not read the rows of boxes.
CREATE INDEX box_site ON box (site, connected);

-- Forms of files for thin lines: a cold pack (no base) or a delta from the file
-- base. state is wanted, ready, unfit or failed; why says why.
CREATE TABLE pack (
  target TEXT NOT NULL, base TEXT NOT NULL, state TEXT NOT NULL, digest TEXT NOT NULL, bytes INTEGER NOT NULL,
  list TEXT NOT NULL, list_bytes INTEGER NOT NULL, why TEXT NOT NULL, changed_ms INTEGER NOT NULL,
  used_ms INTEGER NOT NULL DEFAULT 0, -- when boxes were last told of it
  PRIMARY KEY (target, base)
) WITHOUT ROWID;
CREATE INDEX pack_wanted ON pack (changed_ms) WHERE state = 'wanted';
-- Which box of a site fetches a file over the site's line. done is what it had
-- when it last had more than before.
CREATE TABLE seed (
  site TEXT NOT NULL, digest TEXT NOT NULL, box TEXT NOT NULL, epoch INTEGER NOT NULL, until_ms INTEGER NOT NULL,
  done INTEGER NOT NULL, moved_ms INTEGER NOT NULL,
  PRIMARY KEY (site, digest)
) WITHOUT ROWID;
-- Where boxes of a site have how much of a file for the others.
CREATE TABLE holder (
  site TEXT NOT NULL, digest TEXT NOT NULL, box TEXT NOT NULL, address TEXT NOT NULL, done INTEGER NOT NULL,
  seen_ms INTEGER NOT NULL,
  PRIMARY KEY (site, digest, box)
) WITHOUT ROWID;
-- Boxes that are said to have given out wrong bytes of a file, and by whom.
CREATE TABLE accused (
  site TEXT NOT NULL, digest TEXT NOT NULL, box TEXT NOT NULL, witness TEXT NOT NULL, until_ms INTEGER NOT NULL,
  PRIMARY KEY (site, digest, box, witness)
) WITHOUT ROWID;

-- How far what is stored has safely arrived elsewhere, by receiver: an LSN.
CREATE TABLE export_cursor (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;

-- Reports of acceptance tests, as boxes signed them; the newest of each box.
CREATE TABLE acceptance (
  box TEXT NOT NULL, id TEXT NOT NULL, received_ms INTEGER NOT NULL, digest BLOB NOT NULL, summary TEXT NOT NULL, sealed BLOB NOT NULL,
  PRIMARY KEY (box, id)
);

-- What goes wrong with the messages of a box, counted by cause.
CREATE TABLE fault (
  box TEXT NOT NULL, cause TEXT NOT NULL, n INTEGER NOT NULL, first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, text TEXT NOT NULL,
  PRIMARY KEY (box, cause)
) WITHOUT ROWID;
-- Which processes said HELLO as a box lately, on which machine (a hash of what
-- the board says of itself), and the last question that each answered.
CREATE TABLE claim (
  box TEXT NOT NULL, sid BLOB NOT NULL, starts INTEGER NOT NULL, machine BLOB NOT NULL, words TEXT NOT NULL,
  first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL, answered INTEGER NOT NULL,
  PRIMARY KEY (box, sid)
) WITHOUT ROWID;
-- The number by which the processes of a box show that they are alive.
CREATE TABLE claim_question (box TEXT PRIMARY KEY, number INTEGER NOT NULL, asked_ms INTEGER NOT NULL) WITHOUT ROWID;

-- What boxes summed up of their hours (health.Hour), for the judgement of heat.
CREATE TABLE box_hour (
  box TEXT NOT NULL, hour_ms INTEGER NOT NULL, samples INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (box, hour_ms)
) WITHOUT ROWID;
-- How far the hours of a box are judged: hours counts those that came, judged
-- those that are taken into the state. body is what lists of boxes show of it.
CREATE TABLE box_heat (
  box TEXT PRIMARY KEY, hours INTEGER NOT NULL, judged INTEGER NOT NULL, body TEXT NOT NULL
) WITHOUT ROWID;
-- The whole state of a box's judgement (health.Box), some kilobytes.
CREATE TABLE box_state (box TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
-- What is wrong with boxes, as they say. news: no ticket knows of it yet.
CREATE TABLE finding (
  box TEXT NOT NULL, family TEXT NOT NULL, opened_ms INTEGER NOT NULL, closed_ms INTEGER NOT NULL, t_ms INTEGER NOT NULL,
  news INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (box, family, opened_ms)
) WITHOUT ROWID;
CREATE INDEX finding_open ON finding (box) WHERE closed_ms = 0;
CREATE INDEX finding_news ON finding (t_ms) WHERE news = 1;
CREATE TABLE mute (
  box TEXT NOT NULL, family TEXT NOT NULL, until_ms INTEGER NOT NULL, why TEXT NOT NULL, author TEXT NOT NULL,
  PRIMARY KEY (box, family)
) WITHOUT ROWID;
CREATE TABLE box_reset (box TEXT NOT NULL, t_ms INTEGER NOT NULL, cause TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (box, t_ms)) WITHOUT ROWID;
-- What may move the measure of a box: rollouts, visits, work.
CREATE TABLE box_change (
  box TEXT NOT NULL, t_ms INTEGER NOT NULL, kind TEXT NOT NULL, detail TEXT NOT NULL, author TEXT NOT NULL,
  PRIMARY KEY (box, t_ms, kind, detail)
) WITHOUT ROWID;
-- Tickets, visits, RMAs and what people say of boxes, as JSON. ended_ms 0: not
-- yet. Of one cause a box, a site, or a SKU has one ticket that has not ended;
-- sku is set for tickets of a whole SKU alone.
CREATE TABLE care_item (
  kind TEXT NOT NULL, id TEXT NOT NULL, site TEXT NOT NULL, box TEXT NOT NULL, sku TEXT NOT NULL, cause TEXT NOT NULL, ended_ms INTEGER NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (kind, id)
) WITHOUT ROWID;
CREATE UNIQUE INDEX care_ticket ON care_item (box, site, sku, cause) WHERE kind = 'ticket' AND ended_ms = 0;
CREATE INDEX care_box ON care_item (box, kind);
CREATE INDEX care_ended ON care_item (kind, ended_ms);
-- The last number that was given to tickets, visits and RMAs. The row of the
-- name care is locked by all that changes tickets.
CREATE TABLE care_number (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO care_number (name, n) VALUES ('care', 0);
-- What each endpoint is yet to be told. state is 0 while it waits, 1 when it
-- was told, 2 when it was given up.
CREATE TABLE notice (
  endpoint TEXT NOT NULL, key TEXT NOT NULL, state INTEGER NOT NULL, due_ms INTEGER NOT NULL, tries INTEGER NOT NULL,
  changed_ms INTEGER NOT NULL, err TEXT NOT NULL, body TEXT NOT NULL,
  PRIMARY KEY (endpoint, key)
) WITHOUT ROWID;
CREATE INDEX notice_due ON notice (due_ms) WHERE state = 0;
-- Parts that were put into boxes, for the spares of a region.
CREATE TABLE part_used (
  box TEXT NOT NULL, t_ms INTEGER NOT NULL, kind TEXT NOT NULL, part TEXT NOT NULL, serial TEXT NOT NULL,
  n INTEGER NOT NULL, region TEXT NOT NULL, site TEXT NOT NULL,
  PRIMARY KEY (box, t_ms, kind, part, serial)
) WITHOUT ROWID;

-- Secrets of boxes, encrypted under a key that is not in the database. scope is
-- box, site or label, target which one.
CREATE TABLE secret (
  name TEXT NOT NULL, scope TEXT NOT NULL, target TEXT NOT NULL, version TEXT NOT NULL, key TEXT NOT NULL, sealed BLOB NOT NULL,
  changed_ms INTEGER NOT NULL, author TEXT NOT NULL,
  PRIMARY KEY (name, scope, target)
) WITHOUT ROWID;
-- Documents of settings as they were applied; a version never changes, and a
-- document that is withdrawn has a last version that is empty.
CREATE TABLE config_document (
  name TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, body TEXT NOT NULL, created_ms INTEGER NOT NULL, author TEXT NOT NULL, waits INTEGER NOT NULL,
  PRIMARY KEY (name, version)
) WITHOUT ROWID;
-- Heads of the audit log that boxes say they have seen, with what proves it.
CREATE TABLE audit_witness (
  box TEXT NOT NULL, seq INTEGER NOT NULL, hash TEXT NOT NULL, signed_s INTEGER NOT NULL, signer TEXT NOT NULL, sig BLOB NOT NULL, told_ms INTEGER NOT NULL,
  PRIMARY KEY (box, seq)
) WITHOUT ROWID;
