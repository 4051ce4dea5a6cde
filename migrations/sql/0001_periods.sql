-- Billing periods: closed exactly, once, from the raw books. What they say never changes; invoices and statements stand
-- on them.
--
-- Every entry of an account gets its time under the lock of the account's row. So whoever holds that lock at an instant
-- has before it every entry of an earlier time, for ever: that is what `seal_books` notes down, in a moment. The sums are
-- taken afterwards, without any lock, from rows that can no longer change.
CREATE TABLE billing_seal (
    gateway_id    uuid PRIMARY KEY,      -- no foreign key: to check it would hold the account's lock for longer
    sealed_until  timestamptz NOT NULL,  -- the books of the gateway get no entry of an earlier time any more
    sealed_at     timestamptz NOT NULL CHECK (sealed_at >= sealed_until)
);

-- Gateways whose entries do not make what their account says, so that the period that begins then stays open: by how
-- much, and when all of it is read again. Of one that was closed meanwhile it says nothing any more.
CREATE TABLE billing_difference (
    gateway_id        uuid PRIMARY KEY REFERENCES gateway,
    begins_at         timestamptz NOT NULL,
    difference        numeric NOT NULL,      -- of the balance
    usage_difference  numeric NOT NULL,      -- of usage_total
    pause_min         integer NOT NULL,      -- before the next look
    next_look_at      timestamptz NOT NULL
);

-- closing = opening + what is in billing_movement - usage; opening is the closing of the period before, 0 of the first.
-- Periods of a gateway follow each other without a gap, from its creation on.
CREATE TABLE billing_period (
    gateway_id     uuid NOT NULL REFERENCES gateway,
    begins_at      timestamptz NOT NULL,
    ends_at        timestamptz NOT NULL CHECK (ends_at > begins_at),
    first_day      date NOT NULL,            -- by the gateway's calendar: the period's name
    next_day       date NOT NULL CHECK (next_day > first_day),  -- the name of the next
    way            text NOT NULL CHECK (way IN ('prepaid', 'automatic', 'postpaid', 'subscription', 'free')),
    time_zone      text NOT NULL,
    currency       currency NOT NULL,
    opening        monetary NOT NULL,
    usage          monetary NOT NULL CHECK (usage >= 0),
    closing        monetary NOT NULL,
    usage_to_date  monetary NOT NULL CHECK (usage_to_date >= usage),  -- of this period and all before it
    calls_count    bigint NOT NULL CHECK (calls_count >= 0),
    ev_wei         wei NOT NULL,
    closed_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (gateway_id, begins_at),
    UNIQUE (gateway_id, ends_at)
);

-- Those that an invoice asks for, if there is one yet: settlement/invoices/planning.py looks for them every minute.
CREATE INDEX billing_period_in_arrears ON billing_period (gateway_id, begins_at)
    WHERE way IN ('postpaid', 'subscription');

-- What entered the account (> 0) or left it in the period, beside usage, by kind of transfer. Kinds without any have no
-- row; those that make 0 together have one.
CREATE TABLE billing_movement (
    gateway_id  uuid NOT NULL,
    begins_at   timestamptz NOT NULL,
    kind        text NOT NULL,
    amount      monetary NOT NULL,
    PRIMARY KEY (gateway_id, begins_at, kind),
    FOREIGN KEY (gateway_id, begins_at) REFERENCES billing_period
);

