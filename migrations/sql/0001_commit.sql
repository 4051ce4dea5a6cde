-- The group commit: one call, one transaction, one fsync for many payments. Each item succeeds or fails on its own.
--
-- Accounts are locked first, in the order of their ids; everything else an item may change belongs to its gateway or is
-- a new recipientRandHash (claimed in sorted order), so two batches cannot deadlock and no gateway waits for another.
-- An account that somebody else holds is left out, so that the others do not wait for it: its items come again by
-- themselves, with a_waits, and then wait as long as lock_timeout lets them.
-- A batch holds at most one item per session, per recipientRandHash and per idempotency key: the caller sees to that.
--
-- One query judges every item, in the published order of refusals; then what passed is applied, item by item. (Short
-- statements in a loop: as one large statement the same work took longer to set up than to do.) What no other item of
-- the batch looks at is written at the end, for all of them at once.
--
-- A usual payment that comes alone is carried out by commit_next instead (0001_commit_next.sql). Whatever is judged or
-- written here has to be so there, too, or the payments that it is about have to be left to this function.

-- An item whose tickets are released, and what its issuance says that only the commit knows.
CREATE TYPE released_item AS (
    ord integer, charge numeric, currency text, balance_after numeric, at_least_cost boolean, volume_before numeric,
    lead_before numeric
);
-- What a batch uses of an account.
CREATE TYPE account_use AS (id uuid, cost numeric, calls bigint, ev numeric, fee numeric, opened bigint);

