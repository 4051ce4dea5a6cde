-- Least privilege. Roles belong to the cluster, so another database may have made them already.
-- clearinghouse_serve signs: it reads, and changes money only through commit_issuances and commit_next.
-- clearinghouse_work does what is due by time: it reads, and keeps record of what it did.
-- clearinghouse_admin manages gateways, keys and credit; it has no way to change a ledger row either.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['clearinghouse_serve', 'clearinghouse_admin', 'clearinghouse_work'] LOOP
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
GRANT USAGE ON SCHEMA public TO clearinghouse_serve, clearinghouse_admin, clearinghouse_work;
GRANT SELECT ON ALL TABLES IN SCHEMA public TO clearinghouse_serve, clearinghouse_admin, clearinghouse_work;

GRANT EXECUTE ON FUNCTION commit_issuances, commit_next, forget_keyed_answers, settle_due_lots, close_idle_sessions,
    note_low_fees, apply_plan TO clearinghouse_serve;
GRANT EXECUTE ON FUNCTION system_account_id, month_of, ev_open_after TO clearinghouse_serve, clearinghouse_admin, clearinghouse_work;

-- Signer events: rows are added and counted by these alone.
GRANT EXECUTE ON FUNCTION record_signer_events, record_signer_payments, record_unreleased, note_signer_event_findings,
    signer_events_reconciled, forget_signer_events TO clearinghouse_serve, clearinghouse_admin;
-- Chain events: written by these alone.
GRANT EXECUTE ON FUNCTION follow_chain_senders, record_chain_range, undo_chain, match_winning_tickets
    TO clearinghouse_serve, clearinghouse_admin;
GRANT EXECUTE ON FUNCTION begin_chain TO clearinghouse_serve, clearinghouse_admin;
GRANT EXECUTE ON FUNCTION accept_signer_event_finding TO clearinghouse_admin;

-- The book of open tickets: rows are added by commits and redemptions, and moved by these alone.
GRANT EXECUTE ON FUNCTION roll_up_exposure, forget_exposure, set_coverage_gate TO clearinghouse_serve;
GRANT EXECUTE ON FUNCTION exposure_difference TO clearinghouse_serve, clearinghouse_admin, clearinghouse_work;
GRANT EXECUTE ON FUNCTION mend_exposure, roll_up_exposure TO clearinghouse_admin;

-- Coverage: whoever evaluates it adds to it.
GRANT INSERT ON coverage_snapshot TO clearinghouse_serve;
GRANT EXECUTE ON FUNCTION forget_coverage_snapshots TO clearinghouse_serve;

-- Prices: services add what they saw, operators what they set. Neither changes a row.
GRANT INSERT (source, currency, observed_at, price, block_hash) ON price_observation TO clearinghouse_serve;
GRANT INSERT (id, currency, price, until, reason, actor) ON price_override TO clearinghouse_admin;
GRANT EXECUTE ON FUNCTION forget_price_observations TO clearinghouse_serve;

-- Jobs: who leads registers them and records their runs.
GRANT INSERT, UPDATE, DELETE ON job, job_lead TO clearinghouse_work;
GRANT INSERT (job, due_at, started_at, leader, by_hand), UPDATE (ended_at, outcome, said, error_kind, error), DELETE
    ON job_run TO clearinghouse_work;
GRANT EXECUTE ON FUNCTION give_up_job_run, begin_job_run, register_jobs TO clearinghouse_work;

-- Top-ups: written by these alone, so that every step leaves its event. What signs payments sees nothing of them.
REVOKE SELECT ON topup, topup_transaction, topup_event, topup_standing FROM clearinghouse_serve;
GRANT EXECUTE ON FUNCTION topup_day_wei, plan_topup, store_topup_transaction, note_topup_sent, note_topup_overtaken,
    end_topup, reopen_topup, note_topup_standing TO clearinghouse_work, clearinghouse_admin;
-- Treasury: operators write it down, the worker reads it. What signs payments sees nothing of it.
REVOKE SELECT ON treasury_conversion, treasury_movement, treasury_void, treasury_conversion_in_force,
    treasury_movement_in_force FROM clearinghouse_serve;
GRANT EXECUTE ON FUNCTION record_conversion, record_movement, void_treasury_record TO clearinghouse_admin;

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

-- Billing: the worker books what Stripe confirms; operators say who pays and how. What signs payments does not see names
-- and addresses of who pays.
REVOKE SELECT ON customer FROM clearinghouse_serve;
GRANT EXECUTE ON FUNCTION book_entry, set_billing_hold TO clearinghouse_work, clearinghouse_admin;
GRANT INSERT, UPDATE ON customer TO clearinghouse_admin;
GRANT UPDATE (stripe_customer_id, stripe_version, stripe_refusal, stripe_attempts) ON customer TO clearinghouse_work;
GRANT INSERT, UPDATE, DELETE ON billing_terms TO clearinghouse_admin;
-- Terms: whoever holds an account when they begin applies them; the worker reckons periods.
GRANT EXECUTE ON FUNCTION apply_all_due_terms TO clearinghouse_serve, clearinghouse_work, clearinghouse_admin;
GRANT EXECUTE ON FUNCTION hold_terms, plan_subscription_period TO clearinghouse_work, clearinghouse_admin;
GRANT INSERT, UPDATE, DELETE ON current_period TO clearinghouse_work, clearinghouse_admin;

-- Billing periods: closed by these alone, by the worker or by hand. Anybody may look ahead.
GRANT EXECUTE ON FUNCTION seal_books, close_periods TO clearinghouse_work, clearinghouse_admin;
GRANT INSERT, UPDATE ON billing_difference TO clearinghouse_work;
GRANT EXECUTE ON FUNCTION period_entries TO clearinghouse_serve, clearinghouse_work, clearinghouse_admin;

