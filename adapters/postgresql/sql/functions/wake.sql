-- Tell all who listen, once this transaction is committed. `what` begins with a letter that says whom it is for: r for
-- consumers, e for those who wait for results.
CREATE FUNCTION wake(queue int, what text) RETURNS void
LANGUAGE sql VOLATILE {{names}} AS $$
  SELECT pg_notify(current_schema(), queue || what)
$$;
