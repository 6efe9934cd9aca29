-- Remove those of these jobs that are dead letters whose time is over (DLQ-5). Return whether any of the ids is free now:
-- another transaction may have removed such a letter after the caller met it.
CREATE FUNCTION free_ids(p_queue int, p_ids text[]) RETURNS boolean
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
DECLARE
  gone text[];
BEGIN
  WITH deleted AS (
    DELETE FROM job WHERE dead_until <= clock_timestamp() AND ctid = ANY (ARRAY(
      SELECT j.at FROM unnest(p_ids) AS i (id), LATERAL (
        SELECT ctid AS at, dead_until FROM job WHERE queue = p_queue AND id = i.id OFFSET 0
      ) j WHERE j.dead_until <= clock_timestamp()
    )) RETURNING id
  ) SELECT array_agg(id) INTO gone FROM deleted;
  IF gone IS NOT NULL THEN PERFORM forget_ends(p_queue, gone); END IF;
  RETURN EXISTS (
    SELECT FROM unnest(p_ids) AS i (id) LEFT JOIN LATERAL (
      SELECT true AS is_there FROM job WHERE queue = p_queue AND id = i.id OFFSET 0
    ) j ON true WHERE is_there IS NULL
  );
END
$$;
