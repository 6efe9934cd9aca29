-- Redrive or discard dead jobs: those of p_ids or, if that is NULL, some up to a death. Return how many there were. Those
-- whose time is over are none.
CREATE FUNCTION redrive_or_discard(p_queue text, p_ids text[], p_upto bigint, p_most int, p_redrive boolean) RETURNS int
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  q queue;
  dead tid[];
  gone text[];
  before bigint;
BEGIN
  SELECT * INTO q FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;

  IF p_ids IS NULL THEN
    dead := ARRAY(
      SELECT ctid FROM job
      WHERE queue = q.key AND death <= p_upto AND (dead_until IS NULL OR dead_until > clock_timestamp())
      ORDER BY death LIMIT p_most FOR UPDATE
    );
  ELSE
    dead := ARRAY(
      SELECT j.at FROM (SELECT DISTINCT unnest(p_ids) AS id) i, LATERAL (
        SELECT ctid AS at, death, dead_until FROM job WHERE queue = q.key AND id = i.id OFFSET 0
      ) j WHERE j.death IS NOT NULL AND (j.dead_until IS NULL OR j.dead_until > clock_timestamp()) ORDER BY j.death
    );
    dead := ARRAY( -- locked only now, so that no live job is; in the order of deaths, as above
      SELECT f.at FROM unnest(dead) AS f (at), LATERAL (SELECT death FROM job WHERE ctid = f.at OFFSET 0 FOR UPDATE) j
      WHERE j.death IS NOT NULL
    );
  END IF;
  IF dead = '{}' THEN RETURN 0; END IF;

  IF p_redrive THEN
    before := nextval('block') << 16;
    UPDATE job SET place = place_now(q.kind, priority), seq = before + f.n, death = NULL, died = NULL,
      dead_until = NULL, reason = NULL, error = NULL, attempt = 1, crashes = 0, failed = NULL, failures = NULL
    FROM unnest(dead) WITH ORDINALITY AS f (at, n) WHERE job.ctid = f.at;
    IF q.receivers_wait_until > clock_timestamp() THEN PERFORM wake(q.key, 'r'); END IF;
  ELSE
    WITH deleted AS (DELETE FROM job WHERE ctid = ANY (dead) RETURNING id) SELECT array_agg(id) INTO gone FROM deleted;
    PERFORM forget_ends(q.key, gone);
  END IF;
  RETURN cardinality(dead);
END
$$;