-- Invoices: made and walked by the worker; what is on one is never changed, and its states go forward only.
GRANT INSERT ON invoice, invoice_line, invoice_entry TO clearinghouse_work;
GRANT UPDATE (state, seen_at, claimed_until, claims_count, keys_spent_count, stripe_method_id, pay_attempts_count, pay_next_at,
              problem, problem_at, stripe_customer_id, stripe_invoice_id, number, hosted_url, pdf_url, tax_minor,
              remaining_minor, overpaid_minor, off_stripe_minor, finalized_at, sent_at, due_at, ended_at, booked_minor,
              credited_minor, replaced_at) ON invoice TO clearinghouse_work;
GRANT INSERT ON credit_note TO clearinghouse_work;
GRANT UPDATE (state, keys_spent_count, problem, stripe_note_id, number, ended_at) ON credit_note TO clearinghouse_work;
GRANT INSERT ON rerating, rerated_call, rerated_line, entry_of_period TO clearinghouse_work;
GRANT UPDATE (state, problem, transfer_id, included_id, ended_at) ON rerating TO clearinghouse_work;
GRANT EXECUTE ON FUNCTION unbilled TO clearinghouse_serve, clearinghouse_work, clearinghouse_admin;

-- Stripe's events: services add what was delivered and read nothing of it, the worker acts upon it, operators have it
-- done again. Nobody changes what arrived.
REVOKE SELECT ON stripe_event, stripe_listing, stripe_sweep FROM clearinghouse_serve;
GRANT INSERT (id, type, object_type, object_id, api_version, created_at, source, payload) ON stripe_event
    TO clearinghouse_serve, clearinghouse_work;
GRANT UPDATE (state, due_at, attempts_count, failures_count, said, ended_at), DELETE ON stripe_event
    TO clearinghouse_work;
GRANT UPDATE (state, due_at, failures_count, said, ended_at) ON stripe_event TO clearinghouse_admin;
GRANT INSERT, UPDATE ON stripe_listing, stripe_sweep TO clearinghouse_work;

-- Payments: whoever serves gateways may ask for one, and see how it stands; the worker does what is asked of Stripe.
-- Operators enter what came by other ways, and send money back.
REVOKE SELECT ON payment, payment_event, refund, dispute, saved_card FROM clearinghouse_serve;
GRANT SELECT (id, gateway_id, method, state, amount, currency, saves_card, created_at, url, instructions, expires_at,
              failure, said, ended_at) ON payment TO clearinghouse_serve;
GRANT EXECUTE ON FUNCTION request_payment TO clearinghouse_serve, clearinghouse_admin;
GRANT EXECUTE ON FUNCTION plan_payment, claim_payments, note_payment_asked, put_off_payment, open_payment, process_payment,
    confirm_payment, end_payment, claim_refunds, note_refund_asked, put_off_refund, refuse_refund, note_refund,
    note_dispute TO clearinghouse_work;
GRANT INSERT, UPDATE, DELETE ON saved_card TO clearinghouse_work;
GRANT EXECUTE ON FUNCTION enter_receipt, decide_receipt, request_refund, forgive_disputes TO clearinghouse_admin;
GRANT EXECUTE ON FUNCTION refundable TO clearinghouse_admin, clearinghouse_work;

-- Alerts and notices: the worker evaluates and sends, operators acknowledge, silence and say where to.
GRANT EXECUTE ON FUNCTION note_service_conditions, forget_service TO clearinghouse_serve;
GRANT EXECUTE ON FUNCTION uuid7_from TO clearinghouse_work;
GRANT INSERT, UPDATE, DELETE ON alert TO clearinghouse_work;
GRANT UPDATE ON alert_evaluation TO clearinghouse_work;
GRANT INSERT ON notice, delivery, delivery_attempt TO clearinghouse_work;
GRANT INSERT, UPDATE ON notice_state TO clearinghouse_work;
GRANT UPDATE (state, attempts_count, next_attempt_at, ended_at, error) ON delivery TO clearinghouse_work;
GRANT UPDATE (ended_at, outcome, detail) ON delivery_attempt TO clearinghouse_work;
GRANT UPDATE (acknowledged_at, acknowledged_by) ON alert TO clearinghouse_admin;
GRANT INSERT, UPDATE (ends_at) ON silence TO clearinghouse_admin;
GRANT INSERT, UPDATE ON notice_target TO clearinghouse_admin;
-- Again from the beginning, and messages that try a channel.
GRANT INSERT, UPDATE (state, attempts_before, next_attempt_at, ended_at, error) ON delivery TO clearinghouse_admin;

-- Rate cards: operators add versions and say who is charged by which. What signs payments reads them alone.
GRANT INSERT (card, version, currency, effective_from, document, sha256, applied_by) ON rate_card TO clearinghouse_admin;
GRANT INSERT ON rate_rule, rate_tier TO clearinghouse_admin;
GRANT EXECUTE ON FUNCTION hold_rate_cards, assign_rate_card, assign_plan_rate_card TO clearinghouse_admin;
GRANT EXECUTE ON FUNCTION rate_version_at, rate_total, rate_charge, rate_cost, rate_volume
    TO clearinghouse_serve, clearinghouse_admin, clearinghouse_work;

-- Usage for dashboards: added up by the worker, put right by operators. Nobody changes a sum otherwise.
GRANT EXECUTE ON FUNCTION usage_mark, roll_up_usage, usage_reach, usage_first, correct_usage, correct_usage_ever,
    usage_differences, usage_begin TO clearinghouse_work, clearinghouse_admin;
