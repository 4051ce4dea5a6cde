-- Money in: what gateways pay, what goes back to them, what their banks take back. The row is there before Stripe is
-- asked for anything; where money moves, the row and its entry in the books are written together, by one function.

CREATE TABLE payment (
    id                  uuid PRIMARY KEY,
    gateway_id          uuid NOT NULL REFERENCES gateway,
    method              text NOT NULL CHECK (method IN (
        'checkout',         -- at Stripe's page, by a link
        'card',             -- a saved card, asked for by somebody
        'automatic',        -- a saved card, because the balance was low
        'bank_transfer',    -- instructions for a transfer, which comes or does not
        'cash_balance',     -- a transfer that came and was not asked for as it came
        'setup',            -- no money: a card is saved at Stripe's page
        'wire', 'stablecoin')),  -- came by another way: entered by one person, approved by another
    state               text NOT NULL DEFAULT 'requested'
        CHECK (state IN ('requested', 'open', 'processing', 'succeeded', 'failed', 'expired', 'canceled')),
    amount              monetary CHECK (amount > 0),  -- what enters the account; Stripe's minor units follow from it
    currency            text NOT NULL,
    saves_card          boolean NOT NULL DEFAULT false,
    request_key         text CHECK (length(request_key) BETWEEN 1 AND 255),  -- the idempotency key of who asked
    reference           text CHECK (length(reference) BETWEEN 1 AND 200),  -- what the bank or the chain knows it by
    reason              text NOT NULL DEFAULT '' CHECK (length(reason) <= 1000),
    requested_by        text NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- How Stripe is asked. A key is Stripe's for a day; after that, what was asked for is looked for first.
    next_attempt_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts_count      integer NOT NULL DEFAULT 0,
    keys_count          integer NOT NULL DEFAULT 1,
    asked_at            timestamptz,                 -- when the newest key was first used
    -- What is there for it.
    stripe_customer_id  text,
    stripe_method_id    text,                        -- the saved card that is charged
    stripe_session_id   text UNIQUE,
    stripe_intent_id    text UNIQUE,
    stripe_charge_id    text UNIQUE,
    url                 text,
    instructions        jsonb,                       -- of a bank transfer: where to, and what to write
    expires_at          timestamptz,
    -- How it ended.
    failure             text,                        -- a code
    said                text NOT NULL DEFAULT '',    -- what happened, and what can be done, for the gateway
    decided_by          text,                        -- who approved or refused what was entered
    ended_at            timestamptz,
    CHECK ((method = 'setup') = (amount IS NULL)),
    CHECK ((method IN ('wire', 'stablecoin')) = (reference IS NOT NULL)),
    CHECK ((ended_at IS NULL) = (state IN ('requested', 'open', 'processing'))),
    CONSTRAINT receipt_needs_two_people CHECK (decided_by <> requested_by)
);
CREATE UNIQUE INDEX payment_request_key ON payment (gateway_id, request_key) WHERE request_key IS NOT NULL;
-- One charge of a saved card at a time, and one taking of what waits in a cash balance.
CREATE UNIQUE INDEX payment_charge_in_flight ON payment (gateway_id)
    WHERE method IN ('card', 'automatic') AND ended_at IS NULL;
CREATE UNIQUE INDEX payment_cash_in_flight ON payment (gateway_id) WHERE method = 'cash_balance' AND ended_at IS NULL;
-- What arrived once is entered once.
CREATE UNIQUE INDEX payment_reference ON payment (method, lower(reference)) WHERE reference IS NOT NULL AND state <> 'canceled';
CREATE INDEX payment_gateway ON payment (gateway_id, id);
CREATE INDEX payment_requested ON payment (next_attempt_at) WHERE state = 'requested';
CREATE INDEX payment_in_flight ON payment (method, id) WHERE ended_at IS NULL;
CREATE INDEX payment_ended ON payment (ended_at) WHERE ended_at IS NOT NULL;  -- what a day came to