-- What the usage of the period was for.
CREATE TABLE billing_line (
    gateway_id     uuid NOT NULL,
    begins_at      timestamptz NOT NULL,
    app            text NOT NULL,
    pipeline       text NOT NULL,
    model          text NOT NULL,
    markup_bps     integer NOT NULL,
    calls_count    bigint NOT NULL CHECK (calls_count > 0),
    tickets_count  bigint NOT NULL CHECK (tickets_count > 0),
    ev_wei         wei NOT NULL,
    fee_wei        numeric(78, 0) NOT NULL,
    charge         monetary NOT NULL CHECK (charge >= 0),  -- 0 where the rate card allows it
    rate_rule      text NOT NULL DEFAULT '',  -- that the charge follows from: card@version#ordinal; '' is the markup
    quantity       numeric CHECK (quantity >= 0),  -- of it, in `unit`, rounded to 9 decimals; NULL: what is sold is cost
    unit           text,
    PRIMARY KEY (gateway_id, begins_at, app, pipeline, model, markup_bps, rate_rule),
    CHECK ((quantity IS NULL) = (unit IS NULL)),
    FOREIGN KEY (gateway_id, begins_at) REFERENCES billing_period
);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing_period
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('A closed period is corrected by entries of a later one.');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing_movement
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('A closed period is corrected by entries of a later one.');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON billing_line
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('A closed period is corrected by entries of a later one.');

-- A span of time is found without its history. Issuances come in the order of their times, all but, so an insert goes to
-- the last page. (BRIN is smaller and costs an insert as much. But what was issued since its last vacuum is read whole, and
-- a summary that was left half made, as was seen with autosummarize in 18.4, makes every scan read all that follows it.)
CREATE INDEX issuance_time ON issuance (created_at);
CREATE INDEX transfer_time ON transfer (created_at);

-- Establishes that the books of gateways get no entry any more with a time before `a_until`; returns of which. An account
-- that somebody holds is left for the next time, unless `a_waits`: then it is waited for as long as lock_timeout lets.
-- What signs for these gateways waits until the transaction ends: keep it short. It does not wait for the disk: a seal
-- that is lost by that is one that nothing rests on, since a period that was closed is on disk after its seal. Raises
-- check_violation where an instant is still to come.
CREATE FUNCTION seal_books(a_gateway uuid[], a_until timestamptz[], a_waits boolean) RETURNS SETOF uuid
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    held uuid[];
    held_at timestamptz;
