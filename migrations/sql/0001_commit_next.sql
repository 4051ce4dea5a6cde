-- The usual payment when it comes alone: a session's next one, by a key without limits of its own, charged by markup.
-- One row each is read and written, with no arrays and no loop: PostgreSQL needs a third less than for a batch of one.
--
-- It only ever carries out what commit_issuances would, and with the same effects; tests/clearinghouse/
-- test_commit_next.py holds the two against each other. Of any other payment it changes nothing and answers NULLs: then
-- commit_issuances is asked, the authority on refusals. So what is judged here needs no code and no order.
CREATE FUNCTION commit_next(
    a_gateway uuid, a_key uuid, a_ceilings bigint, a_session uuid, a_base_hash bytea, a_head_hash bytea,
    a_sequence bigint, a_request_hash bytea, a_rand bytea, a_first_nonce bigint, a_tickets integer,
    a_face_value numeric, a_win_prob numeric, a_round bigint, a_sender bytea, a_recipient bytea, a_orchestrator bytea,
    a_ev numeric, a_fee numeric, a_charge numeric, a_price numeric, a_price_source text, a_price_at timestamptz,
    a_markup integer, a_minimum numeric, a_job_type text, a_manifest text, a_app text, a_transcoder text,
    a_end_user text, a_issuance uuid, a_answer bytea, a_ev_numerator numeric, a_quantity numeric, a_covered boolean,
    OUT o_balance numeric, OUT o_credit_limit numeric, OUT o_created_at timestamptz
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
-- For the reasons that commit_issuances gives.
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    holder record;
    begun_at timestamptz;
    today date;
    is_usual boolean;  -- as far as its session, its key and its gateway say
BEGIN
    SELECT balance, credit_limit, currency, usage_day, next_expiry_at, terms_due_at, signs_until,
           calls_day_max - calls_day AS calls_day_left, spend_day_max - spent_day AS spend_day_left,
           spend_month_max - spent_month AS spend_month_left,
           ev_open_max_wei - ev_day0_wei - ev_day1_wei - ev_day2_wei AS ev_left
      INTO holder FROM account WHERE id = a_gateway FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    -- The lock of the shares. Its answer, void, is not NULL; as an expression it costs less than as a query.
    IF a_covered AND pg_advisory_xact_lock_shared(x'636f766572676174'::bigint) IS NULL THEN
        RETURN;
    END IF;
    begun_at := clock_timestamp();  -- after the locks: the entries of an account are in the order of their times
    today := (begun_at AT TIME ZONE 'UTC')::date;
    IF a_tickets < 1 OR holder.usage_day < today OR holder.next_expiry_at <= begun_at
       OR holder.terms_due_at <= begun_at OR holder.signs_until <= begun_at
       OR holder.balance + holder.credit_limit < a_charge OR holder.calls_day_left < 1
       OR holder.spend_day_left < a_charge OR holder.spend_month_left < a_charge OR holder.ev_left < a_ev THEN
        RETURN;
    END IF;
    -- They are looked for by their primary keys alone: a condition on a gateway's open sessions, or on its keys, has an
    -- index, too, and a plan that was made while gateways had few would go on reading all that one has by now.
    SELECT session.gateway_id = a_gateway AND NOT session.closed AND session.approved IS NULL
           -- A new recipientRandHash may go on from an older state: so does a session whose answer was lost.
           AND (session.head_state_hash = a_base_hash OR a_first_nonce = 1)
           AND session.request_hash <> a_request_hash AND session.issuance_id <> a_issuance
           AND session.orchestrator = a_orchestrator AND session.recipient = a_recipient
           AND session.job_type = a_job_type AND (session.manifest_id <> a_manifest) IS NOT TRUE
           AND session.app = a_app AND session.transcoder = a_transcoder
           AND api_key.gateway_id = a_gateway AND NOT api_key.has_limits
           AND (api_key.revoked_at <= now() OR api_key.expires_at <= now()) IS NOT TRUE
           AND gateway.status = 'active' AND gateway.billing_hold <> 'signing'
           AND gateway.markup_bps = a_markup AND gateway.minimum_charge = a_minimum
           AND gateway.ceilings_version = a_ceilings
      INTO is_usual FROM session, api_key, gateway
     WHERE session.id = a_session AND api_key.id = a_key AND gateway.id = a_gateway;
    IF is_usual IS NOT TRUE THEN  -- NULL: one of them is not there, or says nothing of what was asked
        RETURN;
    END IF;
    IF a_covered THEN
        PERFORM FROM coverage_gate
          WHERE sender = a_sender AND valid_until > begun_at AND level <> 'critical'
            AND (a_face_value > face_value_max_wei) IS NOT TRUE;
        IF NOT FOUND THEN
            RETURN;
        END IF;
    END IF;
    -- The last condition is the first effect: nonces that nobody has used.
    IF a_first_nonce = 1 THEN
        INSERT INTO recipient_rand (hash, session_id, gateway_id, last_nonce, first_issuance_id, last_issuance_id)
        VALUES (a_rand, a_session, a_gateway, a_tickets, a_issuance, a_issuance) ON CONFLICT DO NOTHING;
    ELSE
        UPDATE recipient_rand SET last_nonce = a_first_nonce + a_tickets - 1,
               first_issuance_id = least(first_issuance_id, a_issuance),
               last_issuance_id = greatest(last_issuance_id, a_issuance)
         WHERE hash = a_rand AND session_id = a_session AND last_nonce = a_first_nonce - 1;
    END IF;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    o_balance := holder.balance - a_charge;
    o_credit_limit := holder.credit_limit;
    o_created_at := begun_at;
    UPDATE session SET head_state_hash = a_head_hash, head_sequence = a_sequence, request_hash = a_request_hash,
           issuance_id = a_issuance, answer = a_answer, manifest_id = coalesce(manifest_id, a_manifest),
           updated_at = now()
     WHERE id = a_session;
    INSERT INTO issuance (
        gateway_id, id, session_id, sequence, key_id, end_user, sender, recipient_rand_hash, first_nonce, num_tickets,
        face_value_wei, win_prob, creation_round, ev_numerator, ev_wei, fee_wei, charge, currency, price, price_source,
        price_observed_at, markup_bps, balance_after, created_at, quantity)
    VALUES (
        a_gateway, a_issuance, a_session, a_sequence, a_key, a_end_user, a_sender, a_rand, a_first_nonce, a_tickets,
        a_face_value, a_win_prob, a_round, a_ev_numerator, a_ev, a_fee, a_charge, holder.currency, a_price,
        a_price_source, a_price_at, a_markup, o_balance, begun_at, a_quantity);
    INSERT INTO exposure_delta (
        sender, gateway_id, creation_round, recipient, face_value_wei, win_prob, issued_hour, num_tickets, ev_numerator)
    VALUES (
        a_sender, a_gateway, a_round, a_recipient, a_face_value, a_win_prob, date_trunc('hour', begun_at, 'UTC'),
        a_tickets, a_ev_numerator);
    UPDATE account SET balance = o_balance, usage_total = usage_total + a_charge, calls_day = calls_day + 1,
           spent_day = spent_day + a_charge, spent_month = spent_month + a_charge, ev_day0_wei = ev_day0_wei + a_ev,
           ev_total_wei = ev_total_wei + a_ev, fee_day_wei = fee_day_wei + a_fee
     WHERE id = a_gateway;
END $$;
