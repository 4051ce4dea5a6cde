-- Credit notes that we make: less to pay on an open invoice, or something given back of a paid one.
--
--   planned ──▶ issued        the row comes first; then Stripe is asked, and its note booked as any other (notes.py)
--      └──────▶ refused       Stripe said no: nothing was done
--
-- What is asked of Stripe is fixed with the row, so that a call that is made again is the same call. Its reason names a
-- note of an invoice: whoever asks for it once more gets the one that there is.
CREATE TABLE credit_note (
    id                uuid PRIMARY KEY,
    invoice_id        uuid NOT NULL REFERENCES invoice,
    gives             text NOT NULL CHECK (gives IN ('less_due', 'credit', 'refund', 'outside')),
    amount_minor      bigint NOT NULL CHECK (amount_minor > 0),             -- without tax
    total_minor       bigint NOT NULL CHECK (total_minor >= amount_minor),  -- with it, as Stripe reckoned beforehand
    lines             jsonb NOT NULL,       -- [{line: of the invoice at Stripe, amount: minor units}]
    reason            text NOT NULL CHECK (length(reason) BETWEEN 1 AND 500),
    actor             text NOT NULL,
    created_at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    state             text NOT NULL DEFAULT 'planned' CHECK (state IN ('planned', 'issued', 'refused')),
    keys_spent_count  integer NOT NULL DEFAULT 0,  -- idempotency keys under which Stripe keeps a failure
    problem           text CHECK (length(problem) <= 1000),
    stripe_note_id    text UNIQUE,
    number            text,
    ended_at          timestamptz,
    CHECK ((state = 'issued') = (stripe_note_id IS NOT NULL AND number IS NOT NULL)),
    CHECK ((state = 'planned') = (ended_at IS NULL)),
    CHECK (state <> 'refused' OR problem IS NOT NULL)
);
CREATE UNIQUE INDEX credit_note_of_reason ON credit_note (invoice_id, reason) WHERE state <> 'refused';
-- What one leaves to be credited is known only when it is issued.
CREATE UNIQUE INDEX credit_note_under_way ON credit_note (invoice_id) WHERE state = 'planned';

CREATE FUNCTION credit_note_moves_forward() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    progress CONSTANT text[] := '{state,keys_spent_count,problem,stripe_note_id,number,ended_at}';
BEGIN
    IF OLD.state <> 'planned' OR to_jsonb(OLD) - progress <> to_jsonb(NEW) - progress THEN
        RAISE EXCEPTION 'a credit note that is % stays so', OLD.state
            USING ERRCODE = 'insufficient_privilege', HINT = 'Make another one.';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER moves_forward BEFORE UPDATE ON credit_note FOR EACH ROW EXECUTE FUNCTION credit_note_moves_forward();
CREATE TRIGGER never_removed BEFORE DELETE OR TRUNCATE ON credit_note
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change('What was credited is asked for again by another invoice.');