-- What goes back to a gateway: asked for by an operator, or made at Stripe by somebody else.
CREATE TABLE refund (
    id                uuid PRIMARY KEY,
    gateway_id        uuid NOT NULL REFERENCES gateway,
    payment_id        uuid REFERENCES payment,      -- NULL: of an invoice's payment
    state             text NOT NULL DEFAULT 'requested'
        CHECK (state IN ('requested', 'pending', 'succeeded', 'failed', 'canceled')),
    amount            monetary NOT NULL CHECK (amount > 0),
    currency          text NOT NULL,
    reason            text NOT NULL CHECK (length(reason) <= 1000),
    request_key       text UNIQUE,
    requested_by      text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    next_attempt_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts_count    integer NOT NULL DEFAULT 0,
    keys_count        integer NOT NULL DEFAULT 1,
    asked_at          timestamptz,
    stripe_refund_id  text UNIQUE,
    said              text NOT NULL DEFAULT '',
    ended_at          timestamptz,                  -- NULL: not yet confirmed
    -- In the books. Of an invoice's payment only what had come into them: what was tax is nobody's credit.
    invoice_id        uuid REFERENCES invoice,      -- whose payment it is of, where it is of one
    is_gone           boolean NOT NULL DEFAULT false,
    booked            monetary NOT NULL DEFAULT 0   -- what has left the account for it, and is not back
);
CREATE INDEX refund_payment ON refund (payment_id);
CREATE INDEX refund_invoice ON refund (invoice_id) WHERE invoice_id IS NOT NULL;
CREATE INDEX refund_in_flight ON refund (next_attempt_at) WHERE state IN ('requested', 'pending');
CREATE INDEX refund_ended ON refund (ended_at) WHERE ended_at IS NOT NULL;

-- What a gateway's bank takes back, by Stripe's id and in Stripe's words. An inquiry (warning_…) takes nothing.
CREATE TABLE dispute (
    id                text PRIMARY KEY,
    gateway_id        uuid NOT NULL REFERENCES gateway,
    payment_id        uuid REFERENCES payment,      -- NULL: of an invoice's payment
    stripe_charge_id  text NOT NULL,
    amount            monetary NOT NULL CHECK (amount > 0),
    currency          text NOT NULL,
    status            text NOT NULL,
    reason            text NOT NULL,
    due_by            timestamptz,                  -- until when evidence is taken
    is_forgiven       boolean NOT NULL DEFAULT false,  -- an operator says that it holds nothing up any more
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at          timestamptz,
    invoice_id        uuid REFERENCES invoice,      -- as of a refund, and so are the two below
    is_gone           boolean NOT NULL DEFAULT false,
    booked            monetary NOT NULL DEFAULT 0
);
CREATE INDEX dispute_gateway ON dispute (gateway_id);
CREATE INDEX dispute_invoice ON dispute (invoice_id) WHERE invoice_id IS NOT NULL;
CREATE INDEX dispute_open ON dispute (id) WHERE ended_at IS NULL;

-- The card that a gateway has saved at Stripe: the newest one. No number of it is here.
CREATE TABLE saved_card (
    gateway_id         uuid PRIMARY KEY REFERENCES gateway,
    payment_method_id  text NOT NULL UNIQUE,
    brand              text NOT NULL,
    last4              text NOT NULL,
    exp_month          integer NOT NULL,
    exp_year           integer NOT NULL,
    saved_at           timestamptz NOT NULL DEFAULT clock_timestamp(),
    refused            text,                        -- why automatic top-ups do not charge it any more
    made_at            timestamptz NOT NULL DEFAULT '-infinity'  -- when its holder entered it, by Stripe's clock
);

-- Who did what, when and why. No row is changed or removed.
CREATE TABLE payment_event (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    payment_id  uuid REFERENCES payment,
    refund_id   uuid REFERENCES refund,
    dispute_id  text REFERENCES dispute,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind        text NOT NULL,
    actor       text NOT NULL,
    facts       jsonb NOT NULL DEFAULT '{}',
    CHECK (num_nonnulls(payment_id, refund_id, dispute_id) = 1)
);
CREATE INDEX payment_event_payment ON payment_event (payment_id, id);
CREATE INDEX payment_event_refund ON payment_event (refund_id, id);
CREATE INDEX payment_event_dispute ON payment_event (dispute_id, id);

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON payment_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('Later events say what was wrong with earlier ones.');
CREATE TRIGGER never_removed BEFORE DELETE OR TRUNCATE ON payment
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('It may be paid, or still may.');
CREATE TRIGGER never_removed BEFORE DELETE OR TRUNCATE ON refund
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('It may be at the bank already.');
CREATE TRIGGER never_removed BEFORE DELETE OR TRUNCATE ON dispute
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('The bank decides it.');

-- Of a payment only how far it has got changes, and what is paid stays paid.
CREATE FUNCTION keep_payment() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    progress CONSTANT text[] := '{state,next_attempt_at,attempts_count,keys_count,asked_at,stripe_customer_id,'
        'stripe_method_id,stripe_session_id,stripe_intent_id,stripe_charge_id,url,instructions,expires_at,failure,said,decided_by,ended_at}';
BEGIN
    IF to_jsonb(OLD) - progress <> to_jsonb(NEW) - progress OR OLD.state = 'succeeded' AND NEW.state <> 'succeeded'
       OR OLD.stripe_session_id <> coalesce(NEW.stripe_session_id, '') THEN
        RAISE EXCEPTION 'payment is append-only but for how far it has got: % is refused', TG_OP
            USING ERRCODE = 'insufficient_privilege', HINT = 'Refund it, or ask for another.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER keeps_what_was_asked BEFORE UPDATE ON payment FOR EACH ROW EXECUTE FUNCTION keep_payment();

