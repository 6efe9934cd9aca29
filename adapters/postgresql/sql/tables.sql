-- The types and tables of today's version. They are made in one transaction, with the schema as the first of search_path;
-- then come the functions, each in a file of its own. A change goes into these files, and into a migration (ADR 102).
--
-- A live job is one row of `job`, whatever its state:
--   ready    place
--   leased   place, token
--   delayed  due
--   dead     death; dead_until, unless it is kept for ever
-- Leasing a job sets no indexed column, so that it is a HOT update, and the page cleans up after itself.
--
-- `place` is the id of the transaction that made the job ready, behind the level of its priority. All transactions
-- before `pg_snapshot_xmin` have ended, so a consumer that has seen all places up to there needn't look at them again:
-- dead rows, which a held snapshot keeps there, cost it nothing.
--
-- All tables are small and change all the time, so autovacuum looks at each after so many changed rows, and doesn't rest.

CREATE TABLE version (
  number int NOT NULL,
  oldest_release int NOT NULL -- the lowest version that a release must know to work on these tables
);

CREATE TABLE queue (
  key int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- never used again, so that nothing of a deleted queue is its successor's
  name text COLLATE "C" UNIQUE, -- NULL once it is deleted
  kind text NOT NULL,
  returned bigint NOT NULL DEFAULT 0, -- how often jobs went back to their old places
  receivers_wait_until timestamptz NOT NULL DEFAULT '-infinity', -- by then at the latest they say so again
  callers_wait_until timestamptz NOT NULL DEFAULT '-infinity', -- those who wait for results
  deleted timestamptz
) WITH (fillfactor = 50);

-- Fixed widths first: what leasing changes is at the beginning of the row, so its WAL record is short.
CREATE TABLE job (
  queue int NOT NULL,
  number int NOT NULL DEFAULT 0, -- how often it was delivered
  token bigint, -- of the request that leased it
  place bigint,
  seq bigint NOT NULL, -- its order within a place; no other job of the queue has it
  due timestamptz,
  death bigint, -- its order among the dead
  died timestamptz,
  dead_until timestamptz,
  attempt int NOT NULL DEFAULT 1,
  crashes int NOT NULL DEFAULT 0,
  priority smallint NOT NULL DEFAULT 0,
  id text COLLATE "C" NOT NULL,
  progress text,
  reason bytea, -- why it is dead
  error bytea,
  failed int[], -- the attempts that failed, the last ones only
  failures bytea[], -- and their errors
  body bytea NOT NULL
) WITH (
  fillfactor = 50, -- room for the leased versions of a whole page of jobs
  autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000,
  autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 50000,
  autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 100000,
  autovacuum_vacuum_cost_delay = 0, toast.autovacuum_vacuum_scale_factor = 0,
  toast.autovacuum_vacuum_threshold = 5000, toast.autovacuum_vacuum_cost_delay = 0
);
CREATE UNIQUE INDEX job_id ON job (queue, id);
CREATE INDEX job_place ON job (queue, place, seq) WHERE place IS NOT NULL;
CREATE INDEX job_due ON job (queue, due) WHERE due IS NOT NULL;
CREATE INDEX job_death ON job (queue, death) WHERE death IS NOT NULL;
CREATE INDEX job_dead_until ON job (queue, dead_until) WHERE dead_until IS NOT NULL;
-- A publication FOR ALL TABLES refuses all changes of a table that has no identity.
ALTER TABLE job REPLICA IDENTITY USING INDEX job_id;

