-- The webhook way in: a signer shows the state after a payment and asks whether it may be released. The states tell what
-- its tickets are worth together, exactly, and nothing else of them.

-- A payment whose answer was lost is shown again, a moment later and with the same nonces. That is approved for nothing;
-- but the tickets behind the nonces are not shown, so a gateway gets it only so many times an hour. Counted under the
-- lock of the account.
ALTER TABLE account
    ADD repeats_hour   timestamptz NOT NULL DEFAULT '1970-01-01',  -- the hour that the counter is of
    ADD repeats_count  integer NOT NULL DEFAULT 0;

-- Takes one of the hour's repeats: NULL, or the code of the refusal. The caller holds the account's row lock.
CREATE FUNCTION take_repeat(a_account uuid, a_max_count integer) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    this_hour timestamptz := date_trunc('hour', clock_timestamp(), 'UTC');
BEGIN
    UPDATE account SET repeats_count = CASE WHEN repeats_hour >= this_hour THEN repeats_count ELSE 0 END + 1,
           repeats_hour = greatest(repeats_hour, this_hour)
     WHERE id = a_account AND CASE WHEN repeats_hour >= this_hour THEN repeats_count ELSE 0 END < a_max_count;
    RETURN CASE WHEN NOT FOUND THEN 'repeats_used_up' END;
END $$;
