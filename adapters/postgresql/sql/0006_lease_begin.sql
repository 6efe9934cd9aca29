-- Version 6. When leases began: one that began after the server had started wasn't cut short by a restart.

-- Without a default for the rows that are there, as the table isn't rewritten then. A lease that is extended has a new row.
ALTER TABLE request ADD COLUMN began timestamptz;
ALTER TABLE request ALTER COLUMN began SET DEFAULT clock_timestamp();

INSERT INTO version VALUES (6, 1);