BEGIN
    PERFORM set_config('synchronous_commit', 'off', true);
    IF a_waits THEN
        held := ARRAY(SELECT id FROM account WHERE gateway_id = ANY (a_gateway) ORDER BY id FOR NO KEY UPDATE);
    ELSE
        held := ARRAY(SELECT id FROM account WHERE gateway_id = ANY (a_gateway) ORDER BY id
                         FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    held_at := clock_timestamp();
    IF held_at < (SELECT max(until) FROM unnest(a_until) AS asked (until)) THEN
        RAISE check_violation USING MESSAGE = 'a period is closed when it is over, not before';
    END IF;
    -- Credit that expired and is not booked yet is booked in the period that begins now, ahead of any usage of it.
    PERFORM settle_lots(id) FROM account WHERE id = ANY (held) AND next_expiry_at <= now();
    RETURN QUERY
        INSERT INTO billing_seal AS seal (gateway_id, sealed_until, sealed_at)
        SELECT gateway_id, max(until), held_at FROM unnest(a_gateway, a_until) AS asked (gateway_id, until)
         WHERE gateway_id = ANY (held) GROUP BY gateway_id
            ON CONFLICT (gateway_id) DO UPDATE
               SET sealed_until = greatest(seal.sealed_until, EXCLUDED.sealed_until), sealed_at = EXCLUDED.sealed_at
        RETURNING seal.gateway_id;
END $$;

-- The entries of periods, all as of one instant: usage by line (what left the account, so below 0) and every other kind
-- of transfer (above 0 where it entered the account). Besides, without begins_at, what the account says of itself at that
-- very instant: 'balance' and 'usage_total'. Periods of a gateway may not overlap.
CREATE FUNCTION period_entries(a_gateway uuid[], a_begins_at timestamptz[], a_ends_at timestamptz[])
RETURNS TABLE (
    o_gateway uuid, o_begins_at timestamptz, o_kind text, o_app text, o_pipeline text, o_model text, o_markup_bps integer,
    o_calls_count bigint, o_tickets_count bigint, o_ev_wei numeric, o_fee_wei numeric, o_amount numeric,
    o_rate_rule text, o_quantity numeric, o_unit text
) LANGUAGE plpgsql STABLE SET search_path = public, pg_temp
-- Planned for these very gateways and times: one of them and ten thousand are not read in the same way.
-- Memory for a month's end of a million calls: what goes to disk delays the commits that are being signed.
SET plan_cache_mode = force_custom_plan SET work_mem = '256MB' AS $$
DECLARE
    from_at timestamptz := (SELECT min(begins_at) FROM unnest(a_begins_at) AS asked (begins_at));
    until timestamptz := (SELECT max(ends_at) FROM unnest(a_ends_at) AS asked (ends_at));
BEGIN
    RETURN QUERY
    WITH asked AS MATERIALIZED (
        SELECT * FROM unnest(a_gateway, a_begins_at, a_ends_at) AS given (gateway_id, begins_at, ends_at)),
    -- By session first: they are fewer than calls, and have all that a line is named by.
    used AS MATERIALIZED (
        SELECT asked.gateway_id, asked.begins_at, issuance.session_id, issuance.markup_bps, issuance.rate_rule,
               count(*) AS calls_count, sum(issuance.quantity) AS quantity,
               sum(issuance.num_tickets) AS tickets_count, sum(issuance.ev_wei) AS ev_wei,
               sum(issuance.fee_wei) AS fee_wei, sum(issuance.charge) AS charge
          FROM asked JOIN issuance ON issuance.gateway_id = asked.gateway_id
                                  AND issuance.created_at >= asked.begins_at AND issuance.created_at < asked.ends_at
         WHERE issuance.created_at >= from_at AND issuance.created_at < until
         GROUP BY asked.gateway_id, asked.begins_at, issuance.session_id, issuance.markup_bps, issuance.rate_rule),
    moved AS (
        SELECT source AS account_id, kind, -amount AS amount, created_at FROM transfer
         WHERE created_at >= from_at AND created_at < until
         UNION ALL
        SELECT destination, kind, amount, created_at FROM transfer
         WHERE created_at >= from_at AND created_at < until)
    SELECT used.gateway_id, used.begins_at, 'usage', coalesce(session.app, ''), coalesce(session.pipeline, ''),
           coalesce(session.model, ''), used.markup_bps, sum(used.calls_count)::bigint,
           sum(used.tickets_count)::bigint, sum(used.ev_wei), sum(used.fee_wei), -sum(used.charge),
           coalesce(rule.card || '@' || rule.version || '#' || rule.ordinal, ''),
           round(sum(used.quantity) / rule.base_per_unit, 9),
           CASE WHEN sum(used.quantity) IS NOT NULL THEN rule.per END
      FROM used LEFT JOIN session ON session.id = used.session_id  -- a charge without a session is a charge, too
      LEFT JOIN rate_rule AS rule ON rule.id = used.rate_rule
     GROUP BY used.gateway_id, used.begins_at, session.app, session.pipeline, session.model, used.markup_bps, rule.id
     UNION ALL
    SELECT asked.gateway_id, asked.begins_at, moved.kind, NULL, NULL, NULL, NULL, 0, 0, 0, 0, sum(moved.amount),
           NULL, NULL, NULL
      FROM asked JOIN moved ON moved.account_id = asked.gateway_id
                           AND moved.created_at >= asked.begins_at AND moved.created_at < asked.ends_at
     GROUP BY asked.gateway_id, asked.begins_at, moved.kind
     UNION ALL
    SELECT account.id, NULL, said.kind, NULL, NULL, NULL, NULL, 0, 0, 0, 0, said.amount, NULL, NULL, NULL
      FROM (SELECT DISTINCT gateway_id FROM asked) AS asked JOIN account ON account.id = asked.gateway_id
      CROSS JOIN LATERAL (VALUES ('balance', account.balance::numeric),
                                 ('usage_total', account.usage_total::numeric)) AS said (kind, amount);
END $$;

-- Closes periods that are over; of a gateway all that are given, in their order, or none. Gateways must be sealed until
-- the end of their last one, and their first one must be the next to close.
--
-- Nothing is believed: what the account had at the end of the period before, and all its entries since, those after the
-- last end as well, must make its balance and its usage_total, to the last digit, as of one instant. Entries that are
-- missing, doubled, or of a time that is not theirs (a clock that was put back) show in that.
--
-- Outcomes: 'closed'; 'not_sealed'; 'not_next' (closed already, or there is a gap); 'differs', and then by how much:
-- o_difference is the balance less what the entries make it, o_usage_difference the same of usage_total.
CREATE FUNCTION close_periods(
    a_gateway uuid[], a_begins_at timestamptz[], a_ends_at timestamptz[], a_first_day date[], a_next_day date[],
    a_way text[], a_time_zone text[]
) RETURNS TABLE (o_gateway uuid, o_outcome text, o_difference numeric, o_usage_difference numeric)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
-- How many rows a function gives is not known before: a nested loop over them would take forever where they are many.
SET enable_nestloop = off SET work_mem = '64MB' AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(x'636c6f73696e67'::bigint);  -- one at a time; the second finds that it is done
    RETURN QUERY
    WITH asked AS MATERIALIZED (
        SELECT *, coalesce(lag(ends_at) OVER by_begin = begins_at, true) AS follows,
               row_number() OVER by_begin = 1 AS is_first, lead(ends_at) OVER by_begin IS NULL AS is_last
          FROM unnest(a_gateway, a_begins_at, a_ends_at, a_first_day, a_next_day, a_way, a_time_zone)
                      AS given (gateway_id, begins_at, ends_at, first_day, next_day, way, time_zone)
        WINDOW by_begin AS (PARTITION BY gateway_id ORDER BY begins_at)),
    -- With what happened after the last end, until this instant.
    entry AS MATERIALIZED (
        SELECT * FROM period_entries(
            a_gateway || ARRAY(SELECT gateway_id FROM asked WHERE is_last ORDER BY gateway_id),
            a_begins_at || ARRAY(SELECT ends_at FROM asked WHERE is_last ORDER BY gateway_id),
            a_ends_at || ARRAY(SELECT 'infinity'::timestamptz FROM asked WHERE is_last ORDER BY gateway_id))),
    newest AS (
        SELECT DISTINCT ON (gateway_id) gateway_id, ends_at, closing, usage_to_date FROM billing_period
         WHERE gateway_id = ANY (a_gateway) ORDER BY gateway_id, begins_at DESC),
    before AS MATERIALIZED (
        SELECT gateway.id AS gateway_id, coalesce(newest.ends_at, gateway.created_at) AS ends_at,
               coalesce(newest.closing, 0) AS closing, coalesce(newest.usage_to_date, 0) AS usage_to_date
          FROM gateway LEFT JOIN newest ON newest.gateway_id = gateway.id WHERE gateway.id = ANY (a_gateway)),
    reckoned AS (
        SELECT entry.o_gateway AS gateway_id,
               sum(CASE entry.o_kind WHEN 'balance' THEN entry.o_amount WHEN 'usage_total' THEN 0
                                     ELSE -entry.o_amount END) AS balance_less_entries,
               sum(CASE WHEN entry.o_kind IN ('usage', 'usage_total') THEN entry.o_amount ELSE 0 END)
                   AS usage_less_entries
          FROM entry GROUP BY entry.o_gateway),
    judged AS MATERIALIZED (
        SELECT asked.gateway_id, reckoned.balance_less_entries - before.closing AS difference,
               reckoned.usage_less_entries - before.usage_to_date AS usage_difference,
               CASE WHEN NOT bool_and(asked.follows) OR bool_or(asked.is_first AND asked.begins_at <> before.ends_at)
                        THEN 'not_next'
                    WHEN coalesce(seal.sealed_until < max(asked.ends_at), true) THEN 'not_sealed'
                    WHEN reckoned.balance_less_entries = before.closing
                     AND reckoned.usage_less_entries = before.usage_to_date THEN 'closed'
                    ELSE 'differs' END AS outcome
          FROM asked JOIN before ON before.gateway_id = asked.gateway_id
          LEFT JOIN reckoned ON reckoned.gateway_id = asked.gateway_id
          LEFT JOIN billing_seal AS seal ON seal.gateway_id = asked.gateway_id
         GROUP BY asked.gateway_id, before.closing, before.usage_to_date, seal.sealed_until,
                  reckoned.balance_less_entries, reckoned.usage_less_entries),
    summed AS (
        SELECT entry.o_gateway AS gateway_id, entry.o_begins_at AS begins_at, sum(entry.o_amount) AS change,
               -coalesce(sum(entry.o_amount) FILTER (WHERE entry.o_kind = 'usage'), 0) AS usage,
               sum(entry.o_calls_count)::bigint AS calls_count, sum(entry.o_ev_wei) AS ev_wei
          FROM entry WHERE entry.o_begins_at IS NOT NULL GROUP BY entry.o_gateway, entry.o_begins_at),
    closed AS (
        INSERT INTO billing_period (
            gateway_id, begins_at, ends_at, first_day, next_day, way, time_zone, currency, opening, usage, closing,
            usage_to_date, calls_count, ev_wei)
        SELECT asked.gateway_id, asked.begins_at, asked.ends_at, asked.first_day, asked.next_day, asked.way,
               asked.time_zone, account.currency,
               before.closing + sum(coalesce(summed.change, 0)) OVER so_far - coalesce(summed.change, 0),
               coalesce(summed.usage, 0), before.closing + sum(coalesce(summed.change, 0)) OVER so_far,
               before.usage_to_date + sum(coalesce(summed.usage, 0)) OVER so_far,
               coalesce(summed.calls_count, 0), coalesce(summed.ev_wei, 0)
          FROM asked JOIN judged ON judged.gateway_id = asked.gateway_id AND judged.outcome = 'closed'
          JOIN before ON before.gateway_id = asked.gateway_id
          JOIN account ON account.id = asked.gateway_id
          LEFT JOIN summed ON summed.gateway_id = asked.gateway_id AND summed.begins_at = asked.begins_at
        WINDOW so_far AS (PARTITION BY asked.gateway_id ORDER BY asked.begins_at)
        RETURNING gateway_id, begins_at),
    moved AS (
        INSERT INTO billing_movement (gateway_id, begins_at, kind, amount)
        SELECT closed.gateway_id, closed.begins_at, entry.o_kind, entry.o_amount
          FROM closed JOIN entry ON entry.o_gateway = closed.gateway_id AND entry.o_begins_at = closed.begins_at
         WHERE entry.o_kind <> 'usage'),
    lined AS (
        INSERT INTO billing_line (
            gateway_id, begins_at, app, pipeline, model, markup_bps, calls_count, tickets_count, ev_wei, fee_wei, charge,
            rate_rule, quantity, unit)
        SELECT closed.gateway_id, closed.begins_at, entry.o_app, entry.o_pipeline, entry.o_model, entry.o_markup_bps,
               entry.o_calls_count, entry.o_tickets_count, entry.o_ev_wei, entry.o_fee_wei, -entry.o_amount,
               entry.o_rate_rule, entry.o_quantity, entry.o_unit
          FROM closed JOIN entry ON entry.o_gateway = closed.gateway_id AND entry.o_begins_at = closed.begins_at
         WHERE entry.o_kind = 'usage')
    SELECT judged.gateway_id, judged.outcome, judged.difference, judged.usage_difference FROM judged;
END $$;
