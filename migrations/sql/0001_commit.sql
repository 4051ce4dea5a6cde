-- The group commit: one call, one transaction, one fsync for many payments. Each item succeeds or fails on its own.
--
-- Accounts are locked first, in the order of their ids; everything else an item may change belongs to its gateway or is
-- a new recipientRandHash (claimed in sorted order), so two batches cannot deadlock and no gateway waits for another.
-- A batch holds at most one item per session, per recipientRandHash and per idempotency key: the caller sees to that.
--
-- Then one statement judges every item, in the published order of refusals below, and applies what passed.
CREATE FUNCTION commit_issuances(
    a_gateway uuid[], a_key uuid[], a_session uuid[], a_is_new boolean[], a_base_hash bytea[], a_head_hash bytea[],
    a_sequence bigint[], a_request_hash bytea[], a_idempotency_key text[], a_rand bytea[], a_first_nonce bigint[],
    a_tickets integer[], a_face_value numeric[], a_win_prob numeric[], a_round bigint[], a_sender bytea[],
    a_recipient bytea[], a_orchestrator bytea[], a_ev numeric[], a_fee numeric[], a_charge numeric[], a_price numeric[],
    a_price_source text[], a_price_at timestamptz[], a_markup integer[], a_job_type text[], a_manifest text[],
    a_app text[], a_transcoder text[], a_pipeline text[], a_model text[], a_end_user text[], a_issuance uuid[],
    a_answer bytea[]
) RETURNS TABLE (
    o_ord bigint, o_code text, o_balance numeric, o_credit_limit numeric, o_created_at timestamptz,
    o_issuance_id uuid, o_answer bytea
) LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    PERFORM 1 FROM account WHERE id = ANY (a_gateway) ORDER BY id FOR NO KEY UPDATE;
    PERFORM settle_lots(id) FROM account WHERE id = ANY (a_gateway) AND next_expiry_at <= now();
    INSERT INTO recipient_rand (hash, session_id, gateway_id, last_nonce)
        SELECT rand, session_id, gateway_id, 0
          FROM unnest(a_rand, a_session, a_gateway) AS claim (rand, session_id, gateway_id) ORDER BY rand
        ON CONFLICT DO NOTHING;
    RETURN QUERY
    WITH item AS MATERIALIZED (
        SELECT * FROM unnest(
            a_gateway, a_key, a_session, a_is_new, a_base_hash, a_head_hash, a_sequence, a_request_hash,
            a_idempotency_key, a_rand, a_first_nonce, a_tickets, a_face_value, a_win_prob, a_round, a_sender,
            a_recipient, a_orchestrator, a_ev, a_fee, a_charge, a_price, a_price_source, a_price_at, a_markup,
            a_job_type, a_manifest, a_app, a_transcoder, a_pipeline, a_model, a_end_user, a_issuance, a_answer
        ) WITH ORDINALITY AS t (
            gateway_id, key_id, session_id, is_new, base_hash, head_hash, sequence, request_hash,
            idempotency_key, rand, first_nonce, tickets, face_value, win_prob, round, sender,
            recipient, orchestrator, ev, fee, charge, price, price_source, price_at, markup,
            job_type, manifest, app, transcoder, pipeline, model, end_user, issuance_id, answer, ord)
    ), judged AS MATERIALIZED (
        SELECT item.ord,
               account.balance, account.credit_limit, account.currency,
               coalesce(keyed.issuance_id, newest.issuance_id) AS stored_issuance_id,
               coalesce(keyed.answer, newest.answer) AS stored_answer,
               CASE  -- the order of refusals; docs/api.md publishes it
                   -- This very commit, sent again because its outcome was unknown.
                   WHEN newest.issuance_id = item.issuance_id THEN 'replayed'
                   WHEN api_key.id IS NULL OR api_key.revoked_at <= now() OR api_key.expires_at <= now()
                       THEN 'unauthenticated'
                   WHEN gateway.status <> 'active' THEN 'gateway_suspended'
                   WHEN keyed.request_hash = item.request_hash THEN 'replayed'
                   WHEN keyed.request_hash IS NOT NULL THEN 'idempotency_conflict'
                   WHEN newest.request_hash = item.request_hash THEN 'replayed'
                   WHEN NOT item.is_new AND session.gateway_id IS DISTINCT FROM item.gateway_id
                       THEN 'session_not_yours'
                   WHEN item.is_new AND session.id IS NOT NULL THEN 'session_not_yours'
                   WHEN NOT item.is_new AND (
                       (session.orchestrator, session.recipient, session.job_type, session.app)
                           <> (item.orchestrator, item.recipient, item.job_type, item.app)
                       OR session.manifest_id <> item.manifest) THEN 'session_mismatch'
                   WHEN rand.last_nonce > 0 AND rand.session_id <> item.session_id THEN 'rand_of_other_session'
                   WHEN rand.last_nonce > 0 AND session.head_state_hash IS DISTINCT FROM item.base_hash
                       THEN 'state_not_newest'
                   WHEN item.first_nonce <> rand.last_nonce + 1 THEN 'nonce_used'
               END AS refusal
          FROM item
          JOIN account ON account.id = item.gateway_id
          JOIN gateway ON gateway.id = item.gateway_id
          JOIN recipient_rand AS rand ON rand.hash = item.rand
          LEFT JOIN api_key ON api_key.id = item.key_id AND api_key.gateway_id = item.gateway_id
          LEFT JOIN session ON session.id = item.session_id
          LEFT JOIN session AS newest ON newest.id = rand.session_id AND newest.gateway_id = item.gateway_id
          LEFT JOIN keyed_answer AS keyed
                 ON keyed.gateway_id = item.gateway_id AND keyed.key = item.idempotency_key
    ), funded AS MATERIALIZED (
        SELECT item.*, judged.currency, judged.credit_limit, judged.stored_issuance_id, judged.stored_answer,
               judged.balance - sum(item.charge) FILTER (WHERE judged.refusal IS NULL) OVER earlier AS balance_after,
               judged.balance AS balance_before,
               CASE WHEN judged.refusal IS NOT NULL THEN judged.refusal
                    WHEN judged.balance + judged.credit_limit
                         < sum(item.charge) FILTER (WHERE judged.refusal IS NULL) OVER earlier THEN 'out_of_credit'
               END AS code
          FROM item JOIN judged USING (ord)
        WINDOW earlier AS (PARTITION BY item.gateway_id ORDER BY item.ord)
    ), admitted AS (
        SELECT * FROM funded WHERE code IS NULL
    ),
    -- The point of no return: refusals above, effects below, and no effect may refuse.
    debit AS (
        UPDATE account SET balance = account.balance - spent.charge, usage_total = usage_total + spent.charge
          FROM (SELECT gateway_id, sum(charge) AS charge FROM admitted GROUP BY gateway_id) AS spent
         WHERE account.id = spent.gateway_id
    ), record AS (
        INSERT INTO transfer (id, kind, source, destination, amount, currency)
        SELECT issuance_id, 'usage', gateway_id, system_account_id('revenue', currency), charge, currency FROM admitted
    ), issue AS (
        INSERT INTO issuance (
            gateway_id, id, session_id, key_id, end_user, sender, recipient_rand_hash, first_nonce, num_tickets,
            face_value_wei, win_prob, creation_round, ev_wei, fee_wei, charge, currency, price, price_source,
            price_observed_at, markup_bps, balance_after)
        SELECT gateway_id, issuance_id, session_id, key_id, end_user, sender, rand, first_nonce, tickets,
               face_value, win_prob, round, ev, fee, charge, currency, price, price_source,
               price_at, markup, balance_after
          FROM admitted
    ), advance AS (
        INSERT INTO session (
            id, gateway_id, orchestrator, recipient, job_type, manifest_id, app, transcoder, pipeline, model,
            head_state_hash, head_sequence, request_hash, issuance_id, answer)
        SELECT session_id, gateway_id, orchestrator, recipient, job_type, manifest, app, transcoder, pipeline, model,
               head_hash, sequence, request_hash, issuance_id, answer
          FROM admitted
        ON CONFLICT (id) DO UPDATE SET
            head_state_hash = EXCLUDED.head_state_hash, head_sequence = EXCLUDED.head_sequence,
            request_hash = EXCLUDED.request_hash, issuance_id = EXCLUDED.issuance_id, answer = EXCLUDED.answer,
            manifest_id = coalesce(session.manifest_id, EXCLUDED.manifest_id), updated_at = now()
    ), use_nonces AS (
        UPDATE recipient_rand SET last_nonce = first_nonce + tickets - 1, session_id = admitted.session_id,
                                  gateway_id = admitted.gateway_id
          FROM admitted WHERE recipient_rand.hash = admitted.rand
    ), unclaim AS (
        DELETE FROM recipient_rand USING funded
         WHERE recipient_rand.hash = funded.rand AND recipient_rand.last_nonce = 0 AND funded.code IS NOT NULL
    ), keep AS (
        INSERT INTO keyed_answer (gateway_id, key, request_hash, issuance_id, answer)
        SELECT gateway_id, idempotency_key, request_hash, issuance_id, answer
          FROM admitted WHERE idempotency_key IS NOT NULL
    )
    SELECT funded.ord, funded.code,
           CASE WHEN funded.code IS NULL THEN funded.balance_after ELSE funded.balance_before::numeric END,
           funded.credit_limit::numeric, now(),
           CASE WHEN funded.code = 'replayed' THEN funded.stored_issuance_id END,
           CASE WHEN funded.code = 'replayed' THEN funded.stored_answer END
      FROM funded;
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