-- Wakes who talks to Stripe.
CREATE FUNCTION insert_payment(
    a_id uuid, a_gateway uuid, a_method text, a_amount numeric, a_saves_card boolean, a_key text, a_reference text,
    a_reason text, a_actor text
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    holder account;
    known payment;
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('payments of ' || a_gateway, 0));
    SELECT * INTO STRICT holder FROM account WHERE id = a_gateway AND gateway_id IS NOT NULL;
    SELECT * INTO known FROM payment WHERE gateway_id = a_gateway AND request_key = a_key;
    IF FOUND THEN
        IF (known.method, known.amount, known.saves_card) IS NOT DISTINCT FROM (a_method, a_amount, a_saves_card) THEN
            RETURN known.id;
        END IF;
        RAISE unique_violation USING CONSTRAINT = 'payment_request_key', MESSAGE = 'the key was used for another payment';
    END IF;
    IF a_method NOT IN ('automatic', 'cash_balance', 'wire', 'stablecoin')
       AND (SELECT count(*) FROM payment WHERE gateway_id = a_gateway AND ended_at IS NULL) >= 20 THEN
        RAISE check_violation USING CONSTRAINT = 'payments_open_max', MESSAGE = 'too many payments are under way';
    END IF;
    IF a_actor LIKE 'gateway:%' AND (SELECT count(*) FROM payment WHERE gateway_id = a_gateway
           AND requested_by LIKE 'gateway:%' AND state = 'failed'
           AND created_at > clock_timestamp() - interval '1 hour') >= 20 THEN  -- rows stay, and cards are tried out so
        RAISE check_violation USING CONSTRAINT = 'payments_failed_max', MESSAGE = 'too many payments have failed';
    END IF;
    INSERT INTO payment (id, gateway_id, method, amount, currency, saves_card, request_key, reference, reason,
                         requested_by)
    VALUES (a_id, a_gateway, a_method, a_amount, holder.currency, a_saves_card, a_key, a_reference, a_reason, a_actor);
    INSERT INTO payment_event (payment_id, kind, actor, facts)
    VALUES (a_id, 'requested', a_actor, jsonb_strip_nulls(jsonb_build_object(
        'method', a_method, 'amount', a_amount::text, 'currency', holder.currency, 'reference', a_reference,
        'reason', nullif(a_reason, ''))));
    PERFORM pg_notify('payments', '');
    RETURN a_id;
END $$;