CREATE FUNCTION commit_issuances(
    a_gateway uuid[], a_key uuid[], a_ceilings bigint[],
    a_session uuid[], a_is_new boolean[], a_base_hash bytea[], a_head_hash bytea[],
    a_sequence bigint[], a_request_hash bytea[], a_idempotency_key text[], a_rand bytea[], a_first_nonce bigint[],
    a_tickets integer[], a_face_value numeric[], a_win_prob numeric[], a_round bigint[], a_sender bytea[],
    a_recipient bytea[], a_orchestrator bytea[], a_ev numeric[], a_fee numeric[], a_charge numeric[], a_price numeric[],
    a_price_source text[], a_price_at timestamptz[], a_markup integer[], a_minimum numeric[], a_job_type text[],
    a_manifest text[], a_app text[], a_transcoder text[], a_pipeline text[], a_model text[], a_end_user text[],
    a_issuance uuid[], a_answer bytea[], a_approved bytea[], a_ev_numerator numeric[], a_repeats_max integer[],
    a_rate_rule bigint[], a_quantity numeric[], a_waits boolean, a_covered boolean
) RETURNS TABLE (
    o_ord bigint, o_code text, o_balance numeric, o_credit_limit numeric, o_created_at timestamptz,
    o_issuance_id uuid, o_answer bytea, o_charge numeric
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
-- Its plans are the same for every batch, and to make them anew took as long as a call in a batch of eight. By indexes:
-- a plan made while a table is tiny would else read the whole of it until somebody counts its rows. A bitmap is made
-- for more rows than a batch has.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    held uuid[];
    item record;
    payer uuid;  -- the gateway that the item is of
    -- Of this gateway's items applied so far:
    spent numeric;  -- what they cost
    calls bigint;  -- how many calls that were
    evs numeric;  -- the expected value of their tickets
    fees numeric;  -- what orchestrators were promised for them
    opened bigint;  -- how many sessions they opened
    n integer := 0;  -- how many gateways have come
    used account_use[] := '{}';  -- by each of them; NULL where a gateway had nothing applied
    released released_item[] := '{}';
    gate coverage_gate;  -- of the sender of the last item that was judged by one
    rule rate_rule;  -- of an item that is charged by one
    at_least_cost boolean;  -- whether its charge has to cover its tickets; NULL without a rule
    was rate_position;  -- where its month had come to, if the charge depends on that
    rated numeric;  -- what such an item comes to by its rate alone
    told integer[] := '{}';  -- the applied items by rules whose charges need no position: the month counts them, too
    begun_at timestamptz;
    today date;
    this_hour timestamptz;
BEGIN
    IF a_waits THEN
        BEGIN
            held := ARRAY(SELECT id FROM account WHERE id = ANY (a_gateway) ORDER BY id FOR NO KEY UPDATE);
        EXCEPTION WHEN lock_not_available THEN
            held := '{}';
        END;
    ELSE
        held := ARRAY(SELECT id FROM account WHERE id = ANY (a_gateway) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED);
    END IF;
    IF a_covered THEN  -- until the end: new shares (set_coverage_gate) begin with what was released under the old ones
        PERFORM pg_advisory_xact_lock_shared(x'636f766572676174'::bigint);
    END IF;
    IF array_remove(a_rate_rule, NULL) <> '{}' THEN  -- until the end, too: which rate card holds (hold_rate_cards)
        PERFORM pg_advisory_xact_lock_shared(x'7261746563617264'::bigint);
    END IF;
    begun_at := clock_timestamp();  -- after the locks: the entries of an account are in the order of their times
    today := (begun_at AT TIME ZONE 'UTC')::date;
    this_hour := date_trunc('hour', begun_at, 'UTC');
    PERFORM refresh_account(id, today)
       FROM account
      WHERE id = ANY (held) AND (usage_day < today OR next_expiry_at <= begun_at OR terms_due_at <= begun_at);
    IF 1 = ANY (a_first_nonce) THEN  -- of a recipientRandHash that nobody knows no other nonce can pass
        INSERT INTO recipient_rand (hash, session_id, gateway_id, last_nonce)
        SELECT rand, session_id, gateway_id, 0
          FROM unnest(a_rand, a_session, a_gateway, a_first_nonce) AS claim (rand, session_id, gateway_id, first_nonce)
         WHERE first_nonce = 1 ORDER BY rand
            ON CONFLICT DO NOTHING;
    END IF;
    FOR item IN
        SELECT asked.ord, asked.gateway_id, asked.key_id, asked.session_id, asked.is_new, asked.head_hash,
               asked.sequence, asked.request_hash, asked.idempotency_key, asked.rand, asked.first_nonce, asked.tickets,
               asked.face_value, asked.sender, asked.orchestrator, asked.ev, asked.fee, asked.charge, asked.price,
               asked.manifest, asked.issuance_id, asked.answer, asked.approved, asked.repeats_max, asked.rate_rule,
               asked.quantity, account.balance, account.credit_limit, account.currency, account.ev_total_wei,
               coalesce(rand.last_nonce, 0) AS last_nonce, asked.is_new OR session.closed AS opens,
               api_key.has_limits, gateway.rate_card, gateway.below_cost,
               account.calls_day_left, account.spend_day_left, account.spend_month_left, account.ev_left,
               account.sessions_left, account.sessions_open_per_orchestrator_max,
               coalesce(keyed.issuance_id, newest.issuance_id) AS stored_issuance_id,
               coalesce(keyed.answer, newest.answer) AS stored_answer,
               CASE  -- the order of refusals; docs/api.md publishes it
                   -- This very commit, sent again because its outcome was unknown.
                   WHEN newest.issuance_id = asked.issuance_id THEN 'replayed'
                   WHEN asked.gateway_id <> ALL (held) THEN 'account_busy'
                   WHEN api_key.gateway_id IS DISTINCT FROM asked.gateway_id OR api_key.has_ended THEN 'unauthenticated'
                   WHEN gateway.status <> 'active' THEN 'gateway_suspended'
                   WHEN gateway.billing_hold = 'signing' OR account.signs_until <= begun_at THEN 'billing_hold'
                   WHEN keyed.request_hash = asked.request_hash THEN 'replayed'
                   WHEN keyed.request_hash IS NOT NULL THEN 'idempotency_conflict'
                   WHEN newest.request_hash = asked.request_hash THEN 'replayed'
                   WHEN NOT asked.is_new AND session.gateway_id IS DISTINCT FROM asked.gateway_id
                       THEN 'session_not_yours'
                   WHEN asked.is_new AND session.id IS NOT NULL THEN 'session_not_yours'
                   WHEN NOT asked.is_new AND (
                       (session.orchestrator, session.recipient, session.job_type, session.app, session.transcoder)
                           IS DISTINCT FROM
                           (asked.orchestrator, asked.recipient, asked.job_type, asked.app, asked.transcoder)
                       OR session.manifest_id <> asked.manifest) THEN 'session_mismatch'
                   WHEN rand.last_nonce > 0 AND rand.session_id <> asked.session_id THEN 'rand_of_other_session'
                   -- Of the webhook base_hash is the newest state it knew, always.
                   WHEN (rand.last_nonce > 0 OR asked.approved IS NOT NULL)
                        AND session.head_state_hash IS DISTINCT FROM asked.base_hash THEN 'state_not_newest'
                   WHEN asked.first_nonce <> coalesce(rand.last_nonce, 0) + 1 THEN 'nonce_used'
                   WHEN (gateway.markup_bps, gateway.minimum_charge, gateway.ceilings_version)
                       <> (asked.markup, asked.minimum_charge, asked.ceilings_version) THEN 'terms_changed'
                   WHEN asked.is_new AND gateway.billing_hold <> 'none' THEN 'billing_hold'
               END AS refusal
          FROM (  -- subscripts, since unnest makes a table of every array
              SELECT gateway_id, a_key[ord] AS key_id, a_ceilings[ord] AS ceilings_version,
                     a_session[ord] AS session_id, a_is_new[ord] AS is_new, a_base_hash[ord] AS base_hash,
                     a_head_hash[ord] AS head_hash, a_sequence[ord] AS sequence, a_request_hash[ord] AS request_hash,
                     a_idempotency_key[ord] AS idempotency_key, a_rand[ord] AS rand,
                     a_first_nonce[ord] AS first_nonce, a_tickets[ord] AS tickets, a_face_value[ord] AS face_value,
                     a_sender[ord] AS sender, a_recipient[ord] AS recipient, a_orchestrator[ord] AS orchestrator,
                     a_ev[ord] AS ev, a_fee[ord] AS fee, a_charge[ord] AS charge, a_price[ord] AS price,
                     a_markup[ord] AS markup, a_minimum[ord] AS minimum_charge, a_job_type[ord] AS job_type,
                     a_manifest[ord] AS manifest, a_app[ord] AS app, a_transcoder[ord] AS transcoder,
                     a_issuance[ord] AS issuance_id, a_answer[ord] AS answer, a_approved[ord] AS approved,
                     a_repeats_max[ord] AS repeats_max, a_rate_rule[ord] AS rate_rule, a_quantity[ord] AS quantity,
                     ord
                FROM (SELECT gateway_id, ord::integer
                        FROM unnest(a_gateway) WITH ORDINALITY AS g (gateway_id, ord)
                       ORDER BY gateway_id, ord) AS given) AS asked  -- sorted while it is narrow
          -- One look-up for each (OFFSET 0): a plan made while a table is tiny would otherwise read the whole of it, and
          -- go on doing so while it grows. Every join passes on what those before it found, and to set that up takes
          -- longer than to look: so only what is needed is selected, and what is wide comes last.
          LEFT JOIN LATERAL (
              SELECT last_nonce, session_id FROM recipient_rand WHERE hash = asked.rand OFFSET 0) AS rand ON true
          LEFT JOIN LATERAL (  -- of a rand that nobody claimed yet, it is the session asked for
              SELECT issuance_id, request_hash, answer FROM session
               WHERE id = coalesce(rand.session_id, asked.session_id) AND gateway_id = asked.gateway_id OFFSET 0
              ) AS newest ON true
          LEFT JOIN LATERAL (
              SELECT issuance_id, request_hash, answer FROM keyed_answer
               WHERE gateway_id = asked.gateway_id AND key = asked.idempotency_key OFFSET 0) AS keyed ON true
          LEFT JOIN LATERAL (  -- by its id alone: a gateway's keys have an index, too, and may be many
              SELECT gateway_id, revoked_at <= now() OR expires_at <= now() AS has_ended, has_limits FROM api_key
               WHERE id = asked.key_id OFFSET 0) AS api_key ON true
          JOIN LATERAL (
              SELECT status, billing_hold, markup_bps, minimum_charge, ceilings_version, rate_card, below_cost
                FROM gateway WHERE id = asked.gateway_id OFFSET 0) AS gateway ON true
          LEFT JOIN LATERAL (
              SELECT id, gateway_id, orchestrator, recipient, job_type, manifest_id, app, transcoder, head_state_hash,
                     closed
                FROM session WHERE id = asked.session_id OFFSET 0) AS session ON true
          JOIN LATERAL (
              SELECT balance, credit_limit, currency, ev_total_wei, signs_until,
                     -- What may still be used; NULL is no limit.
                     calls_day_max - calls_day AS calls_day_left, spend_day_max - spent_day AS spend_day_left,
                     spend_month_max - spent_month AS spend_month_left,
                     ev_open_max_wei - ev_day0_wei - ev_day1_wei - ev_day2_wei AS ev_left,
                     sessions_open_max - sessions_open AS sessions_left, sessions_open_per_orchestrator_max
                FROM account WHERE id = asked.gateway_id OFFSET 0) AS account ON true
         ORDER BY asked.gateway_id, asked.ord
    LOOP
        IF payer IS DISTINCT FROM item.gateway_id THEN
            n := n + 1;
            payer := item.gateway_id;
            spent := 0;
            calls := 0;
            evs := 0;
            fees := 0;
            opened := 0;
        END IF;
        o_ord := item.ord;
        o_code := item.refusal;
        o_balance := item.balance - spent;
        o_credit_limit := item.credit_limit;
        o_created_at := begun_at;
        o_issuance_id := NULL;
        o_answer := NULL;
        IF item.rate_rule IS NULL THEN
            rule := NULL;
            at_least_cost := NULL;
        ELSIF o_code IS NULL THEN
            SELECT * INTO rule FROM rate_rule WHERE id = item.rate_rule;
            -- Which card the gateway has, ceilings_version said; which version of it holds, the time.
            IF (rule.card, rule.version) IS DISTINCT FROM
                (item.rate_card, rate_version_at(item.rate_card, begun_at)) THEN
                o_code := 'terms_changed';
            END IF;
            at_least_cost := rule.floor <> 'none' OR NOT item.below_cost;
        END IF;
        IF a_covered AND o_code IS NULL THEN
            IF gate.sender IS DISTINCT FROM item.sender THEN
                SELECT * INTO gate FROM coverage_gate WHERE sender = item.sender;
            END IF;
            o_code := CASE  -- in the published order, after the above
                WHEN gate.valid_until IS NULL OR gate.valid_until <= begun_at THEN 'coverage_unknown'
                WHEN item.is_new AND gate.level IN ('low', 'critical') THEN 'coverage_low'
                WHEN item.face_value > gate.face_value_max_wei THEN 'face_value'
            END;
        END IF;
        o_charge := item.charge;
        IF o_code IS NULL AND rule.counts THEN
            SELECT * INTO was FROM rate_position AS position WHERE position.gateway_id = item.gateway_id
               AND position.month = month_of(today) AND position.meter = rule.meter;
            was.volume := coalesce(was.volume, 0);
            was.rated := coalesce(was.rated, 0);
            was.cost := coalesce(was.cost, 0);
            rated := greatest(rule.minimum_charge, rate_total(
                item.rate_rule, was.volume + rate_volume(item.quantity, item.ev, item.price))
                - rate_total(item.rate_rule, was.volume));
            o_charge := rate_charge(
                rule.floor, at_least_cost, rated, rate_cost(item.ev, item.price), was.rated - was.cost);
        END IF;
        IF o_code IS NULL THEN
            o_code := CASE  -- credit and then limits come last: what a call would use counts only if it may be made
                WHEN o_balance + o_credit_limit < o_charge THEN 'out_of_credit'
                WHEN item.tickets = 0 THEN NULL  -- a repeat for which nothing further is due
                WHEN calls >= item.calls_day_left THEN 'calls_per_day'
                WHEN spent + o_charge > item.spend_day_left THEN 'spend_per_day'
                WHEN spent + o_charge > item.spend_month_left THEN 'spend_per_month'
                WHEN evs + item.ev > item.ev_left THEN 'ev_open'
                WHEN item.is_new AND opened >= item.sessions_left THEN 'sessions_open'
                ELSE coalesce(
                    CASE WHEN item.has_limits
                         THEN key_limit_passed(item.gateway_id, item.key_id, o_charge, item.ev, item.is_new) END,
                    CASE WHEN item.is_new AND item.sessions_open_per_orchestrator_max = 0
                         THEN 'sessions_open_per_orchestrator' END)
            END;
            -- A share is of all that was ever released for the gateway; this batch's is not in the account yet.
            IF a_covered AND o_code IS NULL AND item.tickets > 0 AND gate.level = 'critical' THEN
                IF NOT EXISTS (  -- for itself: a condition with a query in it is a statement, whatever comes before AND
                    SELECT FROM cover_share AS share
                     WHERE share.sender = item.sender AND share.gateway_id = item.gateway_id
                       AND item.ev_total_wei + evs + item.ev <= share.ev_total_max_wei) THEN
                    o_code := 'coverage_critical';
                END IF;
            END IF;
            IF o_code IS NULL AND item.repeats_max IS NOT NULL THEN
                o_code := take_repeat(item.gateway_id, item.repeats_max);
            END IF;
            -- Counts the session at once, so nothing may be judged after it. One that was open before is never refused.
            IF o_code IS NULL AND item.opens THEN
                INSERT INTO open_sessions AS opening (gateway_id, orchestrator, sessions)
                VALUES (item.gateway_id, item.orchestrator, 1)
                    ON CONFLICT (gateway_id, orchestrator) DO UPDATE SET sessions = opening.sessions + 1
                    WHERE NOT item.is_new OR item.sessions_open_per_orchestrator_max IS NULL
                       OR opening.sessions < item.sessions_open_per_orchestrator_max;
                IF NOT FOUND THEN
                    o_code := 'sessions_open_per_orchestrator';
                END IF;
            END IF;
        END IF;
        IF o_code IS NOT NULL THEN
            IF o_code = 'replayed' THEN
                o_issuance_id := item.stored_issuance_id;
                o_answer := item.stored_answer;
            END IF;
            IF item.last_nonce = 0 THEN
                DELETE FROM recipient_rand WHERE hash = item.rand AND last_nonce = 0;
            END IF;
            RETURN NEXT;
            CONTINUE;
        END IF;
        -- The point of no return: refusals above, effects below, and no effect may refuse.
        IF item.tickets > 0 THEN
            spent := spent + o_charge;
            calls := calls + 1;
            evs := evs + item.ev;
            fees := fees + item.fee;
            o_balance := o_balance - o_charge;
            released := released || ROW (
                item.ord, o_charge, item.currency, o_balance, at_least_cost, CASE WHEN rule.counts THEN was.volume END,
                CASE WHEN rule.counts THEN was.rated - was.cost END)::released_item;
            IF rule.counts THEN
                INSERT INTO rate_position AS position (gateway_id, month, meter, volume, rated, cost)
                VALUES (item.gateway_id, month_of(today), rule.meter,
                        rate_volume(item.quantity, item.ev, item.price), rated, rate_cost(item.ev, item.price))
                    ON CONFLICT (gateway_id, month, meter) DO UPDATE SET volume = position.volume + excluded.volume,
                       rated = position.rated + excluded.rated, cost = position.cost + excluded.cost;
            ELSIF item.rate_rule IS NOT NULL THEN
                told := told || item.ord;
            END IF;
        END IF;
        IF item.opens THEN
            opened := opened + 1;
        END IF;
        used[n] := ROW (payer, spent, calls, evs, fees, opened)::account_use;
        IF item.has_limits THEN  -- of a repeat for which nothing further is due, charge and expected value are 0
            UPDATE key_limit SET calls_day = calls_day + (item.tickets > 0)::integer,
                   spent_day = spent_day + o_charge, spent_month = spent_month + o_charge,
                   ev_day0_wei = ev_day0_wei + item.ev, sessions_open = sessions_open + item.opens::integer
             WHERE gateway_id = item.gateway_id AND key_id = item.key_id;
        END IF;
        IF item.is_new THEN
            INSERT INTO session (
                id, gateway_id, orchestrator, recipient, job_type, manifest_id, app, transcoder, pipeline, model,
                head_state_hash, head_sequence, request_hash, issuance_id, answer, approved, opened_by)
            VALUES (
                item.session_id, item.gateway_id, item.orchestrator, a_recipient[item.ord], a_job_type[item.ord],
                item.manifest, a_app[item.ord], a_transcoder[item.ord], a_pipeline[item.ord], a_model[item.ord],
                item.head_hash, item.sequence, item.request_hash, item.issuance_id, item.answer, item.approved,
                item.key_id);
        ELSE
            UPDATE session SET
                head_state_hash = item.head_hash, head_sequence = item.sequence, request_hash = item.request_hash,
                issuance_id = CASE WHEN item.tickets > 0 THEN item.issuance_id ELSE issuance_id END,
                answer = item.answer, approved = item.approved,
                manifest_id = coalesce(manifest_id, item.manifest), updated_at = now(), closed = false,
                opened_by = CASE WHEN item.opens THEN item.key_id ELSE opened_by END
             WHERE id = item.session_id;
        END IF;
        UPDATE recipient_rand SET last_nonce = item.first_nonce + item.tickets - 1, session_id = item.session_id,
               gateway_id = item.gateway_id,
               -- Ids of several processes are not in the order of the commits: their clocks differ.
               first_issuance_id = CASE WHEN item.tickets = 0 THEN first_issuance_id
                                        ELSE least(first_issuance_id, item.issuance_id) END,
               last_issuance_id = CASE WHEN item.tickets = 0 THEN last_issuance_id
                                       ELSE greatest(last_issuance_id, item.issuance_id) END
         WHERE hash = item.rand;
        IF NOT FOUND THEN  -- forgotten by a refusal between the claim and the look; the service asks again
            RAISE serialization_failure USING MESSAGE = 'a recipientRandHash was forgotten while it was claimed';
        END IF;
        IF item.idempotency_key IS NOT NULL THEN
            INSERT INTO keyed_answer (gateway_id, key, request_hash, issuance_id, answer)
            VALUES (item.gateway_id, item.idempotency_key, item.request_hash, item.issuance_id, item.answer);
        END IF;
        RETURN NEXT;
    END LOOP;
    IF cardinality(released) > 0 THEN
        INSERT INTO issuance (
            gateway_id, id, session_id, sequence, key_id, end_user, sender, recipient_rand_hash, first_nonce,
            num_tickets, face_value_wei, win_prob, creation_round, ev_numerator, ev_wei, fee_wei, charge, currency,
            price, price_source, price_observed_at, markup_bps, balance_after, created_at, rate_rule, quantity,
            at_least_cost, volume_before, lead_before)
        SELECT a_gateway[ord], a_issuance[ord], a_session[ord], a_sequence[ord], a_key[ord], a_end_user[ord],
               a_sender[ord], a_rand[ord], a_first_nonce[ord], a_tickets[ord], a_face_value[ord], a_win_prob[ord],
               a_round[ord], a_ev_numerator[ord], a_ev[ord], a_fee[ord], done.charge, done.currency, a_price[ord],
               a_price_source[ord], a_price_at[ord], CASE WHEN a_rate_rule[ord] IS NULL THEN a_markup[ord] ELSE 0 END,
               done.balance_after, begun_at, a_rate_rule[ord], a_quantity[ord], done.at_least_cost, done.volume_before,
               done.lead_before
          FROM unnest(released) AS done;
        INSERT INTO exposure_delta (
            sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour, num_tickets,
            ev_numerator)
        SELECT a_sender[ord], a_gateway[ord], a_round[ord], a_recipient[ord], a_face_value[ord], a_win_prob[ord],
               this_hour, a_tickets[ord], a_ev_numerator[ord]
          FROM unnest(released);
    END IF;
    IF told <> '{}' THEN  -- for a further version, which may have tiers; what they are charged is what their rate comes to
        INSERT INTO rate_position AS position (gateway_id, month, meter, volume, rated, cost)
        SELECT a_gateway[ord], month_of(today), told_by.meter,
               sum(rate_volume(a_quantity[ord], a_ev[ord], a_price[ord])), sum(a_charge[ord]),
               sum(rate_cost(a_ev[ord], a_price[ord]))
          FROM unnest(told) AS done (ord) JOIN rate_rule AS told_by ON told_by.id = a_rate_rule[ord]
         GROUP BY a_gateway[ord], told_by.meter
            ON CONFLICT (gateway_id, month, meter) DO UPDATE SET volume = position.volume + excluded.volume,
               rated = position.rated + excluded.rated, cost = position.cost + excluded.cost;
    END IF;
    UPDATE account SET balance = balance - paid.cost, usage_total = usage_total + paid.cost,
           calls_day = calls_day + paid.calls, spent_day = spent_day + paid.cost,
           spent_month = spent_month + paid.cost, ev_day0_wei = ev_day0_wei + paid.ev,
           ev_total_wei = ev_total_wei + paid.ev, sessions_open = sessions_open + paid.opened,
           fee_day_wei = fee_day_wei + paid.fee
      FROM unnest(used) AS paid
     WHERE account.id = paid.id AND (paid.calls > 0 OR paid.opened > 0);
END $$;

CREATE FUNCTION forget_keyed_answers(older_than interval) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH forgotten AS (
        DELETE FROM keyed_answer WHERE (gateway_id, key) IN (
            SELECT gateway_id, key FROM keyed_answer WHERE created_at < now() - older_than
             ORDER BY created_at LIMIT 10000 FOR UPDATE SKIP LOCKED)
        RETURNING 1)
    SELECT count(*) FROM forgotten;
$$;
