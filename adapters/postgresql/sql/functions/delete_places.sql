-- Delete the places of holders, or their positions in line. The caller has locked the keys.
CREATE FUNCTION delete_places(p_keys text[], p_holders text[]) RETURNS void
LANGUAGE plpgsql VOLATILE {{one_plan}} AS $$
BEGIN
  DELETE FROM place WHERE ctid = ANY (ARRAY( -- each by the primary key: a join would read all places of a key for each
    SELECT p.ctid FROM unnest(p_keys, p_holders) AS u (key, holder), LATERAL (
      SELECT ctid FROM place WHERE key = (SELECT number FROM place_key k WHERE k.key = u.key) AND holder = u.holder OFFSET 0
    ) p
  ));
END
$$;
