-- What billing terms do to an account: when they begin, and with each period of a subscription. Done by whoever first
-- holds the account's lock at or after that instant, commits among them: nothing is signed on terms that have ended. What
-- was done is noted in the account: whoever changes terms holds their rows already when he asks for its lock.
ALTER TABLE account
    ADD COLUMN terms_begun_at timestamptz,  -- `begins_at` of the terms that hold, once they were applied
    ADD COLUMN signs_until    timestamptz,  -- the end of the free terms that hold: nothing is signed from then on
    ADD COLUMN terms_due_at   timestamptz;  -- of the next that there is to do
CREATE INDEX account_terms_due ON account (terms_due_at) WHERE terms_due_at IS NOT NULL;

-- One row for each period of a subscription, written before the period begins. Its fee is charged and its usage included
-- at `begins_at`: `booked_at`, with the transfer of the fee. A period that was over by then is noted as lapsed: nothing was
-- there that could have signed in it, so there is neither a fee nor anything included.
CREATE TABLE subscription_period (
    gateway_id  uuid NOT NULL REFERENCES gateway,
    begins_at   timestamptz NOT NULL,
    ends_at     timestamptz NOT NULL CHECK (ends_at > begins_at),
    first_day   date NOT NULL,             -- by the gateway's calendar: the period's name
    next_day    date NOT NULL CHECK (next_day > first_day),
    fee         monetary NOT NULL CHECK (fee >= 0),
    included    monetary NOT NULL CHECK (included >= 0),
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    booked_at   timestamptz,
    fee_id      uuid UNIQUE REFERENCES transfer,  -- NULL while it is not booked, or where there is no fee
    lapsed      boolean NOT NULL DEFAULT false,
    PRIMARY KEY (gateway_id, begins_at),
    CHECK (NOT lapsed OR booked_at >= ends_at AND fee_id IS NULL)
);

-- The period that a gateway is in, as its calendar has it: reckoned by the worker, for whoever only reads. One that has
-- ended says that nobody has reckoned since.
CREATE TABLE current_period (
    gateway_id  uuid PRIMARY KEY REFERENCES gateway,
    begins_at   timestamptz NOT NULL,
    ends_at     timestamptz NOT NULL CHECK (ends_at > begins_at),
    first_day   date NOT NULL,
    next_day    date NOT NULL CHECK (next_day > first_day)
);

