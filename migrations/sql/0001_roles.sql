-- Least privilege. Roles belong to the cluster, so another database may have made them already.
-- clearinghouse_serve signs: it reads, and changes money only through commit_issuances.
-- clearinghouse_admin manages gateways, keys and credit; it has no way to change a ledger row either.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['clearinghouse_serve', 'clearinghouse_admin'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = role_name) THEN
            BEGIN
                EXECUTE format('CREATE ROLE %I NOLOGIN', role_name);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL;  -- made for another database of this cluster at this very moment
            END;
        END IF;
        IF NOT pg_has_role(current_user, role_name, 'MEMBER') THEN
            EXECUTE format('GRANT %I TO CURRENT_USER', role_name);
        END IF;
    END LOOP;
END $$;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO clearinghouse_serve, clearinghouse_admin;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO clearinghouse_serve, clearinghouse_admin;

GRANT EXECUTE ON FUNCTION commit_issuances, forget_keyed_answers, settle_due_lots, close_idle_sessions, note_low_fees,
    apply_plan TO clearinghouse_serve;
GRANT EXECUTE ON FUNCTION system_account_id, month_of TO clearinghouse_serve, clearinghouse_admin;

-- Signer events: rows are added and counted by these alone.
GRANT EXECUTE ON FUNCTION record_signer_events, record_signer_payments, record_unreleased, note_signer_event_findings,
    signer_events_reconciled, forget_signer_events TO clearinghouse_serve, clearinghouse_admin;
-- Chain events: written by these alone.
GRANT EXECUTE ON FUNCTION follow_chain_senders, record_chain_range, undo_chain, match_winning_tickets
    TO clearinghouse_serve, clearinghouse_admin;
GRANT EXECUTE ON FUNCTION begin_chain TO clearinghouse_serve, clearinghouse_admin;
GRANT EXECUTE ON FUNCTION accept_signer_event_finding TO clearinghouse_admin;

-- Prices: services add what they saw, operators what they set. Neither changes a row.
GRANT INSERT (source, currency, observed_at, price, block_hash) ON price_observation TO clearinghouse_serve;
GRANT INSERT (id, currency, price, until, reason, actor) ON price_override TO clearinghouse_admin;
GRANT EXECUTE ON FUNCTION forget_price_observations TO clearinghouse_serve;

GRANT EXECUTE ON FUNCTION grant_credit, withdraw_credit, settle_due_lots, open_system_accounts, set_key_limits,
    refresh_limits, put_on_plan, apply_plan TO clearinghouse_admin;
GRANT INSERT (id, name, markup_bps, minimum_charge, plan),
      UPDATE (status, status_reason, markup_bps, minimum_charge) ON gateway TO clearinghouse_admin;
GRANT INSERT (id, gateway_id, public_id, secret_hmac, name, expires_at),
      UPDATE (name, expires_at, revoked_at, requests_per_s, burst_count) ON api_key TO clearinghouse_admin;
GRANT INSERT (id, gateway_id, name, currency, credit_limit), UPDATE (credit_limit) ON account TO clearinghouse_admin;
-- Plans and what gateways have for themselves. What follows from it is written by refresh_limits alone.
GRANT INSERT (name, currency, changed_by), UPDATE (currency, version, changed_at, changed_by), DELETE
    ON plan TO clearinghouse_admin;
GRANT INSERT, UPDATE (value), DELETE ON plan_limit, gateway_override TO clearinghouse_admin;
GRANT INSERT (id, name, sender, face_value_max_wei), UPDATE (revoked_at) ON webhook_signer TO clearinghouse_admin;
GRANT INSERT (id, signer_id, public_id, secret_hmac), UPDATE (expires_at, revoked_at) ON webhook_secret
    TO clearinghouse_admin;
