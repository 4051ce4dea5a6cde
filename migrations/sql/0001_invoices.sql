-- Invoices: what a gateway owes for a period, or for a subscription in advance, and how far that has got at Stripe.
--
--   planned ──▶ drafted ──▶ itemized ──▶ agreed ──▶ finalized ──▶ open ──▶ paid
--      │           │            │           │           │           ├──▶ uncollectible ──▶ paid, void
--      └───────────┴────────────┴───────────┴───────────┴───────────┴──▶ void
--   carried, nothing_due        there is nothing to ask for, or it is asked for without Stripe: such a row is born so,
--                               and stays so
--
-- The row comes first, and is unique: whatever happens afterwards, and however often, there is one invoice. What is on it
-- is decided once, with the row, and never changes; states go forward only.

CREATE TABLE invoice (
    id                  uuid PRIMARY KEY,
    gateway_id          uuid NOT NULL REFERENCES gateway,
    kind                text NOT NULL CHECK (kind IN ('usage', 'subscription')),  -- in arrears; in advance
    begins_at           timestamptz NOT NULL,   -- of the period
    ends_at             timestamptz NOT NULL CHECK (ends_at > begins_at),
    first_day           date NOT NULL,          -- the same by the gateway's calendar
    next_day            date NOT NULL CHECK (next_day > first_day),
    revision            integer NOT NULL DEFAULT 0 CHECK (revision >= 0),  -- a later one takes the place of a void one
    currency            currency NOT NULL,
    decimals            smallint NOT NULL CHECK (decimals BETWEEN 0 AND 18),  -- of it, that make a minor unit
    exact               monetary NOT NULL,      -- what is owed, to the last digit; below 0 it is credit
    total_minor         bigint NOT NULL CHECK (total_minor >= 0),  -- what is asked for, without tax
    -- How it is asked for: fixed with the row, so that a call to Stripe that is made again is the same call.
    collection          text NOT NULL DEFAULT 'send_invoice'
                        CHECK (collection IN ('charge_automatically', 'send_invoice', 'manual')),
    net_days            integer NOT NULL DEFAULT 0,
    is_taxed            boolean NOT NULL DEFAULT false,
    po_number           text NOT NULL DEFAULT '',
    memo                text NOT NULL DEFAULT '',
    footer              text NOT NULL DEFAULT '',
    payment_settings    jsonb,                  -- by what it can be paid, as Stripe is asked; NULL: Stripe chooses
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    -- How far it has got.
    state               text NOT NULL CHECK (state IN ('planned', 'drafted', 'itemized', 'agreed', 'finalized', 'open',
                                                       'paid', 'void', 'uncollectible', 'carried', 'nothing_due')),
    state_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    claimed_until       timestamptz,            -- somebody walks it until then
    claims_count        integer NOT NULL DEFAULT 0,  -- after the first, it is looked up at Stripe before it is made there
    keys_spent_count    integer NOT NULL DEFAULT 0,  -- idempotency keys under which Stripe keeps a failure
    stripe_method_id    text,                   -- the saved card that was charged last: noted before Stripe is asked
    pay_attempts_count  integer NOT NULL DEFAULT 0,  -- with that card
    pay_next_at         timestamptz,            -- when it is tried (again); NULL: not before another one is saved
    problem             text CHECK (length(problem) <= 1000),  -- why it does not go on; NULL: nothing is wrong
    problem_at          timestamptz,
    -- As Stripe has it. Amounts are gross, in minor units, as last seen.
    stripe_customer_id  text,
    stripe_invoice_id   text UNIQUE,
    number              text,
    hosted_url          text,
    pdf_url             text,
    seen_at             timestamptz,            -- when Stripe was asked for what is here: what is older changes nothing of it
    tax_minor           bigint NOT NULL DEFAULT 0 CHECK (tax_minor >= 0),  -- on top of the total
    remaining_minor     bigint,
    overpaid_minor      bigint NOT NULL DEFAULT 0,  -- Stripe keeps it for the customer, and uses it for a later invoice
    off_stripe_minor    bigint NOT NULL DEFAULT 0,  -- paid another way, as somebody told Stripe
    finalized_at        timestamptz,
    sent_at             timestamptz,
    due_at              timestamptz,
    ended_at            timestamptz,            -- paid or void
    -- What is in the books as paid, without tax. A credit note may make tax of a part, since taxes are paid last.
    booked_minor        bigint NOT NULL DEFAULT 0 CHECK (booked_minor BETWEEN 0 AND total_minor),
    -- What credit notes took off it before it was paid, without tax; it is in the books, too.
    credited_minor      bigint NOT NULL DEFAULT 0 CHECK (credited_minor BETWEEN 0 AND total_minor),
    CHECK (booked_minor + credited_minor <= total_minor),
    -- When another took its place, because its period was rated anew: a credit note had taken back all of it by then.
    replaced_at         timestamptz CHECK (replaced_at IS NULL OR state = 'paid'),
    UNIQUE (gateway_id, kind, begins_at, revision),
    CHECK (state NOT IN ('drafted', 'itemized', 'agreed', 'finalized', 'open', 'paid', 'uncollectible')
           OR stripe_invoice_id IS NOT NULL AND stripe_customer_id IS NOT NULL),
    CHECK (state NOT IN ('finalized', 'open', 'paid', 'uncollectible')
           OR finalized_at IS NOT NULL AND due_at IS NOT NULL AND remaining_minor IS NOT NULL),
    CHECK ((ended_at IS NOT NULL) = (state IN ('paid', 'void'))),
    CHECK ((problem IS NULL) = (problem_at IS NULL)),
    -- Who is asked without Stripe is not asked by it, too.
    CHECK (collection <> 'manual' OR state IN ('carried', 'nothing_due'))
);
-- Void before issuing again: of a period no two are asked for.
CREATE UNIQUE INDEX invoice_one ON invoice (gateway_id, kind, begins_at) WHERE state <> 'void' AND replaced_at IS NULL;
CREATE INDEX invoice_under_way ON invoice (created_at)
    WHERE state IN ('planned', 'drafted', 'itemized', 'agreed', 'finalized', 'open', 'uncollectible');
