-- Limits: what a gateway and a key may use, and what they have used. NULL is no limit.
--
-- A gateway's stand on its account, the row that a commit locks and changes anyway: they are judged there, so that
-- any number of processes together cannot pass one, and counting costs no further write. Days and months are UTC.
-- What they are follows from its plan and from what it has for itself: refresh_limits (0001_plans.sql) writes them.
CREATE DOMAIN count_max AS bigint CHECK (VALUE >= 0);
CREATE DOMAIN amount_max AS monetary CHECK (VALUE >= 0);
CREATE DOMAIN rate_max AS integer CHECK (VALUE > 0);

ALTER TABLE account
    ADD calls_day_max    count_max,
    ADD spend_day_max    amount_max,
    ADD spend_month_max  amount_max,
    ADD ev_open_max_wei  wei,
    ADD sessions_open_max                   count_max,
    ADD sessions_open_per_orchestrator_max  count_max,
    -- The counters have no domains: every commit would check them anew, and they are sums of what was checked.
    ADD usage_day        date NOT NULL DEFAULT '1970-01-01',  -- the day that the counters below are of
    ADD calls_day        bigint NOT NULL DEFAULT 0,
    ADD spent_day        numeric NOT NULL DEFAULT 0,
    ADD spent_month      numeric NOT NULL DEFAULT 0,
    -- Expected value of the tickets released on usage_day, the day before, and the one before that. Together they cover
    -- 48 hours at least, and tickets can be redeemed for two rounds, which are 38: never less than what is open.
    ADD ev_day0_wei      numeric NOT NULL DEFAULT 0,
    ADD ev_day1_wei      numeric NOT NULL DEFAULT 0,
    ADD ev_day2_wei      numeric NOT NULL DEFAULT 0,
    ADD fee_day_wei      numeric NOT NULL DEFAULT 0,  -- fees of usage_day, beside ev_day0_wei: far below it, look (A1)
    ADD low_fees_noted_at timestamptz,  -- when that was last said aloud
    ADD sessions_open    bigint NOT NULL DEFAULT 0;

-- Requests per second are counted in every serving process; here is only how many there may be.
ALTER TABLE gateway ADD requests_per_s rate_max, ADD burst_count rate_max;
ALTER TABLE api_key
    ADD requests_per_s rate_max,
    ADD burst_count rate_max,
    ADD has_limits boolean NOT NULL DEFAULT false;  -- whether there is a row in key_limit; changed under the account's lock

-- A key's usage is counted only while it has a limit. A row is changed only under the lock of its gateway's account, and
-- its counters are of that account's usage_day. (Not in api_key: whoever revokes a key must not hold up a batch.)
CREATE TABLE key_limit (
    gateway_id         uuid NOT NULL REFERENCES gateway,
    key_id             uuid NOT NULL REFERENCES api_key,
    calls_day_max      count_max,
    spend_day_max      amount_max,
    spend_month_max    amount_max,
    ev_open_max_wei    wei,
    sessions_open_max  count_max,
    calls_day          bigint NOT NULL DEFAULT 0,
    spent_day          numeric NOT NULL DEFAULT 0,
    spent_month        numeric NOT NULL DEFAULT 0,
    ev_day0_wei        numeric NOT NULL DEFAULT 0,
    ev_day1_wei        numeric NOT NULL DEFAULT 0,
    ev_day2_wei        numeric NOT NULL DEFAULT 0,
    sessions_open      bigint NOT NULL DEFAULT 0,  -- that it opened (session.opened_by), whoever goes on with them
    PRIMARY KEY (gateway_id, key_id)
) WITH (fillfactor = 50);

-- A session is open until nothing was paid in it for a while (close_idle_sessions); its next payment opens it again.
ALTER TABLE session
    ADD closed boolean NOT NULL DEFAULT false,
    ADD opened_by uuid NOT NULL;  -- the key that did so last