-- By gateways and operators. Returns its id, or that of the one which was asked for under this key before. Raises
-- unique_violation (payment_request_key, payment_charge_in_flight) and check_violation (payments_open_max,
-- payments_failed_max).
CREATE FUNCTION request_payment(
    a_id uuid, a_gateway uuid, a_method text, a_amount numeric, a_saves_card boolean, a_key text, a_reason text,
    a_actor text
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF a_method NOT IN ('checkout', 'card', 'bank_transfer', 'setup') THEN
        RAISE check_violation USING MESSAGE = format('a payment by %s cannot be asked for', a_method);
    END IF;
    RETURN insert_payment(a_id, a_gateway, a_method, a_amount, a_saves_card, a_key, NULL, a_reason, a_actor);
END $$;

-- By the worker: of a saved card because the balance is low, or of what waits in a cash balance.
CREATE FUNCTION plan_payment(a_id uuid, a_gateway uuid, a_method text, a_amount numeric, a_reason text, a_actor text)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF a_method NOT IN ('automatic', 'cash_balance') THEN
        RAISE check_violation USING MESSAGE = format('a payment by %s is not planned', a_method);
    END IF;
    RETURN insert_payment(a_id, a_gateway, a_method, a_amount, false, NULL, NULL, a_reason, a_actor);
END $$;

-- By an operator: money that came by another way. Nothing is booked before another person approves it.
CREATE FUNCTION enter_receipt(
    a_id uuid, a_gateway uuid, a_method text, a_amount numeric, a_reference text, a_reason text, a_actor text
) RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    IF a_method NOT IN ('wire', 'stablecoin') THEN
        RAISE check_violation USING MESSAGE = format('a receipt by %s is not entered', a_method);
    END IF;
    RETURN insert_payment(a_id, a_gateway, a_method, a_amount, false, NULL, a_reference, a_reason, a_actor);
END $$;

-- Begins an attempt for what is due: until the lease is over nobody else does.
CREATE FUNCTION claim_payments(a_lease interval, a_count integer) RETURNS SETOF payment
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE payment SET next_attempt_at = clock_timestamp() + a_lease, attempts_count = attempts_count + 1
     WHERE id IN (SELECT id FROM payment WHERE state = 'requested' AND method NOT IN ('wire', 'stablecoin')
                     AND next_attempt_at <= clock_timestamp() ORDER BY next_attempt_at LIMIT a_count
                     FOR UPDATE SKIP LOCKED)
    RETURNING *;
$$;

-- Before Stripe is asked. `a_renews`: under a new key, once it is known that the last one brought nothing about.
-- What it asks with stays: under one key Stripe must be asked for one thing.
CREATE FUNCTION note_payment_asked(a_id uuid, a_customer text, a_method text, a_renews boolean, a_actor text)
RETURNS payment
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    mine payment;
BEGIN
    UPDATE payment SET stripe_customer_id = coalesce(stripe_customer_id, a_customer),
           stripe_method_id = coalesce(stripe_method_id, a_method), keys_count = keys_count + CASE WHEN a_renews THEN 1 ELSE 0 END,
           asked_at = CASE WHEN a_renews THEN clock_timestamp() ELSE coalesce(asked_at, clock_timestamp()) END
     WHERE id = a_id RETURNING * INTO mine;
    IF a_renews THEN
        INSERT INTO payment_event (payment_id, kind, actor, facts)
        VALUES (a_id, 'new_key', a_actor, jsonb_build_object('keys_count', mine.keys_count));
    END IF;
    RETURN mine;
END $$;

-- What could not be done now is tried again.
CREATE FUNCTION put_off_payment(a_id uuid, a_pause interval, a_said text, a_actor text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH later AS (
        UPDATE payment SET next_attempt_at = clock_timestamp() + a_pause, said = a_said
         WHERE id = a_id AND state = 'requested' RETURNING attempts_count)
    INSERT INTO payment_event (payment_id, kind, actor, facts)
    SELECT a_id, 'put_off', a_actor, jsonb_build_object('said', a_said, 'attempts_count', attempts_count) FROM later;
$$;

-- What was asked for is there at Stripe. What is known already stays.
CREATE FUNCTION open_payment(
    a_id uuid, a_session text, a_intent text, a_url text, a_instructions jsonb, a_expires_at timestamptz, a_actor text
) RETURNS payment LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    before payment;
    mine payment;
BEGIN
    SELECT * INTO STRICT before FROM payment WHERE id = a_id FOR UPDATE;
    UPDATE payment SET state = CASE state WHEN 'requested' THEN 'open' ELSE state END,
           said = CASE state WHEN 'processing' THEN said ELSE '' END,
           stripe_session_id = coalesce(stripe_session_id, a_session),
           stripe_intent_id = coalesce(stripe_intent_id, a_intent), url = coalesce(url, a_url),
           instructions = coalesce(instructions, a_instructions), expires_at = coalesce(expires_at, a_expires_at)
     WHERE id = a_id AND ended_at IS NULL RETURNING * INTO mine;
    IF NOT FOUND THEN
        RETURN before;
    END IF;
    IF before.state = 'requested' THEN
        INSERT INTO payment_event (payment_id, kind, actor, facts)
        VALUES (a_id, 'open', a_actor, jsonb_strip_nulls(jsonb_build_object('session', a_session, 'intent', a_intent)));
        PERFORM pg_notify('payments_answered', a_id::text);
    END IF;
    RETURN mine;
END $$;

-- Its page is done, and the money comes later or never. False where that was known, or it has ended.
CREATE FUNCTION process_payment(a_id uuid, a_session text, a_intent text, a_said text, a_actor text) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE payment SET state = 'processing', said = a_said, stripe_session_id = coalesce(stripe_session_id, a_session),
           stripe_intent_id = coalesce(stripe_intent_id, a_intent)
     WHERE id = a_id AND state IN ('requested', 'open') AND method = 'checkout';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO payment_event (payment_id, kind, actor, facts)
    VALUES (a_id, 'processing', a_actor, jsonb_strip_nulls(jsonb_build_object('session', a_session, 'intent', a_intent)));
    PERFORM pg_notify('payments_answered', a_id::text);
    RETURN true;
END $$;

-- The money is there: the entry and the row, together and once. Returns booked, known (it was before), or other: it was
-- paid by another intent before, and somebody has paid twice.
CREATE FUNCTION confirm_payment(a_id uuid, a_entry uuid, a_intent text, a_charge text, a_actor text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    mine payment;
BEGIN
    SELECT * INTO STRICT mine FROM payment WHERE id = a_id FOR UPDATE;
    IF mine.state = 'succeeded' THEN
        RETURN CASE WHEN mine.stripe_intent_id = a_intent THEN 'known' ELSE 'other' END;
    END IF;
    PERFORM book_entry(a_entry, 'payment', mine.gateway_id, mine.amount, NULL, 'payment:' || a_intent,
                       format('payment %s by %s', 'pay_' || replace(a_id::text, '-', ''), mine.method), a_actor);
    UPDATE payment SET state = 'succeeded', ended_at = clock_timestamp(), stripe_intent_id = a_intent,
           stripe_charge_id = a_charge, failure = NULL, said = '' WHERE id = a_id;
    INSERT INTO payment_event (payment_id, kind, actor, facts)
    VALUES (a_id, 'succeeded', a_actor, jsonb_strip_nulls(jsonb_build_object(
        'intent', a_intent, 'charge', a_charge, 'amount', mine.amount::text, 'was', mine.state)));
    PERFORM pg_notify('payments_answered', a_id::text);
    RETURN 'booked';
END $$;

-- It ended without money: failed, expired, canceled, or (of a card that is saved) succeeded. False where it had ended.
CREATE FUNCTION end_payment(
    a_id uuid, a_state text, a_intent text, a_failure text, a_said text, a_actor text
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    UPDATE payment SET state = a_state, ended_at = clock_timestamp(), failure = a_failure, said = a_said,
           stripe_intent_id = coalesce(a_intent, stripe_intent_id)
     WHERE id = a_id AND ended_at IS NULL AND (a_state <> 'succeeded' OR method = 'setup')
       AND method NOT IN ('wire', 'stablecoin');
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO payment_event (payment_id, kind, actor, facts)
    VALUES (a_id, a_state, a_actor, jsonb_strip_nulls(jsonb_build_object(
        'intent', a_intent, 'failure', a_failure, 'said', nullif(a_said, ''))));
    PERFORM pg_notify('payments_answered', a_id::text);
    RETURN true;
END $$;

-- Another person says that it is there, or that it is not. Raises check_violation (receipt_needs_two_people) where it is
-- the same one, no_data_found where there is no such receipt that waits.
CREATE FUNCTION decide_receipt(a_id uuid, a_entry uuid, a_approves boolean, a_said text, a_actor text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    mine payment;
BEGIN
    SELECT * INTO STRICT mine FROM payment
     WHERE id = a_id AND method IN ('wire', 'stablecoin') AND state = 'requested' FOR UPDATE;
    UPDATE payment SET state = CASE WHEN a_approves THEN 'succeeded' ELSE 'canceled' END,
           ended_at = clock_timestamp(), said = a_said, decided_by = a_actor WHERE id = a_id;
    IF a_approves THEN
        PERFORM book_entry(a_entry, 'payment', mine.gateway_id, mine.amount, NULL, 'payment:' || a_id,
                           format('%s %s, entered by %s', mine.method, mine.reference, mine.requested_by), a_actor);
    END IF;
    INSERT INTO payment_event (payment_id, kind, actor, facts)
    VALUES (a_id, CASE WHEN a_approves THEN 'approved' ELSE 'refused' END, a_actor, jsonb_build_object('said', a_said));
END $$;

-- What of a payment can still go back: neither refunded nor taken back by a bank.
CREATE FUNCTION refundable(a_payment uuid) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT amount
         - (SELECT coalesce(sum(amount), 0) FROM refund
             WHERE payment_id = a_payment AND state NOT IN ('failed', 'canceled'))
         - (SELECT coalesce(sum(amount), 0) FROM dispute
             WHERE payment_id = a_payment AND status NOT IN ('won', 'prevented') AND status NOT LIKE 'warning%')
      FROM payment WHERE id = a_payment AND state = 'succeeded' AND stripe_charge_id IS NOT NULL;
$$;

-- Wakes who talks to Stripe. `a_amount` NULL is all that is left. Raises check_violation (refund_left) for more than
-- that, unique_violation (refund_request_key_key) for a key that was used for another.
CREATE FUNCTION request_refund(a_id uuid, a_payment uuid, a_amount numeric, a_key text, a_reason text, a_actor text)
RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    paid payment;
    known refund;
    left_over numeric;
BEGIN
    SELECT * INTO STRICT paid FROM payment WHERE id = a_payment FOR UPDATE;
    SELECT * INTO known FROM refund WHERE request_key = a_key;
    IF FOUND THEN
        IF known.payment_id = a_payment AND known.amount = coalesce(a_amount, known.amount) THEN RETURN known.id; END IF;
        RAISE unique_violation USING CONSTRAINT = 'refund_request_key_key', MESSAGE = 'the key was used for another refund';
    END IF;
    left_over := coalesce(refundable(a_payment), 0);
    IF coalesce(a_amount, left_over) > left_over OR left_over = 0 THEN
        RAISE check_violation USING CONSTRAINT = 'refund_left', MESSAGE = left_over::text;
    END IF;
    INSERT INTO refund (id, gateway_id, payment_id, amount, currency, reason, request_key, requested_by)
    VALUES (a_id, paid.gateway_id, a_payment, coalesce(a_amount, left_over), paid.currency, a_reason, a_key, a_actor);
    INSERT INTO payment_event (refund_id, kind, actor, facts)
    VALUES (a_id, 'requested', a_actor, jsonb_build_object(
        'payment', a_payment, 'amount', coalesce(a_amount, left_over)::text, 'reason', a_reason));
    PERFORM pg_notify('payments', '');
    RETURN a_id;
END $$;

CREATE FUNCTION claim_refunds(a_lease interval, a_count integer) RETURNS SETOF refund
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE refund SET next_attempt_at = clock_timestamp() + a_lease, attempts_count = attempts_count + 1
     WHERE id IN (SELECT id FROM refund WHERE state = 'requested' AND next_attempt_at <= clock_timestamp()
                   ORDER BY next_attempt_at LIMIT a_count FOR UPDATE SKIP LOCKED)
    RETURNING *;
$$;

CREATE FUNCTION note_refund_asked(a_id uuid, a_renews boolean) RETURNS refund
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE refund SET keys_count = keys_count + CASE WHEN a_renews THEN 1 ELSE 0 END,
           asked_at = CASE WHEN a_renews THEN clock_timestamp() ELSE coalesce(asked_at, clock_timestamp()) END
     WHERE id = a_id RETURNING *;
$$;

CREATE FUNCTION put_off_refund(a_id uuid, a_pause interval, a_said text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    UPDATE refund SET next_attempt_at = clock_timestamp() + a_pause, said = a_said WHERE id = a_id AND state = 'requested';
$$;

-- Stripe refused it: nothing went back.
CREATE FUNCTION refuse_refund(a_id uuid, a_said text, a_actor text) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS $$
    WITH refused AS (
        UPDATE refund SET state = 'failed', said = a_said, ended_at = clock_timestamp()
         WHERE id = a_id AND state = 'requested' RETURNING id)
    INSERT INTO payment_event (refund_id, kind, actor, facts)
    SELECT id, 'failed', a_actor, jsonb_build_object('said', a_said) FROM refused;
$$;

-- What of `a_back`, which went back of `a_gross`, had come into the books, where `a_net` of all of it did: rounded once,
-- half up, and all of it for all of it. What goes back beyond what came is no tax of anybody's. In minor units.
CREATE FUNCTION net_of_gross(a_back numeric, a_gross numeric, a_net numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN a_back >= a_gross THEN a_net + a_back - a_gross
                ELSE div(2 * a_back * a_net + a_gross, 2 * a_gross) END;
$$;

-- What leaves the account now that `a_amount` is gone, or (below 0) enters it now that it is back; its row says so
-- already. Of an invoice's payments, of which the caller has locked the row: what is missing until all that is gone of
-- them has taken its net part, so that parts of a refund sum up to the whole, whichever of them fail or come back.
-- `a_noted_minor` is what a credit note says of this one, whose tax Stripe may have rounded otherwise by a unit: it holds
-- as far as it leaves a net part and a tax for the rest.
CREATE FUNCTION leaves_account(
    a_invoice uuid, a_gross_minor bigint, a_net_minor bigint, a_noted_minor bigint, a_amount numeric, a_is_gone boolean
) RETURNS numeric LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
    places integer;
    unit numeric;
    gone numeric;
    taken numeric;
    missing numeric;
BEGIN
    IF a_invoice IS NULL THEN
        RETURN CASE WHEN a_is_gone THEN a_amount ELSE -a_amount END;
    END IF;
    SELECT decimals, power(10::numeric, decimals) INTO STRICT places, unit FROM invoice WHERE id = a_invoice;
    SELECT coalesce(sum(amount) FILTER (WHERE is_gone), 0) * unit, coalesce(sum(booked), 0) * unit INTO gone, taken
      FROM (SELECT amount, is_gone, booked FROM refund WHERE invoice_id = a_invoice
            UNION ALL SELECT amount, is_gone, booked FROM dispute WHERE invoice_id = a_invoice) AS back;
    missing := net_of_gross(gone, a_gross_minor, a_net_minor) - taken;
    IF a_is_gone AND a_noted_minor IS NOT NULL AND gone < a_gross_minor THEN
        missing := least(a_net_minor - taken, greatest(a_noted_minor, gone - taken - (a_gross_minor - a_net_minor)));
    END IF;
    missing := round(missing / unit, places);
    -- More may have been paid since the last one, or less be due: it never takes more than went back, nor gives then.
    RETURN CASE WHEN a_is_gone THEN least(greatest(missing, 0), a_amount)
                ELSE greatest(least(missing, 0), -a_amount) END;
END $$;

-- What Stripe says of a refund, ours or somebody else's: booked once Stripe has it, since from then on the money is no
-- credit, however long a bank takes; and given back when it fails, which a bank may let it do, or is canceled. Not that
-- of a transfer (`a_is_transfer`): its money goes into the cash balance then, and becomes credit from there. Never back
-- otherwise. `a_invoice`: whose payment it is of, and how much of that was paid, with its tax and without;
-- `a_noted_minor`: what credit notes say that this one is without. Returns whether anything changed.
CREATE FUNCTION note_refund(
    a_id uuid, a_stripe_id text, a_gateway uuid, a_payment uuid, a_amount numeric, a_currency text, a_state text,
    a_is_transfer boolean, a_reason text, a_entry uuid, a_actor text, a_invoice uuid DEFAULT NULL,
    a_gross_minor bigint DEFAULT NULL, a_net_minor bigint DEFAULT NULL, a_noted_minor bigint DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    before refund;
    is_new boolean;
    is_gone_now CONSTANT boolean := a_state IN ('pending', 'succeeded') OR a_is_transfer;
    leaving numeric := 0;
BEGIN
    PERFORM FROM invoice WHERE id = a_invoice FOR NO KEY UPDATE;
    INSERT INTO refund (id, gateway_id, payment_id, state, amount, currency, reason, requested_by, stripe_refund_id)
    VALUES (a_id, a_gateway, a_payment, 'pending', a_amount, a_currency, a_reason, a_actor, a_stripe_id)
    ON CONFLICT DO NOTHING;
    is_new := FOUND;
    SELECT * INTO STRICT before FROM refund WHERE id = a_id OR stripe_refund_id = a_stripe_id FOR UPDATE;
    IF (before.gateway_id, before.amount, before.currency, coalesce(before.stripe_refund_id, a_stripe_id))
       IS DISTINCT FROM (a_gateway, a_amount, a_currency, a_stripe_id) THEN
        RAISE check_violation USING CONSTRAINT = 'refund_differs', MESSAGE = format(
            'refund %s is %s %s of %s, and not what it says', before.id, before.amount, before.currency, before.gateway_id);
    END IF;
    IF NOT is_new AND before.state = a_state AND before.stripe_refund_id = a_stripe_id
       OR before.state IN ('failed', 'canceled') AND before.stripe_refund_id IS NOT NULL
       OR before.state = 'succeeded' AND a_state = 'pending' THEN
        RETURN false;
    END IF;
    UPDATE refund SET state = a_state, stripe_refund_id = a_stripe_id, said = '', is_gone = is_gone_now,
           invoice_id = coalesce(invoice_id, a_invoice),
           ended_at = CASE WHEN a_state = 'pending' THEN NULL ELSE clock_timestamp() END WHERE id = before.id;
    IF is_gone_now <> before.is_gone THEN
        leaving := leaves_account(a_invoice, a_gross_minor, a_net_minor, a_noted_minor, a_amount, is_gone_now);
        UPDATE refund SET booked = booked + leaving WHERE id = before.id;
    END IF;
    IF leaving > 0 THEN
        PERFORM book_entry(a_entry, 'refund', a_gateway, -leaving, NULL, 'refund:' || a_stripe_id, before.reason, a_actor);
    ELSIF leaving < 0 THEN
        PERFORM book_entry(a_entry, 'payment', a_gateway, -leaving, NULL, 'payment:' || a_stripe_id,
                           'a refund that the bank sent back', a_actor);
    END IF;
    INSERT INTO payment_event (refund_id, kind, actor, facts)
    VALUES (before.id, a_state, a_actor, jsonb_build_object(
        'stripe', a_stripe_id, 'was', CASE WHEN is_new THEN '' ELSE before.state END, 'left_account', leaving::text));
    RETURN true;
END $$;

-- Later words of Stripe's about a dispute stand above earlier ones, in whichever order they come.
CREATE FUNCTION dispute_rank(a_status text) RETURNS integer
LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE a_status WHEN 'warning_needs_response' THEN 1 WHEN 'warning_under_review' THEN 2
                         WHEN 'warning_closed' THEN 3 WHEN 'prevented' THEN 3 WHEN 'needs_response' THEN 4
                         WHEN 'under_review' THEN 5 WHEN 'lost' THEN 6 WHEN 'won' THEN 7 END;
$$;

-- What Stripe says of a dispute. The money is gone at once, and nothing is signed until it is back, or until an operator
-- says so. `a_invoice` and what follows: as of a refund. Returns whether anything changed.
CREATE FUNCTION note_dispute(
    a_id text, a_gateway uuid, a_payment uuid, a_charge text, a_amount numeric, a_currency text, a_status text,
    a_reason text, a_due_by timestamptz, a_entry_taken uuid, a_entry_back uuid, a_actor text,
    a_invoice uuid DEFAULT NULL, a_gross_minor bigint DEFAULT NULL, a_net_minor bigint DEFAULT NULL
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    before dispute;
    is_new boolean;
    was text;
    leaving numeric;
BEGIN
    PERFORM FROM invoice WHERE id = a_invoice FOR NO KEY UPDATE;
    INSERT INTO dispute (id, gateway_id, payment_id, stripe_charge_id, amount, currency, status, reason, due_by)
    VALUES (a_id, a_gateway, a_payment, a_charge, a_amount, a_currency, a_status, a_reason, a_due_by)
    ON CONFLICT DO NOTHING;
    is_new := FOUND;
    SELECT * INTO STRICT before FROM dispute WHERE id = a_id FOR UPDATE;
    IF (before.gateway_id, before.amount, before.currency) IS DISTINCT FROM (a_gateway, a_amount, a_currency) THEN
        RAISE check_violation USING CONSTRAINT = 'dispute_differs', MESSAGE = format(
            'dispute %s was of %s %s, and not what it says now', a_id, before.amount, before.currency);
    END IF;
    IF before.status = 'won' AND a_status = 'lost' THEN  -- the bank has the money again: by what entry, a person says
        RAISE check_violation USING CONSTRAINT = 'dispute_differs', MESSAGE = format(
            'dispute %s of %s %s was won and is lost after all: `clearinghouse credit withdraw`', a_id, a_amount, a_currency);
    END IF;
    IF NOT is_new AND dispute_rank(a_status) <= dispute_rank(before.status) THEN
        RETURN false;
    END IF;
    was := CASE WHEN is_new THEN '' ELSE before.status END;
    UPDATE dispute SET status = a_status, due_by = a_due_by,
           ended_at = CASE WHEN a_status IN ('won', 'lost', 'warning_closed', 'prevented') THEN clock_timestamp() END
     WHERE id = a_id;
    INSERT INTO payment_event (dispute_id, kind, actor, facts)
    VALUES (a_id, a_status, a_actor, jsonb_build_object('was', was, 'amount', a_amount::text, 'charge', a_charge));
    IF a_status IN ('needs_response', 'under_review', 'lost', 'won') AND NOT before.is_gone THEN
        UPDATE dispute SET is_gone = true, invoice_id = a_invoice WHERE id = a_id;
        leaving := leaves_account(a_invoice, a_gross_minor, a_net_minor, NULL, a_amount, true);
        UPDATE dispute SET booked = booked + leaving WHERE id = a_id;
        IF leaving > 0 THEN
            PERFORM book_entry(a_entry_taken, 'dispute', a_gateway, -leaving, NULL, 'dispute:' || a_id,
                               format('dispute %s of charge %s: %s', a_id, a_charge, a_reason), a_actor);
        END IF;
    END IF;
    IF a_status = 'won' THEN
        UPDATE dispute SET is_gone = false WHERE id = a_id;
        leaving := leaves_account(a_invoice, a_gross_minor, a_net_minor, NULL, a_amount, false);
        UPDATE dispute SET booked = booked + leaving WHERE id = a_id;
        IF leaving < 0 THEN
            PERFORM book_entry(a_entry_back, 'dispute_won', a_gateway, -leaving, NULL, 'dispute_won:' || a_id,
                               format('dispute %s was won', a_id), a_actor);
        END IF;
    END IF;
    PERFORM hold_for_disputes(a_gateway);
    RETURN true;
END $$;

-- Holds the gateway while a bank has, or has taken, its money.
CREATE FUNCTION hold_for_disputes(a_gateway uuid) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    taken text;
BEGIN
    SELECT string_agg(id, ', ' ORDER BY id) INTO taken FROM dispute
     WHERE gateway_id = a_gateway AND status IN ('needs_response', 'under_review', 'lost') AND NOT is_forgiven;
    IF taken IS NOT NULL THEN
        PERFORM set_billing_hold(a_gateway, 'signing', left('disputed: ' || taken, 1000), 'dispute');
    ELSE
        PERFORM set_billing_hold(a_gateway, 'none', '', 'dispute');
    END IF;
END $$;

-- An operator says that disputes are no reason any more to sign nothing, such as when the gateway has paid otherwise.
CREATE FUNCTION forgive_disputes(a_gateway uuid, a_reason text, a_actor text) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
    forgiven integer;
BEGIN
    WITH done AS (
        UPDATE dispute SET is_forgiven = true WHERE gateway_id = a_gateway AND NOT is_forgiven
           AND status IN ('needs_response', 'under_review', 'lost') RETURNING id),
    noted AS (
        INSERT INTO payment_event (dispute_id, kind, actor, facts)
        SELECT id, 'forgiven', a_actor, jsonb_build_object('reason', a_reason) FROM done RETURNING 1)
    SELECT count(*) INTO forgiven FROM noted;
    PERFORM hold_for_disputes(a_gateway);
    RETURN forgiven;
END $$;