CREATE INDEX invoice_newest ON invoice (gateway_id, id DESC);

-- What is on it, in its order: exact, and as it is asked for. `amount_minor` of all lines is the invoice's total.
CREATE TABLE invoice_line (
    invoice_id     uuid NOT NULL REFERENCES invoice,
    position       integer NOT NULL CHECK (position > 0),
    kind           text NOT NULL CHECK (kind IN ('usage', 'fee', 'carried', 'credit', 'returned', 'correction', 'rounding')),
    description    text NOT NULL CHECK (length(description) BETWEEN 1 AND 500),
    exact          monetary NOT NULL,           -- of the line `rounding`: 0, it belongs to no usage
    amount_minor   bigint NOT NULL,
    facts          jsonb NOT NULL DEFAULT '{}', -- of usage: app, pipeline, model, what was used, rates; as texts
    PRIMARY KEY (invoice_id, position)
);

-- Which entries of the books are an invoice's own: its rounding, its payments, the fee of a subscription. Whatever is not,
-- is owed or is credit until an invoice has asked for it. Of two invoices with the same fee one is void.
CREATE TABLE invoice_entry (
    transfer_id  uuid NOT NULL REFERENCES transfer,
    invoice_id   uuid NOT NULL REFERENCES invoice,
    PRIMARY KEY (transfer_id, invoice_id)
);
CREATE INDEX invoice_entry_invoice ON invoice_entry (invoice_id);

-- Entries that correct a period which is closed already, and is asked for anew: they belong to it.
CREATE TABLE entry_of_period (
    transfer_id   uuid PRIMARY KEY REFERENCES transfer,
    effective_at  timestamptz NOT NULL   -- just before the period ends
);

-- Every state an invoice was in, from when on, with what was known.
CREATE TABLE invoice_event (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    invoice_id  uuid NOT NULL REFERENCES invoice,
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    state       text NOT NULL,
    said        text NOT NULL DEFAULT '' CHECK (length(said) <= 1000)
);
CREATE INDEX invoice_event_invoice ON invoice_event (invoice_id, id);

CREATE FUNCTION invoice_moves_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    progress CONSTANT text[] := '{state,state_at,claimed_until,claims_count,keys_spent_count,stripe_method_id,pay_attempts_count,
        pay_next_at,problem,problem_at,stripe_customer_id,stripe_invoice_id,number,hosted_url,pdf_url,seen_at,tax_minor,
        remaining_minor,overpaid_minor,off_stripe_minor,finalized_at,sent_at,due_at,ended_at,booked_minor,credited_minor,
        replaced_at}';
    steps CONSTANT text[] := '{planned,drafted,itemized,agreed,finalized,open,uncollectible,paid}';