-- Every request that changed something, until its sender has the answer; and the leases of what it took. A token is
-- random: no two requests share one, also after a failover, and no place in the index is the busy one. A request that is
-- never to be carried out has a row of queue 0.
CREATE TABLE request (
  token bigint PRIMARY KEY,
  queue int NOT NULL,
  ends timestamptz NOT NULL, -- when the leases end; without any, when nobody will ask any more
  places bigint[] NOT NULL DEFAULT '{}',
  seqs bigint[] NOT NULL DEFAULT '{}',
  odd int[], -- which of its items, counted from 1, were duplicates, or had lost their leases
  cancelled int[], -- which of its items, counted from 1, belong to jobs that are cancelled, or are asked to be
  began timestamptz DEFAULT clock_timestamp(), -- when the leases began: a restart cuts short those that began before it
  spared boolean NOT NULL DEFAULT false -- whether they were restarted, as the server had refused somebody's request
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX request_ends ON request (queue, ends);

-- How jobs ended. One zero byte, which no output is, stands for a job that was cancelled.
CREATE TABLE result (
  queue int NOT NULL,
  id text COLLATE "C" NOT NULL,
  expires timestamptz NOT NULL,
  body bytea NOT NULL,
  PRIMARY KEY (queue, id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
-- For sweeps only: a search by id doesn't imply its predicate, and so uses the primary key (ADR 87).
CREATE INDEX result_expires ON result (queue, expires) WHERE expires > '-infinity';

-- The last jobs of a queue that ended without a result: a row for each request that settled some.
CREATE TABLE ended (
  queue int NOT NULL,
  number bigint NOT NULL,
  ids text[] COLLATE "C" NOT NULL,
  first bigint, -- of some rows: all rows of the queue before this number had been deleted by then
  PRIMARY KEY (queue, number)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);

-- The jobs in flight that are asked to be cancelled. The row of a job that was acked stays until the next one is asked; no
-- other job has its seq.
CREATE TABLE asked (
  queue int NOT NULL,
  seq bigint NOT NULL,
  id text COLLATE "C" NOT NULL,
  ttl float8 NOT NULL, -- for how many seconds to remember that it was cancelled
  PRIMARY KEY (queue, seq)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);

CREATE SEQUENCE block; -- a job's seq is one of these, and its number in the request behind it
CREATE SEQUENCE death;
CREATE SEQUENCE ending; -- numbers of rows of `ended`

-- What `settle_and_take` tells once for the whole request.
CREATE TYPE summary AS (
  lost int[], -- the settlements, counted from 1, whose leases were lost
  cancelled int[], -- those whose jobs ended as cancelled, as was asked
  knew_last boolean, -- whether the server knows the sender's last request; if not, a crash has taken it back
  seen_before bigint, -- all transactions before this one were seen, so that nothing more can become ready there
  returned bigint, -- queue.returned
  is_swept boolean, -- whether all that had come to its time was swept
  has_announced boolean, -- whether it was announced just now that somebody waits
  next_event_ms int -- in how many milliseconds something is due or a lease ends
);
-- A job that was taken; or, in the last row, the summary alone.
CREATE TYPE taken AS (
  place bigint,
  seq bigint,
  id text,
  body bytea,
  attempt int,
  number int,
  crashes int,
  summary summary
);

-- The coordination store: records, places and rates.

-- `minute` is when a record ends, rounded down. An update within that minute changes no index, so that it is a HOT update.
CREATE TABLE shared_record (
  key text COLLATE "C" PRIMARY KEY,
  version bigint NOT NULL,
  ends timestamptz, -- NULL: never
  minute timestamptz GENERATED ALWAYS AS (date_bin('1 min', ends, '2000-01-01 00:00:00+00')) STORED,
  value bytea NOT NULL
) WITH (
  fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0, toast.autovacuum_vacuum_scale_factor = 0,
  toast.autovacuum_vacuum_threshold = 2000, toast.autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX shared_record_minute ON shared_record (minute) WHERE minute IS NOT NULL;

-- A key that has places. A call that takes or leaves some locks the key's row first. The row outlasts them.
CREATE TABLE place_key (
  key text COLLATE "C" PRIMARY KEY,
  number bigint GENERATED ALWAYS AS IDENTITY,
  ends timestamptz NOT NULL
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000, autovacuum_vacuum_cost_delay = 0);
CREATE INDEX place_key_ends ON place_key (ends);

-- Who has a place, and who waits for one in the order of tickets. To extend one is a HOT update.
CREATE TABLE place (
  key bigint NOT NULL, -- the number of a place_key
  holder text COLLATE "C" NOT NULL,
  ticket bigint NOT NULL,
  is_held boolean NOT NULL,
  ends timestamptz NOT NULL,
  watch text NOT NULL DEFAULT '', -- who is told when the holder waits and is next (ADR 113); '' for nobody
  PRIMARY KEY (key, holder)
) WITH (
  fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);
-- For the places of a key that are held, and for its line. A search for a holder uses the primary key (ADR 87).
CREATE INDEX place_held ON place (key, ticket) WHERE is_held;
CREATE INDEX place_line ON place (key, ticket) WHERE NOT is_held;

CREATE TABLE rate (
  key text COLLATE "C" PRIMARY KEY,
  turn timestamptz NOT NULL, -- the first that isn't reserved
  ends timestamptz NOT NULL -- at turn or later; rarely changed
) WITH (
  fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000,
  autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX rate_ends ON rate (ends);

-- One row: all that had ended by `swept` was removed, but what was locked just then, which is looked at once more. So no
-- sweep reads again the dead rows that a held snapshot keeps.
CREATE TABLE coordination_sweep (before timestamptz NOT NULL, swept timestamptz NOT NULL);
ALTER TABLE coordination_sweep REPLICA IDENTITY FULL; -- as with `job`; it has no key
INSERT INTO coordination_sweep VALUES ('-infinity', '-infinity');

CREATE SEQUENCE coordination; -- versions of records, and tickets of places

INSERT INTO version VALUES (1, 1);
