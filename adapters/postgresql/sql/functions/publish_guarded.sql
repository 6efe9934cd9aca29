-- Publish a message and write a record, or neither (CRD-4). Return 'accepted', 'duplicate', or, if the record hasn't the
-- expected version, 'refused'.
--
-- 1. If the sender asks again, and the request was carried out, answer as then.
-- 2. Write the record. If it has another version, the first try may have written it just now: find out, and if it hasn't,
--    have it never do so.
-- 3. Publish.
CREATE FUNCTION publish_guarded(
  p_queue text, p_token bigint, p_again boolean, p_answered bigint[],
  p_id text, p_body bytea, p_priority int, p_delay float8,
  p_key text, p_value bytea, p_expected bigint, p_ttl float8,
  OUT outcome text
) LANGUAGE plpgsql VOLATILE {{names}} AS $$
DECLARE
  written bigint;
BEGIN
  IF p_again THEN
    SELECT CASE WHEN r.queue = 0 THEN 'refused' WHEN r.odd IS NULL THEN 'accepted' ELSE 'duplicate' END INTO outcome
    FROM request r WHERE r.token = p_token;
    IF FOUND THEN RETURN; END IF;
  END IF;
  PERFORM FROM queue WHERE name = p_queue;
  IF NOT FOUND THEN RAISE EXCEPTION 'no such queue' USING ERRCODE = 'MJ404'; END IF;

  written := write_record(p_key, p_value, p_expected, p_ttl);
  IF written IS NULL THEN
    outcome := 'refused';
    IF p_again AND was_carried_out(p_token) THEN
      SELECT CASE WHEN r.odd IS NULL THEN 'accepted' ELSE 'duplicate' END INTO outcome
      FROM request r WHERE r.token = p_token;
    END IF;
    RETURN;
  END IF;

  outcome := CASE WHEN publish(
    p_queue, p_token, false, p_answered, ARRAY[p_id], ARRAY[p_body], ARRAY[p_priority], ARRAY[p_delay]
  ) IS NULL THEN 'accepted' ELSE 'duplicate' END;
  IF written % 32 = 0 THEN PERFORM sweep_coordination(); END IF;
END
$$;
