-- Usage, added up for dashboards: for each gateway by quarter of an hour, hour, day and in all. An invoice is not made
-- of these rows: it adds up the issuances themselves.
--
--     commit ──insert──▶ issuance ──roll_up_usage, up to rolled_up_until──▶ usage_bucket
--                           └── what came after it ──▶ a dashboard's answer ◀──┘
--
-- Nothing here is part of a payment's transaction. An issuance is counted once, because what is added and how far that
-- went are one transaction; and none is left out, because one that has an earlier created_at had its transaction's id by
-- then (see usage_mark), and all of those had ended. Issuances of a time are found by issuance_time.

-- What is counted apart: the rows with the sums stay short, and their key, too.
CREATE TABLE usage_kind (
    id        integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    app       text NOT NULL,
    pipeline  text NOT NULL,
    model     text NOT NULL,
    job_type  text NOT NULL
);
-- Callers choose the names, so the hash must have no collisions to choose; a name has no control characters.
CREATE FUNCTION usage_kind_hash(app text, pipeline text, model text, job_type text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT sha256(convert_to(concat_ws(E'\x1f', app, pipeline, model, job_type), 'UTF8'))
$$;
CREATE UNIQUE INDEX usage_kind_name ON usage_kind (usage_kind_hash(app, pipeline, model, job_type));

-- In which bucket a time is. Days are UTC; of another time zone they are made of hours, or of quarters where its days
-- do not begin with an hour. 'ever' has one bucket.
CREATE FUNCTION usage_begin(span text, at timestamptz) RETURNS timestamptz LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE span WHEN 'quarter' THEN date_bin('15 minutes', at, '1970-01-01 00:00Z')
                     WHEN 'hour' THEN date_bin('1 hour', at, '1970-01-01 00:00Z')
                     WHEN 'day' THEN date_bin('24 hours', at, '1970-01-01 00:00Z')
                     ELSE timestamptz '1970-01-01 00:00Z' END
$$;

CREATE TABLE usage_bucket (
    gateway_id  uuid NOT NULL,
    span        text NOT NULL CHECK (span IN ('quarter', 'hour', 'day', 'ever')),
    begins_at   timestamptz NOT NULL,
    kind_id     integer NOT NULL,
    currency    text NOT NULL,
    issuances   bigint NOT NULL,
    tickets     bigint NOT NULL,
    ev_wei      numeric NOT NULL,
    fee_wei     numeric NOT NULL,
    charge      numeric NOT NULL,
    PRIMARY KEY (gateway_id, span, begins_at, kind_id, currency)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX usage_bucket_begin ON usage_bucket (span, begins_at);

CREATE TABLE usage_progress (
    only_row         boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    rolled_up_until  timestamptz NOT NULL DEFAULT '1970-01-01 00:00Z',  -- every issuance created before it is in the buckets
    mended_at        timestamptz NOT NULL DEFAULT '1970-01-01 00:00Z'   -- when that was last found wrong and corrected
);
INSERT INTO usage_progress DEFAULT VALUES;

-- A time, and a transaction's id that is higher than that of every issuance created before it: created_at is read after
-- the account's lock, for which a transaction has to have its id. (pg_snapshot_xmax would not do: it is the highest of
-- those that have ended.) Subtransactions have higher ids, and theirs is not looked at. On a standby there is none.
CREATE FUNCTION usage_mark(OUT o_until timestamptz, OUT o_xid xid8)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF pg_current_xact_id_if_assigned() IS NOT NULL THEN  -- it would be older than the time
        RAISE 'usage_mark comes first in its transaction' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    o_until := clock_timestamp();
    o_xid := pg_current_xact_id();
END $$;

-- Adds to the buckets of these spans. The rows are of quarters, each key once, or of what is coarser, to spans that are.
CREATE FUNCTION add_usage(a_rows usage_bucket[], a_spans text[]) RETURNS void
LANGUAGE sql SET search_path = public, pg_temp AS $$
    INSERT INTO usage_bucket AS bucket
    SELECT gateway_id, into_span, usage_begin(into_span, begins_at), kind_id, currency, sum(issuances), sum(tickets),
           sum(ev_wei), sum(fee_wei), sum(charge)
      FROM unnest(a_rows) CROSS JOIN unnest(a_spans) AS into_span
     GROUP BY 1, 2, 3, 4, 5 ORDER BY 1, 2, 3, 4, 5
        ON CONFLICT (gateway_id, span, begins_at, kind_id, currency) DO UPDATE
       SET issuances = bucket.issuances + excluded.issuances, tickets = bucket.tickets + excluded.tickets,
           ev_wei = bucket.ev_wei + excluded.ev_wei, fee_wei = bucket.fee_wei + excluded.fee_wei,
           charge = bucket.charge + excluded.charge;
$$;

-- Sums with the names of what they are of.
CREATE TYPE usage_part AS (
    gateway_id uuid, begins_at timestamptz, app text, pipeline text, model text, job_type text, currency text,
    issuances bigint, tickets bigint, ev_wei numeric, fee_wei numeric, charge numeric
);

-- What the issuances of these times sum to, by quarter. Sums of sessions first, so that each is looked up once.
CREATE FUNCTION count_usage(a_from timestamptz, a_to timestamptz) RETURNS usage_bucket[]
LANGUAGE plpgsql SET search_path = public, pg_temp SET enable_seqscan = off SET max_parallel_workers_per_gather = 0
SET plan_cache_mode = force_custom_plan SET jit = off AS $$
DECLARE
    parts usage_part[];
BEGIN
    parts := ARRAY(
        SELECT ROW(used.gateway_id, begins_at, coalesce(app, ''), coalesce(pipeline, ''), coalesce(model, ''),
                   coalesce(job_type, ''), currency, sum(issuances), sum(tickets), sum(ev_wei), sum(fee_wei),
                   sum(charge))::usage_part
          FROM (SELECT gateway_id, session_id, usage_begin('quarter', created_at) AS begins_at, currency,
                       count(*) AS issuances, sum(num_tickets) AS tickets, sum(ev_wei::numeric) AS ev_wei,
                       sum(fee_wei) AS fee_wei, sum(charge::numeric) AS charge
                  FROM issuance WHERE created_at >= a_from AND created_at < a_to
                 GROUP BY 1, 2, 3, 4) AS used
          -- A charge without a session is a charge, too.
          LEFT JOIN LATERAL (SELECT * FROM session WHERE session.id = used.session_id OFFSET 0) AS session ON true
         GROUP BY used.gateway_id, begins_at, app, pipeline, model, job_type, currency);
    INSERT INTO usage_kind (app, pipeline, model, job_type)
    SELECT DISTINCT app, pipeline, model, job_type FROM unnest(parts) AS part
     WHERE NOT EXISTS (
           SELECT FROM usage_kind AS kind
            WHERE usage_kind_hash(kind.app, kind.pipeline, kind.model, kind.job_type)
                  = usage_kind_hash(part.app, part.pipeline, part.model, part.job_type));
    RETURN ARRAY(
        SELECT ROW(gateway_id, 'quarter', begins_at, kind.id, currency, issuances, tickets, ev_wei, fee_wei,
                   charge)::usage_bucket
          FROM unnest(parts) AS part
          JOIN usage_kind AS kind
            ON usage_kind_hash(kind.app, kind.pipeline, kind.model, kind.job_type)
               = usage_kind_hash(part.app, part.pipeline, part.model, part.job_type));
END $$;

-- How far from a_from on there are no more issuances than so many, and no further than a_to: a transaction stays short
-- whatever happened in that time.
CREATE FUNCTION usage_reach(a_from timestamptz, a_to timestamptz, a_rows_max integer) RETURNS timestamptz
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off
SET max_parallel_workers_per_gather = 0 SET plan_cache_mode = force_custom_plan SET jit = off AS $$
BEGIN
    WHILE a_to - a_from > interval '1 second' AND (
        SELECT count(*) FROM (SELECT FROM issuance WHERE created_at >= a_from AND created_at < a_to
                               LIMIT a_rows_max + 1) AS bounded) > a_rows_max LOOP
        a_to := a_from + (a_to - a_from) / 2;
    END LOOP;
    RETURN a_to;
END $$;

-- Makes the buckets of these times, which begin with a quarter, what the issuances come to that are rolled up. Returns
-- how many were wrong. The caller sees to it that nobody else is at it.
CREATE FUNCTION mend_usage(a_from timestamptz, a_to timestamptz) RETURNS bigint
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    until timestamptz := (SELECT rolled_up_until FROM usage_progress);
    counted usage_bucket[] := count_usage(a_from, least(a_to, until));
    lacking usage_bucket[];
    wrong bigint;
    coarse text;
    ends_at timestamptz;
BEGIN
    lacking := ARRAY(
        SELECT ROW(gateway_id, 'quarter', begins_at, kind_id, currency, sum(issuances), sum(tickets), sum(ev_wei),
                   sum(fee_wei), sum(charge))::usage_bucket
          FROM (SELECT * FROM unnest(counted) UNION ALL
                SELECT gateway_id, span, begins_at, kind_id, currency, -issuances, -tickets, -ev_wei, -fee_wei, -charge
                  FROM usage_bucket WHERE span = 'quarter' AND begins_at >= a_from AND begins_at < a_to) AS part
         GROUP BY gateway_id, begins_at, kind_id, currency
        HAVING (sum(issuances), sum(tickets), sum(ev_wei), sum(fee_wei), sum(charge)) <> (0, 0, 0, 0, 0));
    wrong := cardinality(lacking);
    PERFORM add_usage(lacking, '{quarter,ever}');
    FOREACH coarse IN ARRAY '{hour,day}'::text[] LOOP
        ends_at := usage_begin(coarse, a_to - interval '1 microsecond')
                   + CASE coarse WHEN 'hour' THEN interval '1 hour' ELSE interval '24 hours' END;
        lacking := usage_lacking(coarse, 'quarter', usage_begin(coarse, a_from), ends_at);
        wrong := wrong + cardinality(lacking);
        PERFORM add_usage(lacking, ARRAY[coarse]);
    END LOOP;
    DELETE FROM usage_bucket WHERE span <> 'ever' AND begins_at >= usage_begin('day', a_from) AND begins_at < a_to
       AND (issuances, tickets, ev_wei, fee_wei, charge) = (0, 0, 0, 0, 0);
    RETURN wrong;
END $$;

-- What buckets lack of the finer ones they are made of.
CREATE FUNCTION usage_lacking(a_span text, a_finer text, a_from timestamptz, a_to timestamptz) RETURNS usage_bucket[]
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
    SELECT ARRAY(
        SELECT ROW(gateway_id, a_span, at, kind_id, currency, sum(issuances), sum(tickets), sum(ev_wei), sum(fee_wei),
                   sum(charge))::usage_bucket
          FROM (SELECT gateway_id, usage_begin(a_span, begins_at) AS at, kind_id, currency, issuances, tickets, ev_wei,
                       fee_wei, charge
                  FROM usage_bucket WHERE span = a_finer AND begins_at >= a_from AND begins_at < a_to
                UNION ALL
                SELECT gateway_id, begins_at, kind_id, currency, -issuances, -tickets, -ev_wei, -fee_wei, -charge
                  FROM usage_bucket WHERE span = a_span AND begins_at >= a_from AND begins_at < a_to) AS part
         GROUP BY gateway_id, at, kind_id, currency
        HAVING (sum(issuances), sum(tickets), sum(ev_wei), sum(fee_wei), sum(charge)) <> (0, 0, 0, 0, 0))
$$;

-- One at a time, in the order of their coming: two would add the same. What is read is newer than the lock.
CREATE FUNCTION hold_usage() RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE 'usage is rolled up in READ COMMITTED' USING ERRCODE = 'invalid_transaction_state';
    END IF;
    PERFORM pg_advisory_xact_lock(x'7573616765726f6c'::bigint);
END $$;

-- Adds the issuances that came before the mark, in time up to a_to and at most about a_rows_max; returns how far that
-- went and how many they were. No row: transactions of before the mark are still under way; ask again.
--
-- A mark before rolled_up_until is from a clock that was set back: then issuances will have times that are rolled up
-- already. So what lies after it is taken out of the buckets, and comes in again as the clock comes there. Further back
-- than a_back_max that is refused; NULL is any distance.
CREATE FUNCTION roll_up_usage(
    a_mark timestamptz, a_xid xid8, a_to timestamptz, a_rows_max integer, a_back_max interval
) RETURNS TABLE (o_until timestamptz, o_issuances bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    since timestamptz;
    counted usage_bucket[];
BEGIN
    PERFORM hold_usage();
    IF pg_snapshot_xmin(pg_current_snapshot()) < a_xid THEN
        RETURN;
    END IF;
    SELECT rolled_up_until INTO since FROM usage_progress;
    IF a_mark < since - a_back_max THEN
        RAISE 'usage is rolled up until %, and the clock of the database says %', since, a_mark
            USING ERRCODE = 'datetime_field_overflow',
                  HINT = 'Set the clock right; if it was wrong before, clearinghouse usage rebuild puts all right.';
    END IF;
    IF a_mark < since THEN
        UPDATE usage_progress SET rolled_up_until = a_mark;
        PERFORM mend_usage(usage_begin('quarter', a_mark), 'infinity');
        RETURN QUERY SELECT a_mark, 0::bigint;
        RETURN;
    END IF;
    o_until := usage_reach(since, greatest(least(a_mark, a_to), since), a_rows_max);
    counted := count_usage(since, o_until);
    PERFORM add_usage(counted, '{quarter,hour,day,ever}');
    UPDATE usage_progress SET rolled_up_until = o_until;
    o_issuances := (SELECT coalesce(sum(issuances), 0) FROM unnest(counted));
    RETURN NEXT;
END $$;

-- Makes the buckets of these times right, from a quarter's beginning on; NULL is up to the end. Returns how many were wrong.
CREATE FUNCTION correct_usage(a_from timestamptz, a_to timestamptz) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM hold_usage();
    RETURN mend_usage(usage_begin('quarter', a_from), coalesce(a_to, 'infinity'));
END $$;

-- The same of the sums since ever, which are made of the days. Returns how many were wrong.
CREATE FUNCTION correct_usage_ever() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    lacking usage_bucket[];
BEGIN
    PERFORM hold_usage();
    lacking := usage_lacking('ever', 'day', '-infinity', 'infinity');
    PERFORM add_usage(lacking, '{ever}');
    DELETE FROM usage_bucket
     WHERE span = 'ever' AND (issuances, tickets, ev_wei, fee_wei, charge) = (0, 0, 0, 0, 0);
    UPDATE usage_progress SET mended_at = clock_timestamp();
    RETURN cardinality(lacking);
END $$;

-- Gateways of which the buckets and what came after them are not what was charged and released in all: every commit adds
-- to usage_total and ev_total_wei, and tickets are worth something even where they cost nothing, so an issuance that was
-- left out shows here.
CREATE FUNCTION usage_differences() RETURNS TABLE (
    o_gateway uuid, o_counted numeric, o_charged numeric, o_counted_wei numeric, o_released_wei numeric
) LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp SET enable_seqscan = off
SET max_parallel_workers_per_gather = 0 SET jit = off AS $$
    SELECT account.id, coalesce(rolled.charge, 0) + coalesce(since.charge, 0), account.usage_total,
           coalesce(rolled.ev_wei, 0) + coalesce(since.ev_wei, 0), account.ev_total_wei
      FROM account
      LEFT JOIN (SELECT gateway_id, sum(charge) AS charge, sum(ev_wei) AS ev_wei FROM usage_bucket WHERE span = 'ever'
                  GROUP BY gateway_id) AS rolled ON rolled.gateway_id = account.id
      LEFT JOIN (SELECT gateway_id, sum(charge) AS charge, sum(ev_wei) AS ev_wei FROM issuance
                  WHERE created_at >= (SELECT rolled_up_until FROM usage_progress) GROUP BY gateway_id)
                AS since ON since.gateway_id = account.id
     WHERE account.gateway_id IS NOT NULL
       AND (account.usage_total, account.ev_total_wei)
           <> (coalesce(rolled.charge, 0) + coalesce(since.charge, 0),
               coalesce(rolled.ev_wei, 0) + coalesce(since.ev_wei, 0))
$$;

-- About when the first issuance was, by the first id of each gateway; NULL where there is none.
CREATE FUNCTION usage_first() RETURNS timestamptz
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT min(first.created_at) FROM account CROSS JOIN LATERAL (
           SELECT created_at FROM issuance WHERE gateway_id = account.id ORDER BY id LIMIT 1) AS first
$$;