CREATE FUNCTION note_terms_due(a_gateway uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE account SET terms_due_at = least(
        (SELECT min(begins_at) FROM billing_terms
          WHERE gateway_id = a_gateway AND begins_at > coalesce(account.terms_begun_at, '-infinity')),
        (SELECT min(begins_at) FROM subscription_period WHERE gateway_id = a_gateway AND booked_at IS NULL))
     WHERE id = a_gateway;
$$;

-- The past is not rewritten: rows that have begun stay as they are, and none begins in the past, unless nothing was ever
-- signed and no period closed, so that there is no past. Only when free terms end may be moved, to what is still to come.
CREATE FUNCTION guard_billing_terms() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    payer uuid := CASE TG_OP WHEN 'DELETE' THEN OLD.gateway_id ELSE NEW.gateway_id END;
    at timestamptz;
BEGIN
    PERFORM FROM account WHERE id = payer FOR NO KEY UPDATE;
    at := clock_timestamp();  -- after the lock: every commit before it went by the terms as they were
    IF TG_OP = 'UPDATE' AND to_jsonb(NEW) - 'ends_at' = to_jsonb(OLD) - 'ends_at' AND coalesce(NEW.ends_at > at, true) THEN
        RETURN NEW;
    END IF;
    IF (TG_OP <> 'INSERT' AND OLD.begins_at <= at OR TG_OP <> 'DELETE' AND NEW.begins_at <= at)
       AND (EXISTS (SELECT FROM issuance WHERE gateway_id = payer)  -- whatever it was charged
                     OR EXISTS (SELECT FROM billing_period WHERE gateway_id = payer)
                     OR EXISTS (SELECT FROM subscription_period WHERE gateway_id = payer AND booked_at IS NOT NULL)) THEN
        RAISE EXCEPTION 'billing terms that have begun do not change, and none begin in the past'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Other terms can begin where a period ends.';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON billing_terms
    FOR EACH ROW EXECUTE FUNCTION guard_billing_terms();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON billing_terms
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('Other terms can begin where a period ends.');

-- What was prepared by terms that no longer hold is taken back; so are terms that had begun, where there was no past.
CREATE FUNCTION follow_billing_terms() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    changed billing_terms := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    IF TG_OP = 'UPDATE' THEN
        UPDATE account SET signs_until = changed.ends_at
         WHERE id = changed.gateway_id AND terms_begun_at = changed.begins_at;
    ELSE
        UPDATE account SET terms_begun_at = NULL, signs_until = NULL, credit_limit = 0,
               overdrawn = greatest(0, -balance)
         WHERE id = changed.gateway_id AND terms_begun_at >= changed.begins_at;
        DELETE FROM subscription_period
         WHERE gateway_id = changed.gateway_id AND booked_at IS NULL AND ends_at > changed.begins_at;
        DELETE FROM current_period WHERE gateway_id = changed.gateway_id AND ends_at > changed.begins_at;
    END IF;
    PERFORM note_terms_due(changed.gateway_id);
    RETURN NULL;
END $$;
CREATE TRIGGER follow AFTER INSERT OR UPDATE OR DELETE ON billing_terms
    FOR EACH ROW EXECUTE FUNCTION follow_billing_terms();

CREATE FUNCTION guard_subscription_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.booked_at IS NOT NULL OR TG_OP = 'UPDATE' AND NEW.booked_at IS NULL THEN
        RAISE EXCEPTION 'a period of a subscription that was charged does not change'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Correct a mistake with a further transfer.';
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON subscription_period
    FOR EACH ROW EXECUTE FUNCTION guard_subscription_period();

-- No instant is paid for twice, whatever a worker reckons: by another release's time zones the same period ends elsewhere.
-- (An exclusion constraint needs an extension that not every server has.)
CREATE FUNCTION keep_subscription_periods_apart() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    other subscription_period;
BEGIN
    PERFORM FROM account WHERE id = NEW.gateway_id FOR NO KEY UPDATE;
    SELECT * INTO other FROM subscription_period
     WHERE gateway_id = NEW.gateway_id AND begins_at <> NEW.begins_at
       AND begins_at < NEW.ends_at AND ends_at > NEW.begins_at LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'the period of a subscription from % to % overlaps the one from % to %',
            NEW.begins_at, NEW.ends_at, other.begins_at, other.ends_at
            USING ERRCODE = 'exclusion_violation',
                  HINT = 'What is not charged yet goes when the terms to come are agreed on anew.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER apart BEFORE INSERT OR UPDATE OF gateway_id, begins_at, ends_at ON subscription_period
    FOR EACH ROW EXECUTE FUNCTION keep_subscription_periods_apart();

-- For who reckons a calendar: until the transaction ends nobody changes terms, and no commit applies any.
CREATE FUNCTION hold_terms(a_gateway uuid) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    SELECT FROM account WHERE id = a_gateway FOR NO KEY UPDATE;
$$;

-- Writes down a period of a subscription that is to come, or that goes on. Fee and included usage are those of the terms
-- that hold by then, read under the account's lock. Returns whether it was written; not where terms change within it.
CREATE FUNCTION plan_subscription_period(
    a_gateway uuid, a_begins_at timestamptz, a_ends_at timestamptz, a_first_day date, a_next_day date
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    terms billing_terms;
BEGIN
    PERFORM FROM account WHERE id = a_gateway FOR NO KEY UPDATE;
    SELECT * INTO terms FROM billing_terms WHERE gateway_id = a_gateway AND begins_at <= a_begins_at
     ORDER BY begins_at DESC LIMIT 1;
    IF terms.way IS DISTINCT FROM 'subscription' OR a_ends_at <= clock_timestamp() OR EXISTS (
        SELECT FROM billing_terms
         WHERE gateway_id = a_gateway AND begins_at > a_begins_at AND begins_at < a_ends_at) THEN
        RETURN false;
    END IF;
    INSERT INTO subscription_period (gateway_id, begins_at, ends_at, first_day, next_day, fee, included)
    VALUES (a_gateway, a_begins_at, a_ends_at, a_first_day, a_next_day, terms.fee, terms.included)
        ON CONFLICT DO NOTHING;
    IF FOUND THEN
        PERFORM note_terms_due(a_gateway);
        RETURN true;
    END IF;
    RETURN false;
END $$;

-- Does to an account what its terms say is due. The caller holds the account's row lock.
--
-- A limit below what is owed holds at once: the debt is what the account is overdrawn by, which payments make less, and
-- nothing more is signed on credit.
CREATE FUNCTION apply_due_terms(a_gateway uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    at timestamptz := clock_timestamp();
    terms billing_terms;
    period subscription_period;
    charged transfer;
    named text;
BEGIN
    SELECT * INTO terms FROM billing_terms WHERE gateway_id = a_gateway AND begins_at <= at
     ORDER BY begins_at DESC LIMIT 1;
    UPDATE account SET terms_begun_at = terms.begins_at, credit_limit = terms.credit_limit, signs_until = terms.ends_at,
           overdrawn = greatest(0, -balance - terms.credit_limit)
     WHERE id = a_gateway AND coalesce(terms_begun_at, '-infinity') < terms.begins_at;
    FOR period IN SELECT * FROM subscription_period
                   WHERE gateway_id = a_gateway AND booked_at IS NULL AND begins_at <= at ORDER BY begins_at LOOP
        charged := NULL;
        IF period.ends_at <= at THEN
            UPDATE subscription_period SET booked_at = at, lapsed = true
             WHERE gateway_id = a_gateway AND begins_at = period.begins_at;
            CONTINUE;
        END IF;
        named := a_gateway || ':' || to_char(period.begins_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');
        IF period.fee > 0 THEN
            charged := book_entry(
                gen_random_uuid(), 'fee', a_gateway, -period.fee, NULL, 'fee:' || named,
                format('subscription from %s', period.first_day), 'clearinghouse');
        END IF;
        IF period.included > 0 THEN
            PERFORM book_entry(
                gen_random_uuid(), 'included', a_gateway, period.included, period.ends_at,
                'included:' || named,
                format('included in the subscription from %s', period.first_day), 'clearinghouse');
        END IF;
        UPDATE subscription_period SET booked_at = at, fee_id = charged.id
         WHERE gateway_id = a_gateway AND begins_at = period.begins_at;
    END LOOP;
    PERFORM note_terms_due(a_gateway);
END $$;

-- For accounts that nobody pays from just now. One that somebody holds is left for the next time. What signs for these
-- waits until the transaction ends: where many are due at one instant, ask for few, and again.
CREATE FUNCTION apply_all_due_terms(a_at_most integer DEFAULT 1000) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    applied bigint := 0;
    due uuid;
BEGIN
    FOR due IN SELECT id FROM account WHERE terms_due_at <= now() ORDER BY id LIMIT a_at_most
                  FOR NO KEY UPDATE SKIP LOCKED LOOP
        PERFORM settle_lots(due);
        PERFORM apply_due_terms(due);
        applied := applied + 1;
    END LOOP;
    RETURN applied;
END $$;