BEGIN
    IF to_jsonb(OLD) - progress <> to_jsonb(NEW) - progress
       OR NEW.booked_minor < OLD.booked_minor AND NEW.credited_minor <= OLD.credited_minor
       OR OLD.stripe_invoice_id <> coalesce(NEW.stripe_invoice_id, '')
       OR OLD.state <> 'planned' AND OLD.stripe_customer_id <> coalesce(NEW.stripe_customer_id, '') THEN
        RAISE EXCEPTION 'what an invoice asks for never changes'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Void it, and issue another.';
    END IF;
    IF OLD.state <> NEW.state AND (
           OLD.state IN ('paid', 'void', 'carried', 'nothing_due')
           OR NEW.state <> 'void'
              AND coalesce(array_position(steps, NEW.state) < array_position(steps, OLD.state), true)) THEN
        RAISE EXCEPTION 'an invoice that is % cannot become %', OLD.state, NEW.state USING ERRCODE = 'check_violation';
    END IF;
    NEW.state_at := CASE WHEN OLD.state = NEW.state THEN OLD.state_at ELSE clock_timestamp() END;
    RETURN NEW;
END $$;
CREATE TRIGGER moves_forward BEFORE UPDATE ON invoice FOR EACH ROW EXECUTE FUNCTION invoice_moves_forward();

CREATE FUNCTION note_invoice_event() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
    INSERT INTO invoice_event (invoice_id, state, said) VALUES (NEW.id, NEW.state, coalesce(NEW.problem, ''));
    RETURN NULL;
END $$;
CREATE TRIGGER notes_begin AFTER INSERT ON invoice FOR EACH ROW EXECUTE FUNCTION note_invoice_event();
CREATE TRIGGER notes_step AFTER UPDATE ON invoice FOR EACH ROW
    WHEN ((OLD.state, OLD.problem) IS DISTINCT FROM (NEW.state, NEW.problem)) EXECUTE FUNCTION note_invoice_event();

CREATE TRIGGER never_removed BEFORE DELETE OR TRUNCATE ON invoice
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('`clearinghouse invoices void` takes one back.');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON invoice_line
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('Void the invoice, and issue another.');
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON invoice_entry
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON entry_of_period
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON invoice_event
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Entries of gateways' accounts but usage: `amount` enters the account, or leaves it where it is negative. `is_invoiced`:
-- an invoice has it or will have it by itself, so that the next one for usage leaves it out. A rounding is always an
-- invoice's; the fee of a subscription has an invoice of its own, unless that asks for nothing. `effective_at`: credit that
-- expires is gone at that instant, whenever it is booked; what was included in a period pays for nothing after it; and
-- what a period was corrected by is its own. `is_rerated`: the difference of one that was rated anew, which its lines say.
CREATE VIEW account_entry AS
    SELECT side.gateway_id, side.id, side.kind, side.amount, side.created_at,
           least(side.created_at, lot.expires_at - interval '1 microsecond', corrects.effective_at) AS effective_at,
           corrects.transfer_id IS NOT NULL AND side.kind = 'adjustment' AS is_rerated,
           side.kind = 'rounding'
           OR EXISTS (SELECT FROM invoice_entry AS own JOIN invoice ON invoice.id = own.invoice_id
                       WHERE own.transfer_id = side.id AND invoice.state NOT IN ('void', 'carried', 'nothing_due'))
           OR side.kind = 'fee' AND NOT EXISTS (SELECT FROM invoice_entry AS own WHERE own.transfer_id = side.id)
               AS is_invoiced
      FROM (SELECT destination AS gateway_id, id, kind, amount, key, created_at FROM transfer
            UNION ALL
            SELECT source, id, kind, -amount, key, created_at FROM transfer) AS side
      LEFT JOIN credit_lot AS lot ON lot.id = CASE WHEN side.kind = 'expiry' THEN substr(side.key, 8)::uuid END
      LEFT JOIN entry_of_period AS corrects ON corrects.transfer_id = side.id;

-- What a gateway owes at `a_until`, where its balance is `a_balance`, and no invoice has asked for; credit below 0. Exact
-- for whatever instant: it goes by what invoices asked for, not by when they were finalized or paid.
CREATE FUNCTION unbilled(a_gateway uuid, a_until timestamptz, a_balance numeric) RETURNS numeric
LANGUAGE sql STABLE AS $$
    SELECT (SELECT coalesce(sum(amount) FILTER (WHERE is_invoiced AND created_at < a_until), 0)
                 - coalesce(sum(amount) FILTER (WHERE effective_at < a_until AND created_at >= a_until), 0)
              FROM account_entry WHERE gateway_id = a_gateway)
         - (SELECT coalesce(sum(exact), 0) FROM invoice
             WHERE gateway_id = a_gateway AND kind = 'usage' AND ends_at <= a_until
               AND state NOT IN ('void', 'carried', 'nothing_due') AND replaced_at IS NULL)
         - a_balance;
$$;