CREATE INDEX session_open ON session (gateway_id) WHERE NOT closed;
CREATE TABLE open_sessions (
    gateway_id    uuid NOT NULL,
    orchestrator  address NOT NULL,
    sessions      bigint NOT NULL CHECK (sessions >= 0),
    PRIMARY KEY (gateway_id, orchestrator)
) WITH (fillfactor = 50);

CREATE FUNCTION month_of(day date) RETURNS date
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$ SELECT day - extract(day FROM day)::integer + 1 $$;

-- What is still open after so many days, of the expected value of three.
CREATE FUNCTION ev_open_after(days integer, day0_wei numeric, day1_wei numeric, day2_wei numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE days WHEN 0 THEN day0_wei + day1_wei + day2_wei WHEN 1 THEN day0_wei + day1_wei WHEN 2 THEN day0_wei
                     ELSE 0 END
$$;

-- What every gateway may use and has used as of now, whether or not its counters have seen the new day yet.
CREATE VIEW gateway_usage AS
    SELECT account.id AS gateway_id, account.currency, gateway.requests_per_s, gateway.burst_count,
           calls_day_max, spend_day_max, spend_month_max, ev_open_max_wei, sessions_open_max,
           sessions_open_per_orchestrator_max, sessions_open, today.day,
           CASE WHEN usage_day = today.day THEN calls_day ELSE 0 END AS calls_day,
           CASE WHEN usage_day = today.day THEN spent_day ELSE 0 END AS spent_day,
           CASE WHEN month_of(usage_day) = month_of(today.day) THEN spent_month ELSE 0 END AS spent_month,
           ev_open_after(today.day - usage_day, ev_day0_wei, ev_day1_wei, ev_day2_wei) AS ev_open_wei
      FROM account JOIN gateway ON gateway.id = account.gateway_id
      CROSS JOIN LATERAL (SELECT greatest(usage_day, (now() AT TIME ZONE 'UTC')::date) AS day) AS today;

CREATE VIEW key_usage AS
    SELECT api_key.gateway_id, api_key.id AS key_id, account.currency, api_key.requests_per_s, api_key.burst_count,
           api_key.has_limits, key_limit.calls_day_max, key_limit.spend_day_max, key_limit.spend_month_max,
           key_limit.ev_open_max_wei, key_limit.sessions_open_max, key_limit.sessions_open, today.day,
           CASE WHEN usage_day = today.day THEN key_limit.calls_day ELSE 0 END AS calls_day,
           CASE WHEN usage_day = today.day THEN key_limit.spent_day ELSE 0 END AS spent_day,
           CASE WHEN month_of(usage_day) = month_of(today.day) THEN key_limit.spent_month ELSE 0 END AS spent_month,
           ev_open_after(today.day - usage_day, key_limit.ev_day0_wei, key_limit.ev_day1_wei, key_limit.ev_day2_wei)
               AS ev_open_wei
      FROM api_key JOIN account ON account.id = api_key.gateway_id
      LEFT JOIN key_limit ON key_limit.gateway_id = api_key.gateway_id AND key_limit.key_id = api_key.id
      CROSS JOIN LATERAL (SELECT greatest(usage_day, (now() AT TIME ZONE 'UTC')::date) AS day) AS today;

-- Brings an account up to date: the counters begin anew with the day and the month, expired credit lapses, and terms
-- begin to hold.
-- The caller holds the account's row lock.
CREATE FUNCTION refresh_account(a_account uuid, a_day date) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE key_limit SET calls_day = 0, spent_day = 0,
           spent_month = CASE WHEN month_of(usage_day) = month_of(a_day) THEN spent_month ELSE 0 END,
           ev_day0_wei = 0,
           ev_day1_wei = CASE a_day - usage_day WHEN 1 THEN ev_day0_wei ELSE 0 END,
           ev_day2_wei = CASE a_day - usage_day WHEN 1 THEN ev_day1_wei WHEN 2 THEN ev_day0_wei ELSE 0 END
      FROM (SELECT usage_day FROM account WHERE id = a_account AND usage_day < a_day) AS holder
     WHERE key_limit.gateway_id = a_account;
    UPDATE account SET usage_day = a_day, calls_day = 0, spent_day = 0, fee_day_wei = 0,
           spent_month = CASE WHEN month_of(usage_day) = month_of(a_day) THEN spent_month ELSE 0 END,
           ev_day0_wei = 0,
           ev_day1_wei = CASE a_day - usage_day WHEN 1 THEN ev_day0_wei ELSE 0 END,
           ev_day2_wei = CASE a_day - usage_day WHEN 1 THEN ev_day1_wei WHEN 2 THEN ev_day0_wei ELSE 0 END
     WHERE id = a_account AND usage_day < a_day;
    PERFORM settle_lots(a_account) FROM account WHERE id = a_account AND next_expiry_at <= clock_timestamp();
    PERFORM apply_due_terms(a_account) FROM account WHERE id = a_account AND terms_due_at <= clock_timestamp();
END $$;

-- Which of its key's limits a call would pass; NULL where none. The caller holds the account's row lock.
CREATE FUNCTION key_limit_passed(a_gateway uuid, a_key uuid, a_charge numeric, a_ev numeric, a_is_new boolean)
RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT CASE
               WHEN calls_day >= calls_day_max THEN 'key_calls_per_day'
               WHEN spent_day + a_charge > spend_day_max THEN 'key_spend_per_day'
               WHEN spent_month + a_charge > spend_month_max THEN 'key_spend_per_month'
               WHEN ev_day0_wei + ev_day1_wei + ev_day2_wei + a_ev > ev_open_max_wei THEN 'key_ev_open'
               WHEN a_is_new AND sessions_open >= sessions_open_max THEN 'key_sessions_open'
           END
      FROM key_limit WHERE gateway_id = a_gateway AND key_id = a_key;
$$;

-- Closes what was idle for so long; returns how many sessions that were. An account that somebody holds is left for the
-- next time.
CREATE FUNCTION close_idle_sessions(a_gateway uuid, a_idle interval) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    closed_count bigint;
BEGIN
    PERFORM 1 FROM account WHERE id = a_gateway FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    WITH idle AS (
        UPDATE session SET closed = true
         WHERE gateway_id = a_gateway AND NOT closed AND updated_at < now() - a_idle
        RETURNING orchestrator, opened_by),
    by_orchestrator AS (SELECT orchestrator, count(*) AS sessions FROM idle GROUP BY orchestrator),
    lowered AS (
        UPDATE open_sessions AS opened SET sessions = opened.sessions - by_orchestrator.sessions FROM by_orchestrator
         WHERE opened.gateway_id = a_gateway AND opened.orchestrator = by_orchestrator.orchestrator),
    by_key AS (SELECT opened_by, count(*) AS sessions FROM idle GROUP BY opened_by),
    lowered_keys AS (
        UPDATE key_limit SET sessions_open = sessions_open - by_key.sessions FROM by_key
         WHERE key_limit.gateway_id = a_gateway AND key_limit.key_id = by_key.opened_by)
    SELECT coalesce(sum(sessions), 0) INTO closed_count FROM by_orchestrator;
    IF closed_count > 0 THEN
        UPDATE account SET sessions_open = sessions_open - closed_count WHERE id = a_gateway;
        DELETE FROM open_sessions WHERE gateway_id = a_gateway AND sessions = 0;  -- a caller can name any orchestrator
    END IF;
    RETURN closed_count;
END $$;

-- The gateways whose fees of today are below so many basis points of the expected value of their tickets, where that is
-- at least so much; each of them once in `a_every` at most, however many processes ask. An account that somebody holds
-- is left for the next time.
CREATE FUNCTION note_low_fees(a_ratio_bps integer, a_ev_min numeric, a_every interval)
RETURNS TABLE (o_gateway uuid, o_fee numeric, o_ev numeric)
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE account SET low_fees_noted_at = now()
     WHERE id IN (
        SELECT id FROM account
         WHERE usage_day = (now() AT TIME ZONE 'UTC')::date AND ev_day0_wei >= a_ev_min
           AND fee_day_wei * 10000 < ev_day0_wei * a_ratio_bps
           AND coalesce(low_fees_noted_at < now() - a_every, true)
         ORDER BY id FOR NO KEY UPDATE SKIP LOCKED)
    RETURNING id, fee_day_wei, ev_day0_wei
$$;

-- Sets all limits of a key; none at all ends the counting. What the key has used so far is added up from its issuances,
-- and the sessions are counted that it has open. While that takes, the gateway's calls are answered account_busy.
CREATE FUNCTION set_key_limits(
    a_key uuid, a_calls_day bigint, a_spend_day numeric, a_spend_month numeric, a_ev_open numeric,
    a_sessions_open bigint
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    holder account;
    month_begins_at timestamptz;
    days_begin_at timestamptz[];  -- of the day that the counters are of, the day before, and the one before that
    begins_at timestamptz;  -- whichever is earlier
    is_limited boolean := num_nonnulls(a_calls_day, a_spend_day, a_spend_month, a_ev_open, a_sessions_open) > 0;
BEGIN
    PERFORM 1 FROM api_key WHERE id = a_key FOR NO KEY UPDATE;  -- first the key, then the account: as a rotation does
    SELECT account.* INTO STRICT holder FROM account JOIN api_key ON api_key.gateway_id = account.id
     WHERE api_key.id = a_key FOR NO KEY UPDATE OF account;
    PERFORM refresh_account(holder.id, (clock_timestamp() AT TIME ZONE 'UTC')::date);
    SELECT * INTO holder FROM account WHERE id = holder.id;
    UPDATE api_key SET has_limits = is_limited WHERE id = a_key AND has_limits <> is_limited;
    DELETE FROM key_limit WHERE gateway_id = holder.id AND key_id = a_key;
    IF NOT is_limited THEN
        RETURN;
    END IF;
    month_begins_at := month_of(holder.usage_day)::timestamp AT TIME ZONE 'UTC';
    days_begin_at := ARRAY(
        SELECT (holder.usage_day - age)::timestamp AT TIME ZONE 'UTC' FROM generate_series(0, 2) AS age ORDER BY age);
    begins_at := least(month_begins_at, days_begin_at[3]);
    INSERT INTO key_limit (
        gateway_id, key_id, calls_day_max, spend_day_max, spend_month_max, ev_open_max_wei, sessions_open_max,
        calls_day, spent_day, spent_month, ev_day0_wei, ev_day1_wei, ev_day2_wei, sessions_open)
    SELECT holder.id, a_key, a_calls_day, a_spend_day, a_spend_month, a_ev_open, a_sessions_open,
           count(*) FILTER (WHERE created_at >= days_begin_at[1]),
           coalesce(sum(charge) FILTER (WHERE created_at >= days_begin_at[1]), 0),
           coalesce(sum(charge) FILTER (WHERE created_at >= month_begins_at), 0),
           coalesce(sum(ev_wei) FILTER (WHERE created_at >= days_begin_at[1]), 0),
           coalesce(sum(ev_wei) FILTER (WHERE created_at >= days_begin_at[2] AND created_at < days_begin_at[1]), 0),
           coalesce(sum(ev_wei) FILTER (WHERE created_at >= days_begin_at[3] AND created_at < days_begin_at[2]), 0),
           (SELECT count(*) FROM session WHERE gateway_id = holder.id AND NOT closed AND opened_by = a_key)
      FROM issuance
     WHERE gateway_id = holder.id AND key_id = a_key AND created_at >= begins_at
       -- Their ids begin with the time that they were made at, a little before created_at; no index has created_at.
       AND id >= (lpad(to_hex(((extract(epoch FROM begins_at) - 3600) * 1000)::bigint), 12, '0')
                  || repeat('0', 20))::uuid;
END $$;
